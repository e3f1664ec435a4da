"""FedDF: averages of each architecture's parameters are taught by the answers of all clients.

Lin, Kong, Stich, Jaggi, "Ensemble distillation for robust model fusion in federated learning",
NeurIPS 2020 (arXiv:2006.07242), algorithm 3. There the server asks the models that it was sent;
here clients send their answers too, so that a round takes 4 P C bytes more of each.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import nn

from clients.execution.isolation import same_modules
from clients.execution.trainer_calls import require_offered
from clients.handlers.feature_probes import EVALUATE_FEATURES
from clients.handlers.predictions import TRAIN_PREDICTIONS, predictions
from clients.messages.accumulator import Intake
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import client_id_of, write_request
from clients.models.factory import (
    ModelFunction,
    Parameters,
    build,
    load_parameters,
    parameters_of,
    unlike,
)
from clients.seeding import Purpose, generator
from clients.training.evaluation import evaluate
from clients.training.local_context import LocalContext
from clients.training.loop import Trainer, threads_of_torch
from clients.training.objective import DistillationLoss, Objective, with_temperature
from clients.training.schedules import of_round
from clients.training.task_objectives import of_examples
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
from strategies.teaching.rehearsal import rehearse_loss, rehearse_student
from strategies.teaching.round_view import Report, unwatched
from strategies.teaching.student import VALIDATION, validated
from strategies.teaching.teachers import Teachers

MEAN, LOCAL = "mean-", "local-"
"""Record of the strategy's state, with the name of an architecture behind it."""


class FedDF(BaseStrategy):
    """One model per architecture: the mean of its clients, taught by the ensemble of all.

    The student is that of its own architecture; where no client has it, it is taught beside them
    and begins where it ended.
    """

    def __init__(
        self,
        *,
        teachers: Teachers,
        student: nn.Module,
        models: dict[str, ModelFunction],
        architectures: Sequence[str],
        distil: Trainer,
        loss: DistillationLoss,
        seed: int,
        student_threads: int | None = None,
        report: Report = unwatched,
    ) -> None:
        """Compose the method.

        Args:
            teachers: The cohort, and what comes of its answers, in one chunk.
            student: The global student.
            models: Model functions of the clients' architectures by name.
            architectures: Name of each client's architecture.
            distil: Trains each model: `clients.training.loop.train` with its numbers bound, or one
                that names `validation`.
            loss: What they minimise at the ensemble's temperature, without anchors.
            seed: The run's seed.
            student_threads: As of `DistillationStrategy`.
            report: Receives a view of each round, over the probe examples.

        Raises:
            ValueError: Parts do not go together.
        """
        split, task, test = teachers.split, teachers.test.task, teachers.test
        split.require_whole()
        if isinstance(loss, Objective) and loss.anchors:
            raise ValueError("strategy.loss: expected one without anchors, each model has its own")
        require_offered(distil, "strategy.distil", VALIDATION)
        rehearse_loss(teachers.rule, loss, task.num_classes, task.sites)
        rehearse_student(distil, student, split.proxy, loss, teachers.rule)
        self.handlers = (*predictions(teachers.rule.fields), EVALUATE_FEATURES)
        self.teachers, self.student, self.seed, self.report = teachers, student, seed, report
        self.distil = validated(distil, split.proxy, split.calibration_ids)
        self._goal = of_examples(with_temperature(loss, teachers.rule.temperature), task)
        self._architectures, self._threads = architectures, student_threads
        self._rules = {**teachers.rule.stateful, "loss": loss, "distil": distil}
        self._means: dict[str, Parameters] = {}
        self._kept: dict[str, Parameters] = {}
        self._starts = starts_of(models, test, seed)
        self._networks = {
            name: build(model, task, np.random.default_rng(0)) for name, model in models.items()
        }
        own = parameters_of(student)
        alike = [name for name, network in self._networks.items() if not unlike(network, own)]
        self._of_student = alike[0] if alike else None
        self._starts |= dict.fromkeys(alike[:1], own)
        self._fault = partial(
            fault_in_parameters, architectures=architectures, forms=forms_of(models, test)
        )

    # --- Flower's five methods, and what our engine asks beside them ---

    def intake(self, server_round: int, phase: str) -> Intake:
        """Say what becomes of replies; see `Teachers.intake`."""
        inner = self.teachers.intake(phase)
        return inner if phase != "train" else averaging_too(inner, False, self._fault)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Give each client the model of its architecture; ask for parameters and answers."""
        load_parameters(self.student, read_arrays(arrays))
        with threads_of_torch(self._threads):
            self.teachers.select(server_round, self.student)
        known = self._starts | self._means
        contents: dict[str, RecordDict] = {}
        messages = []
        for node in self.teachers.cohort(server_round, grid):
            name = self._architectures[client_id_of(node)]
            if name not in contents:  # one object for all alike: it is sent and counted once
                more = {"student": known[name], "send_parameters": True}
                contents[name] = write_request(self.teachers.request(server_round, **more))
            messages.append(Message(contents[name], node, TRAIN_PREDICTIONS.kind))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average by architecture; teach each average with the answers of all."""
        replies, notes = list(replies), dict[str, float]()
        means = means_of(replies, False, self._fault)
        teach = partial(self._teach, server_round, means, notes)
        parameters, metrics = self.teachers.aggregate(
            server_round, replies, self.student, teach, self.report
        )
        if metrics is not None:
            metrics.update(notes)
        return parameters, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the clients whose answers were used to answer the test set too."""
        return self.teachers.test_messages(server_round)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Measure the ensemble, and each architecture's model, on the test set."""
        metrics = self.teachers.measured(server_round, replies) or MetricRecord()
        for name, parameters in self._means.items():
            load_parameters(self._networks[name], parameters)
            values = evaluate(self._networks[name], self.teachers.tested(server_round))
            metrics.update({f"{key}-{name}": value for key, value in values.items()})
        return metrics or None

    def state(self) -> RecordDict:
        """Return what its rules keep between rounds, and each architecture's model."""
        state = rule_state.state_of(self._rules)
        for name, parameters in self._means.items():
            state[MEAN + name] = write_arrays(parameters)
        for name, kept in self._kept.items():
            state[LOCAL + name] = write_arrays(kept)
        return state

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        there = {k: v for k, v in state.array_records.items() if k.startswith((MEAN, LOCAL))}
        rest = {k: v for k, v in state.items() if k not in there}
        rule_state.restore(self._rules, RecordDict(rest))
        self._means, self._kept = (
            {k.removeprefix(kind): read_arrays(v) for k, v in there.items() if k.startswith(kind)}
            for kind in (MEAN, LOCAL)
        )

    def models(self) -> dict[str, Parameters]:
        """Return what it leaves beside the student: each architecture's model."""
        return dict(self._means)

    # --- steps ---

    def _teach(
        self,
        server_round: int,
        means: dict[str, Parameters],
        notes: dict[str, float],
        first: Ensemble,
    ) -> tuple[list[float], list[Ensemble | None]]:
        """Teach the average of each architecture of the cohort, and the student if it is none."""
        if not first.covered.any():
            self._means |= means
            return [], [first]
        losses: list[float] = []
        for name in sorted(means):
            network = self._networks[name]
            load_parameters(network, means[name])
            own = self._imitate(server_round, name, network, first, notes)
            notes |= {f"distillation-loss-{name}": loss for loss in own[-1:]}
            self._means[name] = parameters_of(network)
            losses = own if name == self._of_student else losses
        if self._of_student is None:
            losses = self._imitate(server_round, None, self.student, first, notes)
        elif self._of_student in self._means:
            load_parameters(self.student, self._means[self._of_student])
        return losses, [first]

    def _imitate(
        self,
        server_round: int,
        name: str | None,
        network: nn.Module,
        first: Ensemble,
        notes: dict[str, float],
    ) -> list[float]:
        place = 0 if name is None else 1 + sorted(self._networks).index(name)
        rng = generator(self.seed, Purpose.DISTILLATION, server_round, place)
        key = name or ""  # the student's, which no architecture is called
        local = LocalContext(None, server_round, "distil", state=lambda: self._kept.get(key, {}))
        distil = partial(local.told(self.distil), **of_round(self.distil, server_round))
        ids = self.teachers.split.chunks[0][first.covered_inputs.numpy()]
        what = self.teachers.split.proxy, ids, first.targets_by_input, self._goal, rng
        with threads_of_torch(self._threads), same_modules("strategy.distil: a model's", network):
            losses = distil(network, *what)
        notes |= {f"{told}-{name}" if name else told: note for told, note in local.notes.items()}
        if local.kept is not None:
            self._kept[key] = local.kept
        return losses
