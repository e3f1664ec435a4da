"""Distillation into one global student: DLAD and everything that differs from it in one axis."""

from collections.abc import Iterable
from contextlib import closing
from functools import partial
from typing import Annotated, Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import Tensor, nn

from clients.execution.isolation import same_modules
from clients.execution.trainer_calls import require_offered
from clients.handlers.feature_probes import EVALUATE_FEATURES
from clients.handlers.predictions import EVALUATE_PREDICTIONS, TRAIN_PREDICTIONS, predictions
from clients.messages.accumulator import Reducer
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import STUDENT, TARGETS
from clients.models.factory import Parameters, load_parameters
from clients.seeding import Purpose, generator
from clients.signatures import names
from clients.training.evaluation import predict
from clients.training.local_context import LocalContext
from clients.training.loop import Trainer, threads_of_torch
from clients.training.objective import DistillationLoss, Objective, with_temperature
from clients.training.schedules import of_round
from clients.training.task_objectives import of_examples
from strategies import rule_state
from strategies.aggregation.ensemble import Ensemble
from strategies.base import BaseStrategy
from strategies.teaching.answer_chunks import ahead, to_each
from strategies.teaching.proxy_split import Ids
from strategies.teaching.rehearsal import rehearse_loss, rehearse_student
from strategies.teaching.round_view import Report, unwatched
from strategies.teaching.student import (
    TAUGHT,
    VALIDATION,
    anchors_of,
    epochs_of,
    learned_of,
    taught,
    teach,
    validated,
)
from strategies.teaching.teachers import Teachers

LOCAL = "local"
"""Record of the strategy's state: what `distil` keeps in its `local.state`; targets that are to be
fed back are in TARGETS."""

ANSWERS = "answers"
FED_BACK: dict[bool | str, str] = {
    **{False: "", True: STUDENT, STUDENT: STUDENT, TARGETS: TARGETS, ANSWERS: ANSWERS}
}
"""What `feed_back` may be, and what is sent then."""

DIGESTED = (TARGETS, ANSWERS)
"""Of these what clients imitate by the strategy's loss."""


class DistillationStrategy(BaseStrategy):
    """Clients of any architecture teach one student through what they answer on the proxy set.

    A round: the cohort trains privately and answers the proxy examples; answers are scored, weighed
    and combined into soft labels; the student imitates them. One round is the one-shot setting of
    DLAD; over several the clients train on and the student keeps learning.
    """

    handlers = (TRAIN_PREDICTIONS, EVALUATE_PREDICTIONS, EVALUATE_FEATURES)
    any_shape = True

    def __init__(
        self,
        *,
        teachers: Teachers,
        student: nn.Module,
        distil: Trainer | None,
        loss: DistillationLoss,
        seed: int,
        local_training: bool = True,
        feed_back: bool | str = False,
        digest_epochs: Annotated[int, ">= 0"] = 1,
        overlap: bool = False,
        student_threads: int | None = None,
        report: Report = unwatched,
    ) -> None:
        """Compose a method.

        Args:
            teachers: The cohort, and what comes of its answers. With several chunks, the student's
                first epoch goes chunk by chunk as answers come.
            student: The model being taught; trained in place.
            distil: Trains the student: `clients.training.loop.train` with its numbers bound. None =
                nobody is taught; clients learn from targets that are fed back, and are measured.
            loss: What the student minimises at the ensemble's temperature; as an objective it may
                have anchors, `strategies.teaching.student.anchors_of`.
            seed: The run's seed.
            local_training: Whether the cohort trains before it answers; without, nobody fits a
                discriminator either.
            feed_back: What is sent along from round 2 on. "student", or true, its parameters: a
                client of the student's architecture goes on from them, any other imitates the
                student first, by KL with T**2. "targets", those of the round before, which clients
                imitate first by `loss`, as in FedMD and DS-FL. "answers", in their place what the
                student says of those examples once it is taught, as in CFD. False: nothing.
            digest_epochs: Epochs of that imitation, of all distilled examples, >= 0.
            overlap: Clients answer a chunk while the student learns from the one before. Only where
                they run in other processes: here both would draw from one global generator.
            student_threads: Of this process, with which the student learns; part of the bits. None
                = those that the process has.
            report: Receives a view of each round, over the probe examples.

        Raises:
            ValueError: A number is out of range, or parts do not go together.
        """
        if digest_epochs < 0:
            raise ValueError(f"strategy.digest_epochs={digest_epochs}: expected >= 0")
        if feed_back not in FED_BACK:
            raise ValueError(
                f"strategy.feed_back={feed_back}: expected false, student, targets, answers, or "
                "true, which is student"
            )
        if not local_training and (teachers.rule.recipe is not None or feed_back):
            raise ValueError(
                "strategy.local_training=false: expected strategy/discriminator=none and "
                "strategy.feed_back=false, for which clients train"
            )
        task, split = teachers.test.task, teachers.split
        if isinstance(loss, Objective) and len(split.chunks) > 1:
            raise ValueError(
                f"strategy.proxy_split.chunks={len(split.chunks)}: expected 1 where strategy.loss "
                "is an objective, which would begin anew with each chunk"
            )
        _require_learners(distil, loss, FED_BACK[feed_back])
        if distil is not None:
            distil = validated(distil, split.proxy, split.calibration_ids)
        asks = distil is not None and any(names(distil, name) for name in TAUGHT)
        if asks and len(split.chunks) > 1:
            raise ValueError(
                f"strategy.proxy_split.chunks={len(split.chunks)}: expected 1 where "
                "strategy.distil asks for teachers, which come all at once"
            )
        if asks or (isinstance(loss, Objective) and loss.anchors):
            teachers.want_all(loss.anchors if isinstance(loss, Objective) else ())
        rehearse_loss(teachers.rule, loss, task.num_classes, task.sites)
        if distil is not None:
            rehearse_student(distil, student, split.proxy, loss, teachers.rule)
        goal = of_examples(with_temperature(loss, teachers.rule.temperature), task)
        digest = goal if FED_BACK[feed_back] in DIGESTED else None
        self.handlers = (*predictions(teachers.rule.fields, digest), EVALUATE_FEATURES)
        self.has_student = distil is not None
        self._epochs = None if distil is None or len(split.chunks) == 1 else epochs_of(distil)
        self.teachers, self.split, self.student, self.seed = teachers, split, student, seed
        self.distil, self.goal = distil, goal
        self.feed_back, self.digest_epochs = FED_BACK[feed_back], digest_epochs
        self.overlap, self.report, self._threads = overlap, report, student_threads
        self._kept, self._learned = Parameters(), Parameters()
        self._asks = TRAIN_PREDICTIONS if local_training else EVALUATE_PREDICTIONS
        self._rules = {**teachers.rule.stateful, "loss": loss, "distil": distil}

    # --- Flower's five methods, and what our engine asks beside them ---

    def intake(self, server_round: int, phase: str) -> Reducer | None:
        """Say how replies may become one before they come here; see `Teachers.intake`."""
        return self.teachers.intake(phase)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Draw the cohort; ask it to train and to answer the first chunk of distilled examples."""
        load_parameters(self.student, read_arrays(arrays))
        with threads_of_torch(self._threads):
            self.teachers.select(server_round, self.student)
        request = self.teachers.request(
            server_round,
            digest_epochs=self.digest_epochs,
            **self._fed_back(server_round, arrays),
        )
        return to_each(self.teachers.cohort(server_round, grid), request, self._asks)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Weigh and combine the answers; teach the student with them."""
        local = LocalContext(None, server_round, "distil", state=lambda: self._kept)
        teach = partial(self._teach, server_round, local)
        student = self.student if self.has_student else None
        parameters, metrics = self.teachers.aggregate(
            server_round, replies, student, teach, self.report
        )
        if metrics is not None:
            metrics.update(local.notes)
        if local.kept is not None:
            self._kept = local.kept
        return parameters, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the clients whose answers were used to answer the test set too."""
        return self.teachers.test_messages(server_round)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Measure the ensemble on the test set; see `Teachers.measured`."""
        return self.teachers.measured(server_round, replies)

    def state(self) -> RecordDict:
        """Return what its rules keep between rounds."""
        state = rule_state.state_of(self._rules)
        if self._kept:
            state[LOCAL] = write_arrays(self._kept)
        if self.feed_back in DIGESTED:
            state[TARGETS] = write_arrays(self._learned)
        return state

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        rule_state.restore(self._rules, state)
        self._kept = read_arrays(state.array_records.get(LOCAL, ArrayRecord()))
        self._learned = read_arrays(state.array_records.get(TARGETS, ArrayRecord()))

    # --- steps ---

    def _fed_back(self, server_round: int, arrays: ArrayRecord) -> dict[str, Any]:
        """Say what of the round before goes along with a request."""
        if self.feed_back == STUDENT and server_round > 1:
            more = self.teachers.asks_more
            ids = self.split.distilled_ids if more else None
            return {"student": read_arrays(arrays), "digest_ids": ids}
        if self.feed_back in DIGESTED and self._learned:
            return {"targets": self._learned[TARGETS], "digest_ids": self._learned["ids"]}
        return {}

    def _teach(
        self, server_round: int, local: LocalContext, first: Ensemble
    ) -> tuple[list[float], list[Ensemble | None]]:
        """Distil chunk by chunk; the answers to the first one have come already."""
        rng = generator(self.seed, Purpose.DISTILLATION, server_round)
        chunks, proxy, objective = self.teachers.split.chunks, self.split.proxy, self.goal
        distil = self.distil or _nobody
        if by_round := of_round(distil, server_round):
            distil = partial(distil, **by_round)
        if isinstance(objective, Objective) and objective.anchors:
            distil = partial(distil, anchors=anchors_of(objective, first, self.student))
        distil = local.told(taught(first, distil))

        def imitate(ids: Ids, targets: Tensor, **changes: int) -> list[float]:
            same = same_modules("strategy.distil: the student's", self.student)
            with threads_of_torch(self._threads), same:
                return distil(self.student, proxy, ids, targets, objective, rng, **changes)

        def ask(number: int) -> Ensemble | None:
            return self.teachers.answers_to_chunk(server_round, number) if number else first

        with closing(ahead(ask, len(chunks), self.overlap)) as ensembles:
            losses, seen = teach(imitate, chunks, ensembles, self._epochs)
        if self.feed_back in DIGESTED:
            self._learned = learned_of(chunks, seen)
        if self.feed_back == ANSWERS and self._learned:
            said = predict(self.student, proxy, self._learned["ids"])
            temperature, task = self.teachers.rule.temperature, proxy.task
            said = task.by_input((said / temperature).softmax(-1) if task.soft else said)
            self._learned = {**self._learned, TARGETS: said.numpy()}
        return losses, seen


def _nobody(*what: Any, **numbers: Any) -> list[float]:
    """Train nobody: there is no student."""
    return []


def _require_learners(distil: Trainer | None, loss: DistillationLoss, fed_back: str) -> None:
    """Refuse a round in which nobody learns, and a loss that those who do cannot have."""
    if distil is not None:
        require_offered(distil, "strategy.distil", *TAUGHT, VALIDATION)
    elif fed_back != TARGETS:
        raise ValueError(
            "strategy.distil=null: without a student nobody learns from the answers: expected "
            "strategy.feed_back=targets"
        )
    if fed_back in DIGESTED and isinstance(loss, Objective) and loss.anchors:
        raise ValueError(
            f"strategy.feed_back={fed_back}: strategy.loss has the anchor '{loss.anchors[0]}', and "
            "clients compare with what they began with only"
        )
