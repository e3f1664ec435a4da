"""Codecs of what the server sends: parameters are encoded once for all who get them, then decoded.

The global model as "arrays", and what is fed back: a student as "student", soft labels as "targets"
brought back to the simplex. Clients decode before they look at anything, so that what they load,
and what they say a round has changed, is what arrived. As in replies, buffers and what only
measures go as they are.
"""

import zlib
from collections.abc import Callable, Collection
from functools import partial
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from torch import nn

from clients.data import Task
from clients.execution.isolation import keeps_nothing
from clients.handlers.coded_parameters import rehearse_arrays, rehearsed
from clients.handlers.state import round_told
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.codecs import OF_REQUESTS, Array, Arrays, Codec, Offered, told
from clients.messages.requests import ARRAYS, TARGETS
from clients.messages.requests import STUDENT as FED_BACK
from clients.models.factory import buffer_names
from clients.population.clients import STUDENT, SimulatedClients
from clients.seeding import Purpose, stream
from clients.signatures import names

KEY = "clients.codec_down"
SENT = (ARRAYS, FED_BACK, TARGETS)
"""Records that hold parameters or targets from the server."""

CODED, BUFFERS = "coded", "buffers"
"""What they are called on their way, behind a dot: parts of the codec's, and what goes as it is."""


def encoded_request(clients: SimulatedClients, request: Message) -> RecordDict:
    """Encode the parameters of a content.

    Args:
        clients: All of the federation's; they have a codec down.
        request: The first of those that have this content, which is not changed.

    Returns:
        Another content; the same if there are no parameters.

    Raises:
        ValueError: The codec fails; says how.
    """
    content, codec = request.content, cast(Codec, clients.codec_down)
    sent = [name for name in SENT if isinstance(content.get(name), ArrayRecord)]
    if not sent:
        return content
    records = dict(content.items())
    for name in sent:
        arrays = read_arrays(cast(ArrayRecord, records.pop(name)))
        apart = () if name == TARGETS else buffer_names(_network(clients, arrays, "cpu"))
        learned = {key: array for key, array in arrays.items() if key not in apart}
        offered: Offered = {
            "rng": partial(_generator, clients, request, name),
            "server_round": partial(round_told, content),
        }
        parts = _called(codec.encode, learned, offered, codec)
        records[f"{name}.{CODED}"] = write_arrays(parts)
        if buffers := {key: array for key, array in arrays.items() if key in apart}:
            records[f"{name}.{BUFFERS}"] = write_arrays(buffers)
    return RecordDict(records)


def decode_request(clients: SimulatedClients, content: RecordDict, device: str) -> None:
    """Decode the parameters of a content in place; what is decoded, or was not encoded, stays.

    Args:
        clients: All of the federation's.
        content: What a client received.
        device: Where its networks are.

    Raises:
        ValueError: The codec fails; says how.
    """
    codec = cast(Codec, clients.codec_down)
    for name in SENT:
        if (record := content.get(f"{name}.{CODED}")) is None:
            continue
        parts, beside = read_arrays(cast(ArrayRecord, record)), f"{name}.{BUFFERS}"
        arrays = _called(codec.decode, parts, {}, codec)
        if beside in content:
            arrays |= read_arrays(cast(ArrayRecord, content.pop(beside)))
        if name == TARGETS:
            arrays[name] = _as_targets(arrays[name], clients.splits.proxy.task)
        else:  # replies take the order of requests: some of Flower's strategies go by places
            order = [*_network(clients, arrays, device).state_dict()]
            known = [key for key in order if key in arrays]
            arrays = {key: arrays[key] for key in (*known, *arrays)}
        content[name] = write_arrays(arrays)
        del content[f"{name}.{CODED}"]


def rehearse_codec_down(clients: SimulatedClients, targets: bool = False) -> None:
    """Try the codec on the student's parameters, or made-up targets, before anybody trains.

    Args:
        clients: All of the federation's; they have a codec down.
        targets: Whether those are what it is for.

    Raises:
        ValueError: It keeps a state, or does not give back arrays of the names, shapes and dtypes
            that it is given; says so.
    """
    codec = cast(Codec, clients.codec_down)
    if names(codec.encode, "state") and getattr(codec, "memory", True):
        raise ValueError(
            f"{KEY}: {type(codec).__name__} names 'state', what a client keeps of what was left "
            "out, and the server keeps none: expected a codec without, such as uint8, or with "
            "memory: false"
        )
    task = clients.splits.private.task
    if not targets:
        rehearsed(KEY, codec, {STUDENT: clients.student}, task, OF_REQUESTS)
        return
    made_up = np.random.default_rng(0).dirichlet(np.ones(task.num_classes), 5 * task.sites)
    rehearse_arrays(KEY, codec, {TARGETS: made_up.astype(np.float32)}, OF_REQUESTS, "targets")


# --- steps ---


def _called(
    function: Callable[..., Arrays], arrays: Arrays, offered: Offered, codec: Codec
) -> dict[str, Array]:
    try:
        with keeps_nothing(**{KEY: codec}):
            return told(function, arrays, offered)
    except Exception as error:  # anyone's codec
        raise ValueError(f"{KEY}: {type(error).__name__}: {error}") from error


def _as_targets(decoded: Array, task: Task) -> Array:
    """Bring soft labels that were rounded back to the simplex; numbers stay as they are."""
    if not task.soft:
        return decoded
    cut = np.maximum(decoded, np.float32(1e-12))  # NaN, of a site that has no target, stays so
    found: Array = cut / cut.sum(-1, keepdims=True)
    return found


def _network(clients: SimulatedClients, arrays: Collection[str], device: str) -> nn.Module:
    """Find whose parameters these are by their names: the student's, unless another has those."""
    networks = clients.place(device).networks
    for name in (STUDENT, *clients.models):
        if networks.of(name).state_dict().keys() == {*arrays}:
            return networks.of(name)
    return networks.of(STUDENT)


def _generator(clients: SimulatedClients, request: Message, name: str) -> np.random.Generator:
    about = round_told(request.content), SENT.index(name)
    message = zlib.crc32(request.metadata.message_id.encode())
    return np.random.default_rng(stream(clients.seed, Purpose.CODEC_DOWN, *about, message))
