"""Probes of networks: a function is taken to where each network is, and only numbers come back.

A type of message of its own, a measurement: nobody learns from it, and a run has the same bits
whoever watches.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from torch import Tensor, nn

from clients.data import Dataset, normalised
from clients.execution.isolation import keeps_nothing, lent
from clients.execution.model_cache import Tensors, as_tensors
from clients.handlers.base import SERVER_ROUND, Handler, each
from clients.handlers.state import MODEL, client_of, own_network, personal_network, round_of
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import ARRAYS, CONFIG, METRICS, client_id_of, node_id_of
from clients.models.factory import Parameters
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, stream
from clients.signatures import named_of

PROBE = "probe"
"""Key of a request: which probe is asked."""

PLACES = 3
"""Network, inputs and labels, which a function gets by their places."""

OFFERED = ("rng", "client_id", "server_round", "task", "class_shares", "own_examples")
"""What it gets besides if it names it."""

NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""Of a value: it becomes a column and part of a tag, where a slash would open a level."""


@dataclass(frozen=True, eq=False)
class NetworkProbe:
    """A function of a network, and the examples that it looks at, the same ones of every network.

    Attributes:
        name: As the config has it.
        of: `(network, inputs, labels) -> {name: number}`; gets what it names of `OFFERED`.
        examples: Inputs and labels, N >= 1.
        labelled: Whether the labels are what networks are taught; if not it gets None for them.
    """

    name: str
    of: Callable[..., Mapping[str, Any]]
    examples: Dataset
    labelled: bool = True


def stream_of(
    name: str, seed: int, server_round: int = 0, whose: int = 0
) -> np.random.SeedSequence:
    """Return the stream of a probe: of its examples in round 0, then of each round and network.

    Args:
        name: The probe's.
        seed: The run's.
        server_round: 0..R.
        whose: Client id; the student's is the number of clients.

    Returns:
        A stream of its own, whatever other probes there are.
    """
    turn = zlib.crc32(name.encode())
    return stream(seed, Purpose.NETWORK_PROBE, server_round, whose, turn)


def class_shares(clients: SimulatedClients, client_id: int | None) -> npt.NDArray[np.float64]:
    """Return the share of each class among a client's examples [C], as the data have them.

    Args:
        clients: All of the federation's.
        client_id: Whose; None = each client's [K, C].

    Returns:
        Rows that sum to 1.

    Raises:
        ValueError: Labels are no single classes.
    """
    private = clients.splits.private
    whose = range(len(clients.partitions)) if client_id is None else [client_id]
    if private.labels.ndim > 1 or private.labels.dtype.kind not in "iu":
        raise ValueError("class_shares: labels are no single classes")
    counts = [
        np.bincount(private.labels[clients.partitions[k]], minlength=private.task.num_classes)
        for k in whose
    ]
    shares = np.array([own / own.sum() for own in counts])
    return shares if client_id is None else shares[0]


def own_examples(
    clients: SimulatedClients, examples: Dataset, client_id: int | None
) -> npt.NDArray[np.bool_]:
    """Tell which examples are of an owner whose examples a client has [N].

    Args:
        clients: All of the federation's.
        examples: N of them, such as test examples.
        client_id: Whose; None = each client's [K, N].

    Returns:
        True where an example is the client's own.

    Raises:
        ValueError: Nobody says whose examples are, or not of both sets alike.
    """
    private = clients.splits.private
    if private.owners is None or examples.owners is None:
        raise ValueError(
            f"own_examples: {private.name} does not say whose its examples are; it must"
            if private.owners is None
            else f"own_examples: {examples.name}: nobody says whose the probed examples are: "
            "expected their column in the test file too, or test_owners, and inputs=test"
        )
    if private.owner_values != examples.owner_values:
        raise ValueError(f"own_examples: {examples.name} numbers owners otherwise than clients do")
    whose = range(len(clients.partitions)) if client_id is None else [client_id]
    own = [np.isin(examples.owners, private.owners[clients.partitions[k]]) for k in whose]
    return np.array(own) if client_id is None else own[0]


def numbers_of(
    probe: NetworkProbe,
    network: nn.Module,
    clients: SimulatedClients,
    server_round: int,
    client_id: int | None,
) -> dict[str, float]:
    """Ask a network: it is in eval mode, gradients are on, and what is done to it is undone.

    Args:
        probe: What is asked.
        network: On its device.
        clients: Of the federation.
        server_round: 1..R; 0 = a rehearsal, where a number need not be finite yet.
        client_id: Whose network; None = the student.

    Returns:
        Numbers by name.

    Raises:
        RuntimeError: The function failed, or keeps something; names the probe.
        ValueError: It returns what is no dict of names and finite numbers; names the probe.
    """
    whose = len(clients.architectures) if client_id is None else client_id
    key = stream_of(probe.name, clients.seed, server_round, whose)
    offered: dict[str, Callable[[], Any]] = {
        "rng": lambda: np.random.default_rng(key),
        "client_id": lambda: client_id,
        "server_round": lambda: server_round,
        "task": lambda: clients.splits.private.task,
        "class_shares": partial(class_shares, clients, client_id),
        "own_examples": partial(own_examples, clients, probe.examples, client_id),
    }
    given, what = probe.examples, f"probes.{probe.name}"
    if client_id is not None:
        given = clients.seen(given, client_id, "test", server_round)
    device = next(network.parameters()).device
    inputs = torch.from_numpy(normalised(given, np.arange(len(given)))).to(device)
    labels = torch.from_numpy(np.array(given.labels)).to(device) if probe.labelled else None
    try:
        with keeps_nothing(of=probe.of), lent(network), torch.enable_grad():
            found = probe.of(network, inputs, labels, **named_of(probe.of, offered))
    except Exception as error:  # anyone's code
        raise RuntimeError(f"{what}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{what}: returns {type(found).__name__}, expected a dict of numbers")
    return {
        name: _number(f"{what}: value {name!r}", name, value, server_round > 0)
        for name, value in found.items()
    }


def probing(probes: Iterable[NetworkProbe]) -> Handler:
    """Make the handler with which clients' own networks are asked.

    Args:
        probes: All that can be asked.

    Returns:
        A measurement. A client that keeps no network of its own says nothing.
    """
    known = {probe.name: probe for probe in probes}
    return Handler(
        "evaluate.probe",
        each(partial(_evaluate_probe, known)),
        keys=(SERVER_ROUND, PROBE),
        records=(ARRAYS,),
        replies={METRICS: MetricRecord},
        measurement=True,
    )


def requests(
    handler: Handler,
    name: str,
    server_round: int,
    client_ids: Sequence[int],
    shared: Parameters | None = None,
) -> list[Message]:
    """Ask clients for what a probe finds in their networks; all get one content.

    `shared` are the parameters with which clients' own make networks, if these are a part.
    """
    content = RecordDict({CONFIG: ConfigRecord({SERVER_ROUND: server_round, PROBE: name})})
    if shared is not None:
        content[ARRAYS] = write_arrays(shared)
    return [Message(content, node_id_of(k), handler.kind) for k in client_ids]


def read_numbers(replies: Iterable[Message]) -> dict[int, dict[str, float]]:
    """Collect numbers by client id, ascending, and name; replies with an error are skipped."""
    found = {
        client_id_of(reply.metadata.src_node_id): {
            name: float(cast(float, value))
            for name, value in cast(MetricRecord, reply.content[METRICS]).items()
        }
        for reply in replies
        if reply.has_content()
    }
    return dict(sorted(found.items()))


# --- steps ---


def _evaluate_probe(
    known: Mapping[str, NetworkProbe],
    clients: SimulatedClients,
    request: Message,
    context: Context,
    device: str,
) -> RecordDict:
    """Ask a client's own network, if its state holds one, or a part and the request the rest."""
    found: dict[str, float] = {}
    shared = request.content.get(ARRAYS)
    if MODEL in context.state or shared is not None:
        client_id = client_of(context)
        parameters = _own_or_completed(clients, context, shared, device)
        if isinstance(parameters, Exception):
            raise parameters
        networks = clients.place(device).networks
        network = networks.loaded(clients.network_of(client_id), parameters)
        probe = known[cast(str, request.content.config_records[CONFIG][PROBE])]
        found = numbers_of(probe, network, clients, round_of(request), client_id)
    return RecordDict({METRICS: MetricRecord({**found})})


def _own_or_completed(
    clients: SimulatedClients, context: Context, shared: Any, device: str
) -> Tensors | Exception:
    if shared is None:
        return own_network(clients, context, device)
    return personal_network(clients, context, as_tensors(read_arrays(shared), device), device)


def _number(what: str, name: Any, value: Any, finite: bool) -> float:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{what}: expected a name of letters, digits, '_', '-' and '.'")
    plain = np.asarray(value.detach().double().cpu() if isinstance(value, Tensor) else value)
    if plain.ndim or plain.dtype.kind not in "fiub":
        raise ValueError(
            f"{what}: {type(value).__name__} of shape {plain.shape}, expected a number"
        )
    if finite and not np.isfinite(plain):
        raise ValueError(f"{what} is {plain}, expected a finite number")
    return float(plain)
