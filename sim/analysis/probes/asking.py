"""Asking probes: what a function finds in each client's network, and in the student."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from torch import nn

from clients.data import Dataset, subset
from clients.handlers.base import Handler
from clients.handlers.function_probes import (
    OFFERED,
    PLACES,
    NetworkProbe,
    numbers_of,
    probing,
    read_numbers,
    requests,
    stream_of,
)
from clients.models.factory import Parameters, build
from clients.population.clients import STUDENT, SimulatedClients
from clients.signatures import unoffered
from sim.analysis.probes.findings import Findings
from sim.analysis.probes.schedule import is_due
from sim.analysis.probes.values import ByClient, require_probe, some_of
from sim.engine.grid import PoolGrid
from sim.errors import ProbeError
from sim.workers.process_setup import seeded_globals


@dataclass(frozen=True, eq=False)
class Ask:
    """An asking probe: `of(network, inputs, labels) -> {name: number}` goes to where networks are.

    Each number becomes a column of clients' values, and `student_<name>`. It is asked of those who
    took part in the round and keep a network of their own, and of the student.

    Attributes:
        of: The function. The network is in eval mode, inputs [N, ...] are as networks see them
            (`clients.data.normalised`), labels are the task's [N, ...], or None where those of the
            proxy set mean nothing. If it names them it gets `rng`, a numpy generator of this round
            and network, `client_id`, None for the student, `server_round`, the `task`,
            `class_shares` of the client [C], for the student of each client [K, C], and
            `own_examples`, which of the inputs are of its owners [N], for the student [K, N].
        inputs: "test", "proxy", or train and test set of a reader, of which the latter is used.
        examples: How many of them are drawn, once for the whole run, >= 1; None = all.
        every: Ask in round 1 and every so many rounds after it; 0 = never.
        share: Of the clients, spread evenly over those of the round, in (0, 1]; at least one.
    """

    of: Callable[..., Mapping[str, Any]]
    inputs: str | tuple[Dataset, Dataset] = "test"
    examples: Annotated[int, ">= 1"] | None = 256
    every: Annotated[int, ">= 0"] = 1
    share: Annotated[float, "in (0, 1]"] = 1.0

    def __post_init__(self) -> None:
        """Refuse what is out of range, and a function that wants what nobody has.

        Raises:
            ProbeError: Names the argument.
        """
        if isinstance(self.inputs, str) and self.inputs not in ("test", "proxy"):
            raise ProbeError(f"Ask: inputs={self.inputs}: expected test, proxy or a reader of data")
        if self.examples is not None and self.examples < 1:
            raise ProbeError(f"Ask: examples={self.examples}: expected an integer >= 1, or null")
        if self.every < 0:
            raise ProbeError(f"Ask: every={self.every}: expected an integer >= 0, 0 for never")
        if not 0 < self.share <= 1:
            raise ProbeError(f"Ask: share={self.share}: expected in (0, 1]")
        if (name := unoffered(self.of, PLACES, OFFERED)) is not None:
            raise ProbeError(
                f"Ask: of wants '{name}', which nobody offers: expected network, inputs, labels, "
                f"some of {', '.join(OFFERED)}, or a default"
            )


class Asking:
    """The asking probes of a run."""

    def __init__(
        self,
        probes: Mapping[str, Any],
        clients: SimulatedClients,
        proxy_labelled: bool,
        reserved: Collection[str],
    ) -> None:
        """Draw the examples, and let each function try two of them on each architecture.

        Args:
            probes: By name; those that are no `Ask` are to take a round's view, and left alone.
            clients: All of the federation's.
            proxy_labelled: Whether the proxy set's labels are the clients'.
            reserved: Names that values of clients must not have.

        Raises:
            ProbeError: A function fails or takes something else, or a name is taken; names the
                probe.
        """
        for name, probe in probes.items():
            if not isinstance(probe, Ask):
                require_probe(probe, f"probes.{name}")
        self._asks = {name: ask for name, ask in probes.items() if isinstance(ask, Ask)}
        self._clients, self._reserved = clients, reserved
        self._probes = {
            name: _network_probe(name, ask, clients, proxy_labelled)
            for name, ask in self._asks.items()
        }
        self._handler = probing(self._probes.values())
        self._said: set[str] = set()
        self._rehearse()

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """What clients need to know to be asked; empty where nobody asks."""
        return (self._handler,) if self._asks else ()

    def due(self, server_round: int) -> list[str]:
        """Name the probes of a round."""
        return [name for name, ask in self._asks.items() if is_due(server_round, ask.every)]

    def __call__(
        self,
        server_round: int,
        student: nn.Module | None,
        grid: PoolGrid,
        found: Findings,
        warn: Callable[[str], None],
        shared: Parameters | None = None,
    ) -> None:
        """Ask the networks of a round.

        Args:
            server_round: 1..R.
            student: As it is after its lesson; None = there is none.
            grid: Where clients are; those of the exchanges so far took part.
            found: Takes in what is found.
            warn: Told once of each probe that fails at the student; of clients the grid notes it.
            shared: Parameters with which what clients keep are networks; None = they keep whole
                ones.

        Raises:
            ProbeError: A name is taken; names the probe.
        """
        took_part = {e.client_id for e in grid.exchanges if not e.failure}
        cohort = [k for k in sorted(took_part) if k in grid.states]
        for name in self.due(server_round):
            most = max(1, round(self._asks[name].share * len(cohort)))
            chosen = [cohort[place] for place in some_of(len(cohort), most)]
            asked = requests(self._handler, name, server_round, chosen, shared)
            said = read_numbers(grid.measure(asked))
            found.take(name, _columns(said), tuple(said), self._reserved)
            if student is not None:
                found.take(name, self._of_student(name, student, server_round, warn))

    # --- steps ---

    def _of_student(
        self, name: str, student: nn.Module, server_round: int, warn: Callable[[str], None]
    ) -> dict[str, float]:
        probe, clients = self._probes[name], self._clients
        whose = len(clients.architectures)
        try:
            with seeded_globals(stream_of(name, clients.seed, server_round, whose)):
                numbers = numbers_of(probe, student, clients, server_round, None)
        except (RuntimeError, ValueError) as error:
            if name not in self._said:
                warn(f"the student, round {server_round}: {error}; later failures are not told")
            self._said.add(name)
            return {}
        return {f"student_{key}": number for key, number in numbers.items()}

    def _rehearse(self) -> None:
        owners: dict[str, str] = {}
        models = {**self._clients.models, STUDENT: self._clients.student}
        for name, probe in self._probes.items():
            examples = subset(probe.examples, np.arange(min(2, len(probe.examples))))
            for architecture, model in models.items():
                network = build(model, self._clients.splits.private.task, np.random.default_rng(0))
                try:
                    with seeded_globals(np.random.SeedSequence(0)):
                        tried = replace(probe, examples=examples), network, self._clients, 0, None
                        values = numbers_of(*tried)
                except (RuntimeError, ValueError) as error:
                    unlabelled = "" if probe.labelled else ", whose labels are None"
                    raise ProbeError(
                        f"{error} (tried on two examples{unlabelled}, by architecture "
                        f"'{architecture}')"
                    ) from error
                for value in values:
                    self._require_free(name, value, owners.setdefault(value, name))

    def _require_free(self, name: str, value: str, owner: str) -> None:
        if value in self._reserved:
            raise ProbeError(f"probes.{name}: value {value!r}: is a column of clients.parquet")
        if owner != name:
            raise ProbeError(f"probes.{name}: value {value!r}: is that of probes.{owner} too")


def _network_probe(
    name: str, ask: Ask, clients: SimulatedClients, proxy_labelled: bool
) -> NetworkProbe:
    """Draw what is shown to every network."""
    splits, private = clients.splits, clients.splits.private
    if isinstance(ask.inputs, str):
        source = splits.proxy if ask.inputs == "proxy" else splits.test
    else:
        source = ask.inputs[1]
    own, theirs = private.task, source.task
    if (own.input_shape, own.num_tokens) != (theirs.input_shape, theirs.num_tokens):
        raise ProbeError(
            f"probes.{name}: {source.name} has inputs of shape {theirs.input_shape}, tokens below "
            f"{theirs.num_tokens}, expected {own.input_shape} and {own.num_tokens}, as clients have"
        )
    if not len(source):
        raise ProbeError(f"probes.{name}: inputs: there are no {ask.inputs} examples")
    rng = np.random.default_rng(stream_of(name, clients.seed))
    ids = np.sort(rng.permutation(len(source))[: ask.examples])
    seen = replace(subset(source, ids), mean=private.mean, std=private.std)
    return NetworkProbe(name, ask.of, seen, proxy_labelled or ask.inputs != "proxy")


def _columns(said: Mapping[int, Mapping[str, float]]) -> dict[str, ByClient]:
    """Turn numbers by client and name into columns; NaN where a client has none."""
    names = dict.fromkeys(name for numbers in said.values() for name in numbers)
    return {
        name: ByClient([numbers.get(name, math.nan) for numbers in said.values()]) for name in names
    }
