"""Online mutual learning in a federation: models of all architectures teach each other.

A round: the cohort trains privately and answers the proxy examples, as in ensemble distillation;
one model per architecture, averaged over the cohort's clients of it, or the models of a few
clients, learn on the proxy set together with the student, with the ensemble's soft labels in the
place of labels. What an architecture's peer learned goes back to the clients of that architecture.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated, Literal

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import nn

from clients.handlers.feature_probes import EVALUATE_FEATURES
from clients.handlers.predictions import TRAIN_PREDICTIONS, predictions
from clients.messages.accumulator import Intake
from clients.messages.arrays import read_arrays
from clients.messages.requests import client_id_of, write_request
from clients.models.factory import ModelFunction, Parameters, load_parameters
from clients.mutual.ensemble_classifier import measures_of
from clients.mutual.lockstep import TrainPeers
from clients.seeding import Purpose, generator
from strategies import rule_state
from strategies.aggregation.ensemble import Ensemble
from strategies.aggregation.parameters import (
    averaging_too,
    fault_in_parameters,
    forms_of,
    means_of,
    starts_of,
)
from strategies.base import BaseStrategy
from strategies.teaching.round_view import Report, unwatched
from strategies.teaching.student import teach
from strategies.teaching.student_among_peers import GroupRecipe, GroupTeaching
from strategies.teaching.teachers import Teachers


class MutualStrategy(BaseStrategy):
    """Peers and a student learn in lock-step from each other and from the cohort's ensemble."""

    of_classes = True

    def __init__(
        self,
        *,
        teachers: Teachers,
        teaching: GroupRecipe,
        student: nn.Module,
        student_model: ModelFunction,
        models: dict[str, ModelFunction],
        architectures: Sequence[str],
        seed: int,
        train_peers: TrainPeers,
        peers: Literal["architectures", "clients"] = "architectures",
        most_peers: Annotated[int, ">= 1"] = 4,
        report: Report = unwatched,
    ) -> None:
        """Compose a method.

        Args:
            teachers: The cohort, whose answers make the soft labels, in one chunk.
            teaching: How the group learns with them.
            student: The global student.
            student_model: Its model function.
            models: Model functions of the clients' architectures by name.
            architectures: Name of each client's architecture.
            seed: The run's seed.
            train_peers: Trains a group, here or over workers: `mutual.lockstep.train_peers`.
            peers: One per architecture of the cohort, or some clients of it.
            most_peers: How many clients, >= 1.
            report: Receives a view of each round, over the probe examples.

        Raises:
            ValueError: A number is out of range, or a tap's architecture is not there.
        """
        _check(peers, most_peers)
        teachers.split.require_whole()
        if teachers.selection is not None:
            raise ValueError(
                "strategy.selection: not for groups, which learn all examples each round"
            )
        self.handlers = (*predictions(teachers.rule.fields), EVALUATE_FEATURES)
        self.teachers, self.student, self.seed, self.report = teachers, student, seed, report
        self.teaching = GroupTeaching(teaching, models, student_model, train_peers, seed)
        # By the name that checkpoints know it by.
        self._rules = {**teachers.rule.stateful, "distil": self.teaching}
        self._architectures = architectures
        self._by_client, self._most_peers = peers == "clients", most_peers
        test = teachers.test
        self._starts = {} if self._by_client else starts_of(models, test, seed)
        self._rehearse([*models])
        self._fault = partial(
            fault_in_parameters, architectures=architectures, forms=forms_of(models, test)
        )

    # --- Flower's five methods, and what our engine asks beside them ---

    def intake(self, server_round: int, phase: str) -> Intake:
        """Say what becomes of replies; see `Teachers.intake`."""
        inner = self.teachers.intake(phase)
        return inner if phase != "train" else averaging_too(inner, self._by_client, self._fault)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for answers; give each client its peer back, and ask for parameters.

        What is to be averaged begins alike: until an architecture's peer has learned, its clients
        get the network that all of them begin with.
        """
        load_parameters(self.student, read_arrays(arrays))
        nodes = self.teachers.cohort(server_round, grid)
        senders = self._senders(server_round, [*map(client_id_of, nodes)])
        known = self._starts | self.teaching.learned
        contents: dict[tuple[str, bool], RecordDict] = {}
        messages = []
        for node in nodes:
            key = self._key(client_id := client_id_of(node))
            kind = (key if key in known else "", client_id in senders)
            if kind not in contents:  # one object for all alike: it is sent and counted once
                more = {"student": known.get(key), "send_parameters": kind[1], "digest_epochs": 1}
                contents[kind] = write_request(self.teachers.request(server_round, **more))
            messages.append(Message(contents[kind], node, TRAIN_PREDICTIONS.kind))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Make soft labels of the answers; let the peers and the student learn with them."""
        replies = list(replies)
        starts = means_of(replies, self._by_client, self._fault)
        of = {key: key.rsplit("-", 1)[0] if self._by_client else key for key in starts}
        before = dict(self.teaching.learned)
        self.teaching.invite(server_round, starts, of)
        arrays, metrics = self.teachers.aggregate(
            server_round, replies, self.student, self._teach, self.report
        )
        if self._by_client:  # it has gone back, and its client goes on from it by itself
            for key in map(self._key, map(client_id_of, self.teachers.node_ids)):
                if key in before and self.teaching.learned[key] is before[key]:
                    del self.teaching.learned[key]
        if metrics is not None:
            metrics.update(self.teaching.metrics())
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the teachers to answer the test set too."""
        return self.teachers.test_messages(server_round)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Measure the ensemble of the cohort, every peer, their mean and the fused classifier."""
        metrics = self.teachers.measured(server_round, replies) or MetricRecord()
        if self.teaching.group is not None:
            metrics.update(measures_of(*self.teaching.group, self.teachers.tested(server_round)))
        return metrics or None

    def state(self) -> RecordDict:
        """Return what its rules, and the group, keep between rounds."""
        return rule_state.state_of(self._rules)

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        rule_state.restore(self._rules, state)

    def models(self) -> dict[str, Parameters]:
        """Return what it leaves beside the student: each peer by its key, "head" if there is one.

        With clients as peers: of those who have not been asked since they learned.
        """
        return self.teaching.models()

    # --- steps ---

    def _rehearse(self, names: list[str]) -> None:
        """Try a group of all architectures, or of as many clients as there may be."""
        if self._by_client:
            few = self._architectures[: self._most_peers]
            group = {self._key(client_id): name for client_id, name in enumerate(few)}
        else:
            group = {name: name for name in names}
        num_examples = len(self.teachers.split.distilled_ids)
        self.teaching.rehearse(group, self.teachers.test, num_examples)

    def _teach(self, first: Ensemble) -> tuple[list[float], list[Ensemble | None]]:
        """Teach the group of the round what somebody covers."""
        split = self.teachers.split
        return teach(
            partial(self.teaching.teach, self.student, split.proxy), split.chunks, [first], None
        )

    def _key(self, client_id: int) -> str:
        """Name the peer that a client's model goes into, and comes back from."""
        name = self._architectures[client_id]
        return f"{name}-{client_id}" if self._by_client else name

    def _senders(self, server_round: int, cohort: Sequence[int]) -> set[int]:
        """Choose whose parameters are wanted."""
        if not self._by_client:
            return set(cohort)
        rng = generator(self.seed, Purpose.PEERS, server_round)
        return set(rng.permutation(cohort)[: self._most_peers].tolist())


def _check(peers: str, most_peers: int) -> None:
    if peers not in ("architectures", "clients"):
        raise ValueError(f"strategy.peers={peers}: expected architectures or clients")
    if most_peers < 1:
        raise ValueError(f"strategy.most_peers={most_peers}: expected >= 1")
