"""The cohort of a round as teachers: who is asked, what its answers come to, how good that is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import Grid
from torch import nn

from clients.data import Dataset
from clients.data.label_checks import UNLABELLED
from clients.handlers.predictions import EVALUATE_PREDICTIONS
from clients.messages.accumulator import Reducer
from clients.messages.answers import Answers
from clients.messages.arrays import write_arrays
from clients.messages.requests import PredictionRequest, node_id_of
from clients.models.factory import parameters_of
from strategies.aggregation.ensemble import Ensemble, EnsembleRule
from strategies.aggregation.rule_arguments import Calibration, calibrated, parted
from strategies.aggregation.streaming import Part, gather
from strategies.aggregation.task_compatibility import of_task
from strategies.cohorts import cohort_of
from strategies.teaching.answer_chunks import answers_to, to_each
from strategies.teaching.proxy_split import Ids, ProxySplit
from strategies.teaching.rehearsal import is_reducible, rehearse
from strategies.teaching.round_view import Report, answers_of, show
from strategies.teaching.selection import Selection, require_selection, selected
from strategies.teaching.student import WEIGHTS

NO_PROBE = np.arange(0)

Teach = Callable[[Ensemble], tuple[list[float], list[Ensemble | None]]]
"""What the first chunk's answers came to -> the student's mean loss of each epoch, and the same of
all chunks."""


class Teachers:
    """Asks a cohort, weighs and combines its answers, measures them; teaching is another's.

    Attributes:
        rule: How answers become targets.
        split: What is answered in this round.
        test: Held-out set on which the ensemble is measured.
        tested: Those of its examples that are answered in a round.
        node_ids: Whose answers were used in this round.
    """

    def __init__(
        self,
        *,
        ensemble: EnsembleRule,
        proxy_split: ProxySplit,
        test: Dataset,
        seed: int,
        fraction: Annotated[float, "in (0, 1]"] = 1.0,
        selection: Selection | None = None,
        tested: Callable[[int], Dataset] | None = None,
    ) -> None:
        """Begin without any.

        Args:
            ensemble: How a cohort answers, and what comes of it.
            proxy_split: What it answers.
            test: Held-out set; gives the classes.
            seed: The run's.
            fraction: Share of the clients in (0, 1] that a round's cohort has, at least one.
            selection: Which of the distilled examples a round is about, in one chunk; None = all.
            tested: Round -> the examples of `test` that clients answer then, as
                `clients.data.Splits.tested`; None = all in each.

        Raises:
            ValueError: The share is out of range, or there is nothing to fit discriminators
                against, or the rule makes no soft labels of made-up answers.
        """
        if not 0 < fraction <= 1:
            raise ValueError(f"strategy.fraction={fraction}: expected in (0, 1]")
        if ensemble.wants_negatives:
            proxy_split.require_negatives()
        ensemble = of_task(ensemble, test.task)
        fields = ensemble.fields.items()
        own = {name: each for name, each in fields if not each.per_input}
        self._later = {name: each for name, each in fields if each.per_input}
        self._tested = {name: each for name, each in self._later.items() if each.tested}
        asked = {n: each for n, each in ensemble.ask.items() if n in {*own, *self._tested}}
        self._testing = replace(ensemble, ask=asked)
        rehearse(self._testing, test.task.num_classes, test.task.sites)
        self.rule, self.split, self._all, self.test = ensemble, proxy_split, proxy_split, test
        self.tested = tested or (lambda server_round: test)
        self.node_ids: list[int] = []
        self._seed, self._fraction, self.selection = seed, fraction, selection
        if selection is not None:
            require_selection(selection, proxy_split)
        known = proxy_split.calibration_ids, proxy_split.labelled
        self._calibrated = calibrated(ensemble.stateful, *known)
        self._calibration: Calibration | None = None
        self._reducible = is_reducible(ensemble, test.task.num_classes, test.task.sites)
        self._whole = False
        self._first: Answers | None = None
        self._grid: Grid | None = None

    def want_all(self, anchors: Sequence[str]) -> None:
        """Have all answers come here, for a student's objective to compare with.

        Args:
            anchors: Names of the objective's, as `strategies.teaching.student.anchors_of` has them.

        Raises:
            ValueError: One is nothing that is asked for; names it.
        """
        own = () if self.rule.discriminator is None else ("own_probs",)
        known = (WEIGHTS, "logits", *own, *self.rule.ask)
        for name in anchors:
            if name not in known:
                raise ValueError(
                    f"strategy.loss: anchor '{name}' is not among {', '.join(known)}: expected a "
                    f"field that is asked for, strategy/ask=[{name}]"
                )
        self._reducible, self._whole = False, True

    @property
    def asks_more(self) -> bool:
        """Whether the first question is about other examples than those that are distilled."""
        many = len(self.split.chunks) > 1 or self.split.learned is not None
        return many or len(self._calibrated) > 0

    def cohort(self, server_round: int, grid: Grid) -> list[int]:
        """Draw the nodes of a round's cohort, ascending."""
        self._grid = grid  # for the other chunks
        return cohort_of(grid, fraction=self._fraction, seed=self._seed, server_round=server_round)

    def select(self, server_round: int, student: nn.Module) -> None:
        """Say what a round is about, by the student as it is before its lesson."""
        if self.selection is not None:
            self.split = selected(self.selection, self._all, student, self._seed, server_round)

    def request(self, server_round: int, **more: Any) -> PredictionRequest:
        """Ask for the first chunk of answers, with discriminators if they are needed.

        Args:
            server_round: 1..R.
            **more: What else is to be asked; see `PredictionRequest`.

        Returns:
            The request.
        """
        ids = self.split.chunks[0]
        return PredictionRequest(
            server_round=server_round,
            num_inputs=len(ids) + len(self._calibrated),
            num_classes=self.test.task.num_classes,
            sites=self.test.task.sites,
            proxy_ids=np.concatenate([ids, self._calibrated]) if len(self._calibrated) else ids,
            negative_ids=self.split.negative_ids if self.rule.wants_negatives else None,
            recipe=self.rule.recipe,
            temperature=self.rule.temperature,
            answers=self.rule.sent_as,
            fields=tuple(self.rule.fields),
            **more,
        )

    def intake(self, phase: str) -> Reducer | None:
        """Say how replies of "train" or "evaluate" become one; None: every message is wanted."""
        if not self._reducible:
            return None
        if phase == "train":
            return self.rule.reducer(self.split.probes[0])
        return self._testing.reducer(NO_PROBE)

    def aggregate(
        self,
        server_round: int,
        replies: Iterable[Message],
        student: nn.Module | None,
        teach: Teach,
        report: Report,
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Weigh and combine the answers; have the student taught with them; show the round.

        Args:
            server_round: 1..R.
            replies: To the requests of the round, of which those with an error are skipped.
            student: What is taught; None = there is none.
            teach: Teaches it.
            report: Receives the view of the round.

        Returns:
            The student's parameters, and what there is to say; None where there is none.

        Raises:
            FloatingPointError: A loss is not finite; names the round.
        """
        answers, self.node_ids = gather(replies, self.rule.fields), []
        if answers is None:
            return None, None
        if isinstance(answers, Answers):
            answers, self._calibration = parted(
                self.rule.as_asked(answers), self.split.proxy, self._calibrated
            )
        self._first = answers if isinstance(answers, Answers) and answers.per_client else None
        first = self._combined(answers, "distil", self.split.chunks[0], self.split.probes[0])
        if self.split.learned is not None:
            learned = torch.from_numpy(self.split.learned).repeat_interleave(self.test.task.sites)
            first = replace(first, covered=first.covered & learned)
        self.node_ids = [node_id_of(client_id) for client_id in first.teachers.client_ids]
        before = answers_of(student, self.split, report)
        try:
            losses, ensembles = teach(first)
        except FloatingPointError as error:
            raise FloatingPointError(f"student, round {server_round}: {error}") from error
        show(report, server_round, self.split, ensembles, losses, before, student, self._grid)
        covered = sum(int(one.covered_inputs.sum()) for one in ensembles if one is not None)
        dropped = self.split.num_learned - covered
        metrics = MetricRecord({"num-teachers": len(self.node_ids), "dropped-examples": dropped})
        if losses:
            metrics["distillation-loss"] = losses[-1]
        return None if student is None else write_arrays(parameters_of(student)), metrics

    def answers_to_chunk(self, server_round: int, number: int) -> Ensemble | None:
        """Ask those who answered the first chunk for another one; None where nobody answers."""
        assert self._grid is not None, "there was a cohort"
        probe = self.split.probes[number]
        request = self.question(server_round, self.split.chunks[number])
        messages = to_each(self.node_ids, request, EVALUATE_PREDICTIONS)
        reducer = self.rule.reducer(probe) if self._reducible else None
        answers = answers_to(messages, self._grid, reducer, self._later)
        ids = self.split.chunks[number]
        return None if answers is None else self._combined(answers, "distil", ids, probe)

    def test_messages(self, server_round: int) -> list[Message]:
        """Ask those whose answers were used to answer the test set too."""
        return to_each(self.node_ids, self.question(server_round, None), EVALUATE_PREDICTIONS)

    def measured(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Measure the ensemble on the test set, weighed by the same rule.

        What nobody covers, an example or a site of one, counts as answered wrong, and in nothing
        but accuracies. None where nobody answered `test_messages`, or nothing is covered.
        """
        answers = gather(replies, self._tested)
        if answers is None:
            return None
        asked = np.arange(len(self.tested(server_round)))
        ensemble = self._combined(answers, "test", asked, NO_PROBE)
        covered, test = ensemble.covered_inputs, self.tested(server_round)
        task = test.task
        if not covered.any():
            return None
        targets, labels = ensemble.targets_by_input, test.labels[covered.numpy()]
        if task.sites > 1 and (unknown := targets.isnan().any(-1)).any():
            labels = labels.copy()
            if task.soft:
                labels.reshape(unknown.shape)[unknown.numpy()] = UNLABELLED
            else:  # numbers have no such label
                targets, labels = targets[~unknown.any(1)], labels[~unknown.any(1).numpy()]
            targets = targets.nan_to_num(0)
        rows = targets.flatten(0, -2)
        values = task.measures(rows.clamp_min(1e-12).log() if task.soft else rows, labels)
        share = float(ensemble.covered.double().mean())
        return MetricRecord(
            {
                f"ensemble-{name}": value * share if name.startswith("accuracy") else value
                for name, value in values.items()
            }
        )

    def question(self, server_round: int, proxy_ids: Ids | None) -> PredictionRequest:
        """Ask for answers without training: to proxy examples, or to the test set."""
        return PredictionRequest(
            server_round=server_round,
            num_inputs=len(self.tested(server_round) if proxy_ids is None else proxy_ids),
            num_classes=self.test.task.num_classes,
            sites=self.test.task.sites,
            proxy_ids=proxy_ids,
            negative_ids=self.split.negative_ids if self.rule.compares else None,
            recipe=self.rule.recipe,
            answers=self.rule.sent_as,
            fields=tuple(self._tested if proxy_ids is None else self._later),
        )

    def _combined(self, answers: Part | Answers, phase: str, ids: Ids, probe: Ids) -> Ensemble:
        """Weigh and combine answers to these examples, with what rules name."""
        rule = self._testing if phase == "test" else self.rule
        if isinstance(answers, Part):
            return rule(answers, probe)
        labels = self.split.labels_of(ids) if phase == "distil" else None
        known: dict[str, Any] = {"ids": ids, "phase": phase, "labels": labels}
        if (calibration := self._calibration) is not None:
            known["calibration"] = calibration.among(answers.client_ids)
        return rule(self._beside_first(answers), probe, self._whole and phase == "distil", known)

    def _beside_first(self, answers: Part | Answers) -> Part | Answers:
        """Put in what clients said of themselves as the round began: they say it once."""
        if isinstance(answers, Part) or self._first is None:
            return answers
        return answers.beside(self._first)
