"""Online mutual learning in a federation: models of all architectures teach each other.

A round: the cohort trains privately and answers the proxy examples, as in ensemble distillation;
one model per architecture, averaged over the cohort's clients of it, or the models of a few
clients, learn on the proxy set together with the student, with the ensemble's soft labels in the
place of labels. What an architecture's peer learned goes back to the clients of that architecture.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import nn

from clients.data import Dataset
from clients.messages.accumulator import Intake
from clients.messages.requests import client_id_of, read_request, write_request
from clients.models.factory import ModelFunction, Parameters
from clients.mutual.ensemble_classifier import measures_of
from clients.mutual.group import Head, Update
from clients.mutual.lockstep import TrainPeers
from clients.mutual.terms import Rule
from clients.seeding import Purpose, generator
from clients.training.losses import kl
from clients.training.optimizers import Optimizer
from strategies.aggregation.ensemble import EnsembleRule
from strategies.aggregation.parameters import (
    averaging_too,
    fault_in_parameters,
    forms_of,
    means_of,
    starts_of,
)
from strategies.base import BaseStrategy
from strategies.server.distillation import DistillationStrategy
from strategies.teaching.group import GroupTeaching
from strategies.teaching.proxy_split import ProxySplit
from strategies.teaching.views import Report, unwatched


class MutualStrategy(BaseStrategy):
    """Peers and a student learn in lock-step from each other and from the cohort's ensemble."""

    handlers = DistillationStrategy.handlers

    def __init__(
        self,
        *,
        student: nn.Module,
        student_model: ModelFunction,
        models: dict[str, ModelFunction],
        architectures: Sequence[str],
        test: Dataset,
        seed: int,
        train_peers: TrainPeers,
        rule: Rule,
        optimizer: Optimizer,
        epochs: int,
        batch_size: int,
        head: Callable[..., nn.Module] | None = None,
        head_optimizer: Optimizer | None = None,
        taps: dict[str, str] | None = None,
        update: Update = "simultaneous",
        refresh_epochs: int | None = None,
        peers: Literal["architectures", "clients"] = "architectures",
        most_peers: int = 4,
        report: Report = unwatched,
        ensemble: EnsembleRule,
        proxy_split: ProxySplit,
        fraction: float = 1.0,
    ) -> None:
        """Compose a method.

        Args:
            student: The global student.
            student_model: Its model function.
            models: Model functions of the clients' architectures by name.
            architectures: Name of each client's architecture.
            test: Held-out set on which peers, student and ensemble are measured.
            seed: The run's seed.
            train_peers: Trains a group, here or over workers: `mutual.lockstep.train_peers`.
            rule: One of `clients.mutual.rules`, its numbers bound.
            optimizer: Makes each peer's optimiser.
            epochs: Passes of the group over the distilled examples in each round, >= 0.
            batch_size: Examples per step, >= 1.
            head: One of `clients.mutual.heads`, or None.
            head_optimizer: Makes the head's optimiser; None = `optimizer`.
            taps: Where features are taken, by architecture, "global_student" for the student;
                elsewhere from the last feature map.
            update: Whether peers step at once or in turn.
            refresh_epochs: Every so many epochs stale answers are refreshed; None = never.
            peers: One per architecture of the cohort, or some clients of it.
            most_peers: How many clients, >= 1.
            report: Receives a view of each round, over the probe examples.
            ensemble: How soft labels are made.
            proxy_split: What clients answer and the group learns with, in one chunk.
            fraction: Share of the clients in (0, 1] that a round's cohort has, at least one.

        Raises:
            ValueError: A number is out of range, or a tap's architecture is not there.
        """
        _check(peers, most_peers)
        proxy_split.require_whole()
        self.student, self.test, self.seed = student, test, seed
        both = None if head is None else Head(head, head_optimizer or optimizer)
        lesson: dict[str, Any] = {
            **{"models": models, "student_model": student_model, "train_peers": train_peers},
            **{"rule": rule, "optimizer": optimizer, "epochs": epochs, "batch_size": batch_size},
            **{"head": both, "taps": dict(taps or {}), "update": update, "seed": seed},
        }
        self.teaching = GroupTeaching(**lesson, refresh_epochs=refresh_epochs)
        labels: dict[str, Any] = {
            **{"ensemble": ensemble, "proxy_split": proxy_split, "fraction": fraction},
            **{"student": student, "test": test, "distil": self.teaching},
            **{"report": report, "seed": seed},
        }
        self._labels = DistillationStrategy(**labels, loss=kl)  # the loss is not looked at
        self._architectures = architectures
        self._by_client, self._most_peers = peers == "clients", most_peers
        self._starts = {} if self._by_client else starts_of(models, test, seed)
        self._rehearse([*models])
        self._fault = partial(
            fault_in_parameters, architectures=architectures, forms=forms_of(models, test)
        )

    # --- Flower's five methods, and what our engine asks beside them ---

    def intake(self, server_round: int, phase: str) -> Intake:
        """Say what becomes of replies; see `DistillationStrategy.intake`."""
        inner = self._labels.intake(server_round, phase)
        return inner if phase != "train" else averaging_too(inner, self._by_client, self._fault)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as the labels need it; give each client its peer back, and ask for parameters.

        What is to be averaged begins alike: until an architecture's peer has learned, its clients
        get the network that all of them begin with.
        """
        messages = list(self._labels.configure_train(server_round, arrays, config, grid))
        cohort = [client_id_of(message.metadata.dst_node_id) for message in messages]
        senders = self._senders(server_round, cohort)
        known = self._starts | self.teaching.learned
        contents: dict[tuple[str, bool], RecordDict] = {}
        for client_id, message in zip(cohort, messages, strict=True):
            key = self._key(client_id)
            kind = (key if key in known else "", client_id in senders)
            if kind not in contents:  # one object for all alike: it is sent and counted once
                asked = read_request(message.content)
                asked = replace(asked, student=known.get(key), send_parameters=kind[1])
                contents[kind] = write_request(asked)
            message.content = contents[kind]
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Make soft labels of the answers; let the peers learn with them."""
        replies = list(replies)
        starts = means_of(replies, self._by_client, self._fault)
        of = {key: key.rsplit("-", 1)[0] if self._by_client else key for key in starts}
        before = dict(self.teaching.learned)
        self.teaching.invite(server_round, starts, of)
        arrays, metrics = self._labels.aggregate_train(server_round, replies)
        if self._by_client:  # it has gone back, and its client goes on from it by itself
            for key in map(self._key, map(client_id_of, self._labels.teachers)):
                if key in before and self.teaching.learned[key] is before[key]:
                    del self.teaching.learned[key]
        if metrics is not None:
            metrics.update(self.teaching.metrics())
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the teachers to answer the test set too."""
        return self._labels.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Measure the ensemble of the cohort, every peer, their mean and the fused classifier."""
        metrics = self._labels.aggregate_evaluate(server_round, replies) or MetricRecord()
        if self.teaching.group is not None:
            metrics.update(measures_of(*self.teaching.group, self.test))
        return metrics or None

    def state(self) -> RecordDict:
        """Return what its rules, and the group, keep between rounds."""
        return self._labels.state()

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        self._labels.restore(state)

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
        self.teaching.rehearse(group, self.test, len(self._labels.split.distilled_ids))

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
