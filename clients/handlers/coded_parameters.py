"""Codecs of parameters: what clients send as "arrays" is encoded, and decoded before it is judged.

Whoever aggregates sees decoded arrays, neighbours too; bytes are those of what was encoded. What
only measures goes as it is, and so do buffers, such as batch norm's statistics: a variance that is
rounded may be below 0.
"""

import zlib
from collections.abc import Collection, Mapping
from copy import deepcopy
from functools import partial
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, Context, Message

from clients.data import Task
from clients.execution.isolation import keeps_nothing
from clients.handlers.base import is_evaluation
from clients.handlers.local_contexts import take_note
from clients.handlers.state import client_of, kept_arrays, round_told
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.codecs import OF_PARAMETERS, RECEIVED, Arrays, Codec, Offered, codec_of, told
from clients.messages.requests import ARRAYS
from clients.models.factory import ModelFunction, Parameters, buffer_names, build, parameters_of
from clients.population.clients import STUDENT, SimulatedClients
from clients.seeding import Purpose, stream
from clients.training.local_context import LocalContext, noted

KEY = "clients.codec"
CODEC, BUFFERS = "codec", "buffers"
"""Records: of a client's state what its codec keeps; of a reply on its way what is not encoded."""


def encoded(
    clients: SimulatedClients,
    request: Message,
    context: Context,
    answer: Message | Exception,
    device: str,
) -> Message | Exception:
    """Encode the parameters of a reply.

    Args:
        clients: All of the federation's.
        request: What it answers.
        context: The client's; what its codec keeps goes into its state.
        answer: The reply, whose record "arrays" is replaced; or what kept the client from one.
        device: Where its networks are.

    Returns:
        The reply, or what kept the client, or its codec, from it.
    """
    if isinstance(answer, Exception) or not _travels_encoded(clients, request, answer):
        return answer
    codec = cast(Codec, clients.codec)
    try:
        arrays = read_arrays(cast(ArrayRecord, answer.content[ARRAYS]))
        name = STUDENT if clients.messenger else clients.architectures[client_of(context)]
        apart = buffer_names(clients.place(device).networks.of(name)) & set(arrays)
        buffers = {name: array for name, array in arrays.items() if name in apart}
        learned = {name: array for name, array in arrays.items() if name not in apart}
        local = LocalContext(
            client_of(context),
            round_told(request.content),
            state=partial(kept_arrays, context, CODEC),
        )
        offered: Offered = {
            "rng": partial(_generator, clients, request, local),
            "client_id": lambda: local.client_id,
            "server_round": lambda: local.server_round,
            "note": lambda: partial(noted, local.notes, "note"),
            "received": partial(_received, request, apart),
            "state": lambda: local.state,
        }
        with keeps_nothing(**{KEY: codec}):
            parts = told(codec.encode, learned, offered)
        answer.content[ARRAYS] = write_arrays(parts)
        if buffers:
            answer.content[BUFFERS] = write_arrays(buffers)
        if local.kept is not None:
            context.state[CODEC] = write_arrays(local.kept)
        if local.notes:
            take_note(answer, local.notes)
    except Exception as error:  # anyone's codec, and the client's failure
        failure = ValueError(f"{KEY}: {type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure
    return answer


def decode(clients: SimulatedClients, request: Message, reply: Message) -> str | None:
    """Decode the parameters of a reply, whoever may have made it.

    Args:
        clients: All of the federation's.
        request: What it answers.
        reply: Its record "arrays" is replaced.

    Returns:
        Why they are of no use to the codec, or None.
    """
    if not _travels_encoded(clients, request, reply):
        return None
    codec, content = cast(Codec, clients.codec), reply.content
    try:
        sent = read_arrays(cast(ArrayRecord, content[ARRAYS]))
        record = content.get(BUFFERS)
        buffers = {} if record is None else read_arrays(cast(ArrayRecord, record))
        offered: Offered = {RECEIVED: partial(_received, request, buffers)}
        with keeps_nothing(**{KEY: codec}):
            arrays = told(codec.decode, sent, offered)
        content[ARRAYS] = write_arrays({**arrays, **buffers})
    except Exception as error:  # anyone's bytes
        return f"record '{ARRAYS}' cannot be decoded: {type(error).__name__}: {error}"
    if record is not None:
        del content[BUFFERS]
    return None


def rehearse_codec(clients: SimulatedClients) -> None:
    """Try the codec on the parameters of each architecture, before anybody trains.

    Args:
        clients: All of the federation's.

    Raises:
        ValueError: It is none, needs what nobody gives it, or does not give back arrays of the
            names, shapes and dtypes that it is given; says so.
    """
    codec = codec_of(deepcopy(cast(Codec, clients.codec)), OF_PARAMETERS)
    models = clients.models if clients.messenger is None else {STUDENT: clients.student}
    rehearsed(KEY, codec, models, clients.splits.private.task, OF_PARAMETERS)


def rehearsed(
    key: str, codec: Codec, models: Mapping[str, ModelFunction], task: Task, names: Collection[str]
) -> None:
    """Let a codec encode and decode the parameters of networks.

    Args:
        key: What an error begins with.
        codec: It.
        models: Whose parameters, by architecture.
        task: What they are to predict.
        names: Of what it is given.

    Raises:
        ValueError: As `rehearse_codec`.
    """
    for name, model in models.items():
        network = build(model, task, np.random.default_rng(0))
        own = parameters_of(network)
        arrays = {each: own[each] for each in own if each not in buffer_names(network)}
        rehearse_arrays(key, codec, arrays, names, f"architecture '{name}'")


def rehearse_arrays(
    key: str, codec: Codec, arrays: Arrays, names: Collection[str], whose: str
) -> None:
    """Let a codec encode and decode some arrays; `rehearsed`, of `whose`."""
    received = {each: array * np.float32(0.5) for each, array in arrays.items()}
    try:
        found = _there_and_back(codec, arrays, received, names)
    except Exception as error:  # anyone's code
        raise ValueError(f"{key}: {type(error).__name__}: {error}") from error
    if (odd := _unlike(arrays, found)) is not None:
        raise ValueError(f"{key}: decode gave {odd} ({whose})")


# --- steps ---


def _travels_encoded(clients: SimulatedClients, request: Message, reply: Message) -> bool:
    if clients.codec is None or is_evaluation(request.metadata.message_type):
        return False
    return ARRAYS in reply.content


def _generator(
    clients: SimulatedClients, request: Message, local: LocalContext
) -> np.random.Generator:
    """Make the generator of this message: noise that is added twice can be taken off."""
    message = zlib.crc32(request.metadata.message_id.encode())
    about = local.server_round, cast(int, local.client_id), message
    return np.random.default_rng(stream(clients.seed, Purpose.CODEC, *about))


def _received(request: Message, apart: Any) -> Parameters:
    """Return the arrays of a request, but for buffers; ValueError if it has none."""
    record = request.content.get(ARRAYS)
    if not isinstance(record, ArrayRecord):
        raise ValueError(f"the request has no record '{ARRAYS}', nothing was received")
    return {name: array for name, array in read_arrays(record).items() if name not in apart}


def _there_and_back(
    codec: Codec, arrays: Arrays, received: Arrays, names: Collection[str]
) -> Mapping[str, Any]:
    offered: Offered = {
        "rng": lambda: np.random.default_rng(0),
        "client_id": lambda: 0,
        "server_round": lambda: 0,
        "note": lambda: partial(noted, {}, "note"),
        RECEIVED: lambda: received,
        "state": dict,
    }
    given = {name: offered[name] for name in names}
    sent = read_arrays(write_arrays(told(codec.encode, arrays, given)))
    return told(codec.decode, sent, {n: make for n, make in given.items() if n == RECEIVED})


def _unlike(arrays: Arrays, found: Arrays) -> str | None:
    """Say which array came back as another one."""
    for name in [*arrays, *found]:
        one, other = (None if (a := each.get(name)) is None else f"{a.dtype} {a.shape}"
                      for each in (arrays, found))  # fmt: skip
        if one != other:
            return f"'{name}' as {other}, expected {one}"
    return None
