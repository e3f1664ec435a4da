"""What crosses between server and clients, as typed records over Flower's.

One frozen dataclass per direction. Plain parameter training uses Flower's own convention (records
"arrays", "config", "metrics"), so Flower's strategies understand our clients and ours theirs; the
action "predictions" (`train.predictions`, `evaluate.predictions`) is the exchange of answers.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from clients.messages.answers import Answers
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.codecs import decode, encode
from clients.messages.sizes import NUM_EXAMPLES, examples_in
from clients.models.discriminator import DiscriminatorRecipe
from clients.models.factory import Parameters

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
INPUTS, STUDENT, PREDICTIONS = "inputs", "student", "predictions"
"""Names of records."""

IDS = ("proxy-ids", "negative-ids", "digest-ids")
NODE_ID_BASE = 1_000_000_000
"""Flower's node id is this plus the client id: stable from run to run, legible in its logs, and
clear of the ids 0 and 1 that Flower keeps for itself."""


def node_id_of(client_id: int) -> int:
    """Return Flower's node id of a client."""
    return NODE_ID_BASE + client_id


def client_id_of(node_id: int) -> int:
    """Return the client that a Flower node id stands for."""
    return node_id - NODE_ID_BASE


@dataclass(frozen=True, eq=False)
class PredictionRequest:
    """Server to client: train if it is a training round, then answer these inputs.

    Attributes:
        server_round: 1..R.
        num_inputs: N, how many answers are expected.
        num_classes: C of every answer.
        proxy_ids: Which proxy examples to answer [N]; None = the whole test set.
        negative_ids: Proxy examples to tell own data from [M]; None = fit no discriminator.
        recipe: How to fit the discriminator; None = fit none.
        student: The student's parameters, fed back; None = nothing is.
        digest_epochs: Epochs of imitating the student before local training, where it is fed
            back to a client of another architecture.
        digest_ids: On which proxy examples it is imitated [D]; None = those to be answered.
        temperature: T of that imitation.
        answers: How they are to be sent, one of `clients.messages.codecs.ANSWERS`.
        send_parameters: Whether the client is to send its network's parameters along.
    """

    server_round: int
    num_inputs: int
    num_classes: int
    proxy_ids: npt.NDArray[np.int64] | None = None
    negative_ids: npt.NDArray[np.int64] | None = None
    recipe: DiscriminatorRecipe | None = None
    student: Parameters | None = None
    digest_epochs: int = 0
    digest_ids: npt.NDArray[np.int64] | None = None
    temperature: float = 1.0
    answers: str = "float32"
    send_parameters: bool = False


@dataclass(frozen=True, eq=False)
class PredictionReply:
    """Client to server: its answers.

    Attributes:
        server_round: The request's.
        client_id: Who answers; sums of many replies keep it, `screening.fault_of` compares it with
            the sender.
        inputs_crc32: `crc32_of` the ids that were answered.
        num_examples: Size of the client's private set, > 0.
        logits: Answers [N, C], float32.
        own_probs: How probably each input is the client's own kind [N], in [0, 1]; or None.
        mask: Which inputs the client answers for [N], bool; None = all.
        metrics: Scalars for the per-client table.
        answers: How the logits are sent, one of `clients.messages.codecs.ANSWERS`.
        parameters: And buffers of its network, where they were asked for; else None.
        architecture: Name of that network's.
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


def crc32_of(ids: npt.NDArray[np.int64] | None) -> int:
    """Fingerprint the ids of a request; 0 for the whole test set."""
    return 0 if ids is None else zlib.crc32(np.ascontiguousarray(ids, dtype=np.int64).tobytes())


def write_request(request: PredictionRequest) -> RecordDict:
    """Turn a request into the content of a message."""
    config = ConfigRecord(
        {
            "server-round": request.server_round,
            "num-inputs": request.num_inputs,
            "num-classes": request.num_classes,
            "digest-epochs": request.digest_epochs,
            "temperature": request.temperature,
            "answers": request.answers,
        }
    )
    if request.send_parameters:
        config["send-parameters"] = True
    if request.recipe is not None:
        config["discriminator-inputs"] = request.recipe.inputs
        config["discriminator-balanced"] = request.recipe.balanced
        config["discriminator-l2"] = request.recipe.l2
    content = RecordDict({CONFIG: config})
    ids = {name: getattr(request, name.replace("-", "_")) for name in IDS}
    if given := {name: value for name, value in ids.items() if value is not None}:
        content[INPUTS] = write_arrays(cast(Parameters, given))
    if request.student is not None:
        content[STUDENT] = write_arrays(request.student)
    return content


def read_request(content: RecordDict) -> PredictionRequest:
    """Read what `write_request` wrote."""
    config = cast(dict[str, Any], content.config_records[CONFIG])
    inputs = read_arrays(content.array_records.get(INPUTS, ArrayRecord()))
    inputs = {name: ids.copy() for name, ids in inputs.items()}  # tensors are indexed by them
    student = content.array_records.get(STUDENT)
    recipe = None
    if "discriminator-inputs" in config:
        recipe = DiscriminatorRecipe(
            config["discriminator-inputs"],
            config["discriminator-balanced"],
            config["discriminator-l2"],
        )
    return PredictionRequest(
        server_round=config["server-round"],
        num_inputs=config["num-inputs"],
        num_classes=config["num-classes"],
        proxy_ids=inputs.get("proxy-ids"),
        negative_ids=inputs.get("negative-ids"),
        recipe=recipe,
        student=None if student is None else read_arrays(student),
        digest_epochs=config["digest-epochs"],
        digest_ids=inputs.get("digest-ids"),
        temperature=config["temperature"],
        answers=config["answers"],
        send_parameters=config.get("send-parameters", False),
    )


def write_reply(reply: PredictionReply) -> RecordDict:
    """Turn a client's answers into the content of a message."""
    others = {"own-probs": reply.own_probs, "mask": reply.mask}
    arrays = encode(reply.logits, reply.answers)
    config = ConfigRecord(
        {
            "server-round": reply.server_round,
            "client-id": reply.client_id,
            "inputs-crc32": reply.inputs_crc32,
            "answers": reply.answers,
        }
    )
    content = RecordDict(
        {
            CONFIG: config,
            PREDICTIONS: write_arrays(arrays | {k: v for k, v in others.items() if v is not None}),
            METRICS: MetricRecord({**reply.metrics, NUM_EXAMPLES: reply.num_examples}),
        }
    )
    if reply.parameters is not None:
        config["architecture"] = reply.architecture
        content[ARRAYS] = write_arrays(reply.parameters)
    return content


def read_reply(content: RecordDict) -> PredictionReply:
    """Read what `write_reply` wrote.

    Args:
        content: Of a reply to a `.predictions` request.

    Returns:
        The answers, not yet compared with the request; `screening.fault_of` does that.

    Raises:
        ValueError: A record or a key is missing.
    """
    try:
        config = cast(dict[str, Any], content[CONFIG])
        answers = read_arrays(cast(ArrayRecord, content[PREDICTIONS]))
        measured = cast(MetricRecord, content[METRICS])
        metrics = {k: v for k, v in cast(Any, measured).items() if k != NUM_EXAMPLES}
        parameters = cast(ArrayRecord | None, content.get(ARRAYS))
        return PredictionReply(
            server_round=config["server-round"],
            client_id=config["client-id"],
            inputs_crc32=config["inputs-crc32"],
            num_examples=int(examples_in(measured)),
            logits=decode(answers).numpy(),
            own_probs=answers.get("own-probs"),
            mask=answers.get("mask"),
            metrics=metrics,
            answers=config["answers"],
            parameters=None if parameters is None else read_arrays(parameters),
            architecture=config.get("architecture", ""),
        )
    except KeyError as missing:
        raise ValueError(f"a predictions reply lacks {missing}") from None


def read_sender(content: RecordDict) -> tuple[int, str]:
    """Return who sent a predictions reply: client id and architecture."""
    config = cast(dict[str, Any], content[CONFIG])
    return config["client-id"], config["architecture"]


def read_predictions(replies: Iterable[Message]) -> Answers | None:
    """Stack the answers of all replies without an error, ordered by client.

    Args:
        replies: Replies to one round's `.predictions` requests, in any order.

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
        [read_reply(message.content) for message in good],
    )


def stack_answers(client_ids: Sequence[int], answers: Sequence[PredictionReply]) -> Answers:
    """Put the answers of several clients to the same inputs together.

    Args:
        client_ids: Whose they are, ascending (K of them).
        answers: At least one.

    Returns:
        The answers of all.

    Raises:
        ValueError: Answers disagree in shape, or only some carry a discriminator's probabilities.
    """
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
    )
