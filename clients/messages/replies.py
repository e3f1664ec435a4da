"""Replies with answers, from clients to server, and what the answers of a cohort come to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast, overload

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from clients.messages.answers import Answers, Stacked, stack
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.codecs import Offered
from clients.messages.field import NO_FIELDS, Fields
from clients.messages.requests import (
    ARRAYS,
    CONFIG,
    METRICS,
    NOTES,
    PREDICTIONS,
    client_id_of,
)
from clients.messages.shipped_fields import LOGITS, logits_of, others_of
from clients.messages.sizes import NUM_EXAMPLES, examples_in
from clients.models.factory import Parameters
from clients.training.local_context import noted


@dataclass(frozen=True, eq=False)
class PredictionReply:
    """Client to server: its answers.

    Attributes:
        server_round: The request's.
        client_id: Who answers; sums of many replies keep it, and it is compared with the sender
            (`clients.handlers.reply_faults.fault_of`).
        inputs_crc32: `crc32_of` the ids that were answered.
        num_examples: Size of the client's private set, > 0.
        logits: Answers [N, C], float32; N counts sites where inputs have several.
        own_probs: How probably each input is the client's own kind [N], in [0, 1]; or None.
        mask: Which inputs the client answers for [N], bool; None = all.
        metrics: Scalars for the per-client table.
        answers: How the logits are sent, as in `PredictionRequest`.
        parameters: And buffers of its network, where they were asked for; else None.
        architecture: Name of that network's.
        fields: What else was asked for, by name: of the field's shape.
        sites: Rows of answers of each input.
    """

    server_round: int
    client_id: int
    inputs_crc32: int
    num_examples: int
    logits: npt.NDArray[np.float32]
    own_probs: npt.NDArray[np.float32] | None
    mask: npt.NDArray[np.bool_] | None
    metrics: dict[str, float]
    answers: str = "float32"
    parameters: Parameters | None = None
    architecture: str = ""
    fields: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    sites: int = 1


def no_stream(name: str) -> np.random.Generator:
    """Have no generator for a codec of a user's own: ValueError."""
    raise ValueError(f"field '{name}': its codec may draw, and there is no generator for it")


def write_reply(
    reply: PredictionReply,
    fields: Fields = NO_FIELDS,
    rng: Callable[[str], np.random.Generator] = no_stream,
) -> RecordDict:
    """Turn a client's answers into the content of a message.

    Args:
        reply: They.
        fields: Those of `reply.fields`.
        rng: Name -> the generator of that name, for codecs that draw.

    Returns:
        The content.
    """
    notes: dict[str, float] = {}
    about: Offered = {
        "client_id": lambda: reply.client_id,
        "server_round": lambda: reply.server_round,
        "note": lambda: partial(noted, notes, "note"),
    }
    arrays = logits_of(fields, reply.answers).encode(LOGITS, reply.logits, rng, about)
    for name, array in reply.fields.items():
        arrays |= fields[name].encode(name, array, rng, about)
    others = {"own-probs": reply.own_probs, "mask": reply.mask}
    arrays |= {name: array for name, array in others.items() if array is not None}
    config = ConfigRecord(
        {
            "server-round": reply.server_round,
            "client-id": reply.client_id,
            "inputs-crc32": reply.inputs_crc32,
            "answers": reply.answers,
        }
    )
    if reply.sites != 1:
        config["sites"] = reply.sites
    content = RecordDict(
        {
            CONFIG: config,
            PREDICTIONS: write_arrays(arrays),
            METRICS: MetricRecord({**reply.metrics, NUM_EXAMPLES: reply.num_examples}),
        }
    )
    if notes:
        content[NOTES] = ConfigRecord({**notes})
    if reply.parameters is not None:
        config["architecture"] = reply.architecture
        content[ARRAYS] = write_arrays(reply.parameters)
    return content


def read_reply(content: RecordDict, fields: Fields = NO_FIELDS) -> PredictionReply:
    """Read what `write_reply` wrote.

    Args:
        content: Of a reply to a `.predictions` request.
        fields: What was asked for beside logits and a discriminator's probabilities.

    Returns:
        The answers, not yet compared with the request; `reply_faults.fault_of` does that.

    Raises:
        ValueError: A record, a key or a field is missing.
    """
    try:
        config = cast(dict[str, Any], content[CONFIG])
        answers = read_arrays(cast(ArrayRecord, content[PREDICTIONS]))
        measured = cast(MetricRecord, content[METRICS])
        metrics = {k: v for k, v in cast(Any, measured).items() if k != NUM_EXAMPLES}
        parameters = cast(ArrayRecord | None, content.get(ARRAYS))
        said = logits_of(fields, config["answers"]).decode(LOGITS, answers).numpy()
        fields = others_of(fields)
        decoded = {name: each.decode(name, answers).numpy() for name, each in fields.items()}
        return PredictionReply(
            server_round=config["server-round"],
            client_id=config["client-id"],
            inputs_crc32=config["inputs-crc32"],
            num_examples=int(examples_in(measured)),
            logits=said,
            own_probs=for_sites(answers.get("own-probs"), len(said)),
            mask=for_sites(answers.get("mask"), len(said)),
            metrics=metrics,
            answers=config["answers"],
            parameters=None if parameters is None else read_arrays(parameters),
            architecture=config.get("architecture", ""),
            fields={
                name: for_sites(array, len(said)) if fields[name].shape == ("N",) else array
                for name, array in decoded.items()
            },
            sites=config.get("sites", 1),
        )
    except KeyError as missing:
        raise ValueError(f"a predictions reply lacks {missing}") from None


@overload
def for_sites(array: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]: ...
@overload
def for_sites(array: None, rows: int) -> None: ...
def for_sites(array: npt.NDArray[Any] | None, rows: int) -> npt.NDArray[Any] | None:
    """Say for each row of answers [rows] what was said of its input [N], or of itself."""
    return array if array is None or len(array) == rows else array.repeat(rows // len(array))


def read_sender(content: RecordDict) -> tuple[int, str]:
    """Return who sent a predictions reply: client id and architecture."""
    config = cast(dict[str, Any], content[CONFIG])
    return config["client-id"], config["architecture"]


def read_predictions(replies: Iterable[Message], fields: Fields = NO_FIELDS) -> Answers | None:
    """Stack the answers of all replies without an error, ordered by client.

    Args:
        replies: Replies to one round's `.predictions` requests, in any order.
        fields: What was asked for beside logits and a discriminator's probabilities.

    Returns:
        The cohort's answers, or None if there is no usable reply.

    Raises:
        ValueError: Answers disagree in shape, or only some carry a discriminator's probabilities;
            on our grid such replies never get here.
    """
    good = sorted((m for m in replies if m.has_content()), key=lambda m: m.metadata.src_node_id)
    if not good:
        return None
    return stack_answers(
        [client_id_of(message.metadata.src_node_id) for message in good],
        [read_reply(message.content, fields) for message in good],
        fields,
    )


def stack_answers(
    client_ids: Sequence[int], answers: Sequence[PredictionReply], fields: Fields = NO_FIELDS
) -> Answers:
    """Put the answers of several clients to the same inputs together.

    Args:
        client_ids: Whose they are, ascending (K of them).
        answers: At least one.
        fields: What was asked for beside logits and a discriminator's probabilities.

    Returns:
        The answers of all.

    Raises:
        ValueError: Answers disagree in shape, or only some carry a discriminator's probabilities.
    """
    fields = others_of(fields)
    shapes = {answer.logits.shape for answer in answers}
    asked = {answer.own_probs is not None for answer in answers}
    if len(shapes) > 1 or len(asked) > 1:
        raise ValueError(f"replies disagree: logits of shapes {shapes}, discriminator {asked}")
    everything = np.ones(answers[0].logits.shape[0], dtype=np.bool_)
    masks = [everything if answer.mask is None else answer.mask for answer in answers]
    own = [answer.own_probs for answer in answers if answer.own_probs is not None]
    return Answers(
        client_ids=tuple(client_ids),
        logits=torch.from_numpy(np.stack([answer.logits for answer in answers])),
        mask=torch.from_numpy(np.stack(masks)),
        own_probs=torch.from_numpy(np.stack(own)) if own else None,
        num_examples=torch.tensor([float(answer.num_examples) for answer in answers]),
        per_input=_stacked(answers, {n: each for n, each in fields.items() if each.per_input}),
        per_client=_stacked(answers, {n: each for n, each in fields.items() if not each.per_input}),
        sites=answers[0].sites,
    )


def _stacked(answers: Sequence[PredictionReply], fields: Fields) -> dict[str, Stacked]:
    """Stack some fields of all clients."""
    return {
        name: stack([torch.from_numpy(np.array(answer.fields[name])) for answer in answers])
        for name in fields
    }
