"""Distillation into one global student: DLAD and everything that differs from it in one axis."""

from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import Tensor, nn

from clients.data import Dataset
from clients.execution.isolation import same_modules
from clients.handlers.features import EVALUATE_FEATURES
from clients.handlers.predictions import EVALUATE_PREDICTIONS, TRAIN_PREDICTIONS
from clients.messages.accumulator import Reducer
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import PredictionRequest, node_id_of
from clients.models.factory import load_parameters, parameters_of
from clients.seeding import Purpose, generator
from clients.training.evaluation import measures
from clients.training.loop import Trainer
from strategies import rule_state
from strategies.aggregation.ensemble import Ensemble, EnsembleRule
from strategies.aggregation.streaming import gather
from strategies.base import BaseStrategy
from strategies.cohorts import draw
from strategies.teaching.answer_chunks import ahead, answers_to, to_each
from strategies.teaching.proxy_split import Ids, ProxySplit
from strategies.teaching.rehearsal import is_reducible, rehearse, rehearse_student
from strategies.teaching.student import epochs_of, teach
from strategies.teaching.views import Report, answers_of, show, unwatched

DistillationLoss = Callable[..., Tensor]
NO_PROBE = np.arange(0)


class DistillationStrategy(BaseStrategy):
    """Clients of any architecture teach one student through what they answer on the proxy set.

    A round: the cohort trains privately and answers the proxy examples; answers are scored, weighed
    and combined into soft labels; the student imitates them. One round is the one-shot setting of
    DLAD; over several the clients train on and the student keeps learning.
    """

    handlers = (TRAIN_PREDICTIONS, EVALUATE_PREDICTIONS, EVALUATE_FEATURES)

    def __init__(
        self,
        *,
        student: nn.Module,
        test: Dataset,
        distil: Trainer,
        seed: int,
        ensemble: EnsembleRule,
        proxy_split: ProxySplit,
        loss: DistillationLoss,
        fraction: float = 1.0,
        local_training: bool = True,
        feed_back: bool = False,
        digest_epochs: int = 1,
        overlap: bool = False,
        report: Report = unwatched,
    ) -> None:
        """Compose a method.

        Args:
            student: The model being taught; trained in place.
            test: Held-out set on which the ensemble is measured.
            distil: Trains the student: `clients.training.loop.train` with its numbers bound.
            seed: The run's seed.
            ensemble: How the cohort answers, and what comes of it.
            proxy_split: What they answer. With several chunks, in so many messages, and the
                student's first epoch goes chunk by chunk as answers come.
            loss: (student logits, targets, temperature) -> [B].
            fraction: Share of the clients in (0, 1] that a round's cohort has, at least one.
            local_training: Whether the cohort trains before it answers; without, nobody fits a
                discriminator either.
            feed_back: Send the student's parameters along, from round 2 on: a client of the
                student's architecture goes on from them, any other imitates the student first.
            digest_epochs: Epochs of that imitation, of all distilled examples, by KL with T**2,
                >= 0.
            overlap: Clients answer a chunk while the student learns from the one before. Only where
                they run in other processes: here both would draw from one global generator.
            report: Receives a view of each round, over the probe examples.

        Raises:
            ValueError: A number is out of range.
        """
        if not 0 < fraction <= 1:
            raise ValueError(f"strategy.fraction={fraction}: expected in (0, 1]")
        if digest_epochs < 0:
            raise ValueError(f"strategy.digest_epochs={digest_epochs}: expected >= 0")
        self.student, self.split, self.test = student, proxy_split, test
        self.distil = distil
        self.seed = seed
        self.loss = loss
        self.fraction = fraction
        self.feed_back = feed_back
        self._asks = TRAIN_PREDICTIONS if local_training else EVALUATE_PREDICTIONS
        self.digest_epochs = digest_epochs
        self.overlap = overlap
        self.report = report
        told = ensemble.discriminator is not None
        if not local_training and (told or feed_back):
            raise ValueError(
                "strategy.local_training=false: expected strategy/discriminator=none and "
                "strategy.feed_back=false, for which clients train"
            )
        if told:
            proxy_split.require_negatives()
        self.rule = ensemble
        rehearse(ensemble, loss, test.num_classes)
        of = test.num_classes, ensemble.temperature
        rehearse_student(distil, student, proxy_split.proxy, loss, *of)
        self._reducible = is_reducible(ensemble, test.num_classes)
        self._epochs = None if len(proxy_split.chunks) == 1 else epochs_of(distil)
        self.teachers: list[int] = []  # of a round, like the grid
        self._grid: Grid | None = None
        self._rules = {**ensemble.stateful, "loss": loss, "distil": distil}

    # --- Flower's five methods, and what our engine asks beside them ---

    def intake(self, server_round: int, phase: str) -> Reducer | None:
        """Say how replies may become one before they come here.

        Args:
            server_round: 1..R.
            phase: "train" or "evaluate".

        Returns:
            The reducer, or None: every message is wanted.
        """
        if not self._reducible:
            return None
        return self.rule.reducer(self.split.probes[0] if phase == "train" else NO_PROBE)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Draw the cohort; ask it to train and to answer the first chunk of distilled examples."""
        load_parameters(self.student, read_arrays(arrays))
        self._grid = grid  # for the other chunks
        feed_back = self.feed_back and server_round > 1
        request = PredictionRequest(
            server_round=server_round,
            num_inputs=len(self.split.chunks[0]),
            num_classes=self.test.num_classes,
            proxy_ids=self.split.chunks[0],
            negative_ids=None if self.rule.discriminator is None else self.split.negative_ids,
            recipe=self.rule.discriminator,
            student=read_arrays(arrays) if feed_back else None,
            digest_epochs=self.digest_epochs,
            digest_ids=self.split.distilled_ids
            if feed_back and len(self.split.chunks) > 1
            else None,
            temperature=self.rule.temperature,
            answers=self.rule.answers,
        )
        rng = generator(self.seed, Purpose.COHORT, server_round)
        cohort = draw(grid.get_node_ids(), self.fraction, rng)
        return to_each(cohort, request, self._asks)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Weigh and combine the answers; teach the student with them."""
        answers = gather(replies)
        self.teachers = []
        if answers is None:
            return None, None
        first = self.rule(answers, self.split.probes[0])
        self.teachers = [node_id_of(client_id) for client_id in first.teachers.client_ids]
        before = answers_of(self.student, self.split, self.report)
        losses, ensembles = self._teach(server_round, first)
        taught = losses, before, self.student
        show(self.report, server_round, self.split, ensembles, *taught, self._grid)
        covered = sum(int(one.covered.sum()) for one in ensembles if one is not None)
        dropped = len(self.split.distilled_ids) - covered
        metrics = MetricRecord({"num-teachers": len(self.teachers), "dropped-examples": dropped})
        if losses:
            metrics["distillation-loss"] = losses[-1]
        return write_arrays(parameters_of(self.student)), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the clients whose answers were used to answer the test set too."""
        return to_each(self.teachers, self._question(server_round, None), EVALUATE_PREDICTIONS)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Measure the ensemble on the test set, weighed by the same rule.

        An example that nobody covers counts as answered wrong, and not in the loss.
        """
        answers = gather(replies)
        if answers is None:
            return None
        ensemble = self.rule(answers, NO_PROBE)
        covered = ensemble.covered
        if not covered.any():
            return None
        values = measures(
            ensemble.targets[covered].clamp_min(1e-12).log(), self.test.labels[covered.numpy()]
        )
        return MetricRecord(
            {
                "ensemble-accuracy": values["accuracy"] * float(covered.double().mean()),
                "ensemble-loss": values["loss"],
            }
        )

    def state(self) -> RecordDict:
        """Return what its rules keep between rounds."""
        return rule_state.state_of(self._rules)

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        rule_state.restore(self._rules, state)

    # --- steps ---

    def _teach(
        self, server_round: int, first: Ensemble
    ) -> tuple[list[float], list[Ensemble | None]]:
        """Distil chunk by chunk; the answers to the first one have come already."""
        rng = generator(self.seed, Purpose.DISTILLATION, server_round)
        loss = partial(self.loss, temperature=self.rule.temperature)

        def imitate(ids: Ids, targets: Tensor, **changes: int) -> list[float]:
            with same_modules("strategy.distil: the student's", self.student):
                return self.distil(
                    self.student, self.split.proxy, ids, targets, loss, rng, **changes
                )

        def ask(number: int) -> Ensemble | None:
            return self._ask(server_round, number) if number else first

        try:
            with closing(ahead(ask, len(self.split.chunks), self.overlap)) as ensembles:
                return teach(imitate, self.split.chunks, ensembles, self._epochs)
        except FloatingPointError as error:
            raise FloatingPointError(f"student, round {server_round}: {error}") from error

    def _ask(self, server_round: int, number: int) -> Ensemble | None:
        """Ask the teachers of the first chunk for another one."""
        assert self._grid is not None, "configure_train comes first"
        probe = self.split.probes[number]
        request = self._question(server_round, self.split.chunks[number])
        messages = to_each(self.teachers, request, EVALUATE_PREDICTIONS)
        reducer = self.rule.reducer(probe) if self._reducible else None
        answers = answers_to(messages, self._grid, reducer)
        return None if answers is None else self.rule(answers, probe)

    def _question(self, server_round: int, proxy_ids: Ids | None) -> PredictionRequest:
        """Ask for answers without training: to proxy examples, or to the test set."""
        return PredictionRequest(
            server_round=server_round,
            num_inputs=len(self.test) if proxy_ids is None else len(proxy_ids),
            num_classes=self.test.num_classes,
            proxy_ids=proxy_ids,
            recipe=self.rule.discriminator,
            answers=self.rule.answers,
        )
