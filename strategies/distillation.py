"""Distillation into one global student: DLAD and everything that differs from it in one axis."""

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from clients.architectures import load_parameters, parameters_of
from clients.data import Dataset
from clients.discriminator import DiscriminatorRecipe
from clients.messages import (
    EVALUATE_PREDICTIONS,
    TRAIN_PREDICTIONS,
    PredictionRequest,
    RoundView,
    TeacherPredictions,
    node_id_of,
    read_arrays,
    read_predictions,
    write_arrays,
    write_request,
)
from clients.prediction import measures
from clients.seeding import Purpose, generator
from clients.training import Trainer
from strategies import rule_state
from strategies.weights import normalise

Scorer = Callable[[TeacherPredictions], Tensor]
Combiner = Callable[[Tensor, Tensor, float], Tensor]
DistillationLoss = Callable[..., Tensor]


class DistillationStrategy(Strategy):
    """Clients of any architecture teach one student through what they answer on the proxy set.

    A round: the cohort trains privately and answers the proxy examples; answers are scored, weighed
    and combined into soft labels; the student imitates them. One round is the one-shot setting of
    DLAD; over several the clients train on and the student keeps learning.
    """

    def __init__(
        self,
        *,
        student: nn.Module,
        proxy: Dataset,
        test: Dataset,
        distil: Trainer,
        seed: int,
        scorer: Scorer,
        combiner: Combiner,
        loss: DistillationLoss,
        discriminator: DiscriminatorRecipe | None = None,
        temperature: float = 1.0,
        negative_share: float = 0.2,
        weight_cap: float = 1.0,
        fraction: float = 1.0,
        feed_back: bool = False,
        digest_epochs: int = 1,
        report: Callable[[RoundView], None] = lambda view: None,
    ) -> None:
        """Compose a method.

        Args:
            student: The model being taught; trained in place.
            proxy: Shared inputs; their labels are never looked at.
            test: Held-out set on which the ensemble is measured.
            distil: Trains the student: `clients.training.train` with its numbers bound.
            seed: The run's seed.
            scorer: Answers -> scores [K, N].
            combiner: Logits [K, N, C], weights [K, N], T -> targets [N, C].
            loss: (student logits, targets, temperature) -> [B].
            discriminator: How clients tell own from proxy examples; None = they need not.
            temperature: T > 0 of combiner and loss.
            negative_share: Share in [0, 1) of the proxy set that discriminators are fitted
                against, and that is therefore never distilled; without discriminators it is held
                back all the same, so that methods with and without distil the same examples.
            weight_cap: Largest weight of one client on one example, in (0, 1].
            fraction: Share of the clients in (0, 1] that a round's cohort has, at least one.
            feed_back: Send the student's parameters along, from round 2 on: a client of the
                student's architecture goes on from them, any other imitates the student first.
            digest_epochs: Epochs of that imitation, by KL with T**2, >= 0.
            report: Receives a view of each round.

        Raises:
            ValueError: A number is out of range.
        """
        _check(temperature, weight_cap, fraction, digest_epochs)
        self.student = student
        self.proxy = proxy
        self.test = test
        self.distil = distil
        self.seed = seed
        self.scorer = scorer
        self.combiner = combiner
        self.loss = loss
        self.discriminator = discriminator
        self.temperature = temperature
        self.weight_cap = weight_cap
        self.fraction = fraction
        self.feed_back = feed_back
        self.digest_epochs = digest_epochs
        self.report = report
        self.negative_ids, self.distilled_ids = _cut(len(proxy), negative_share, seed)
        if len(self.distilled_ids) == 0 or (discriminator and len(self.negative_ids) == 0):
            raise ValueError(
                f"negative_share={negative_share}: of {len(proxy)} proxy examples it leaves "
                f"{len(self.negative_ids)} negatives and {len(self.distilled_ids)} to distil, "
                "expected at least 1 of each"
            )
        self._teachers: list[int] = []
        self._rules = {"scorer": scorer, "combiner": combiner, "loss": loss, "distil": distil}
        self._rehearse()

    # --- Flower's five methods ---

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Draw the cohort; ask it to train and to answer the distilled proxy examples."""
        load_parameters(self.student, read_arrays(arrays))
        request = PredictionRequest(
            server_round=server_round,
            num_inputs=len(self.distilled_ids),
            num_classes=self.test.num_classes,
            proxy_ids=self.distilled_ids,
            negative_ids=None if self.discriminator is None else self.negative_ids,
            recipe=self.discriminator,
            student=read_arrays(arrays) if self.feed_back and server_round > 1 else None,
            digest_epochs=self.digest_epochs,
            temperature=self.temperature,
        )
        cohort = self._cohort(server_round, sorted(grid.get_node_ids()))
        return _to_each(cohort, request, TRAIN_PREDICTIONS)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Weigh and combine the answers; teach the student with them."""
        teachers = read_predictions(replies)
        self._teachers = []
        if teachers is None:
            return None, None
        weights, targets = self._weigh(teachers)
        covered = weights.sum(0) > 0
        losses = self._teach(server_round, targets, covered) if covered.any() else []
        self.report(RoundView(server_round, teachers, weights, targets, losses))
        metrics = MetricRecord({"num-teachers": len(teachers.client_ids)})
        metrics["dropped-examples"] = int((~covered).sum())
        if losses:
            metrics["distillation-loss"] = losses[-1]
        self._teachers = [node_id_of(client_id) for client_id in teachers.client_ids]
        return write_arrays(parameters_of(self.student)), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the clients whose answers were used to answer the test set too."""
        request = PredictionRequest(
            server_round=server_round,
            num_inputs=len(self.test),
            num_classes=self.test.num_classes,
            recipe=self.discriminator,
        )
        return _to_each(self._teachers, request, EVALUATE_PREDICTIONS)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Measure the ensemble on the test set, weighed by the same rule.

        An example that nobody covers counts as answered wrong, and not in the loss.
        """
        teachers = read_predictions(replies)
        if teachers is None:
            return None
        weights, targets = self._weigh(teachers)
        covered = weights.sum(0) > 0
        if not covered.any():
            return None
        values = measures(
            targets[covered].clamp_min(1e-12).log(), self.test.labels[covered.numpy()]
        )
        return MetricRecord(
            {
                "ensemble-accuracy": values["accuracy"] * float(covered.double().mean()),
                "ensemble-loss": values["loss"],
            }
        )

    def summary(self) -> None:
        """Nothing to log: the resolved config says it all."""

    # --- resuming; what the strategy itself keeps does not outlive a round ---

    def state(self) -> RecordDict:
        """Return what its rules keep between rounds."""
        return rule_state.state_of(self._rules)

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        rule_state.restore(self._rules, state)

    # --- steps ---

    def _teach(self, server_round: int, targets: Tensor, covered: Tensor) -> list[float]:
        try:
            return self.distil(
                self.student,
                self.proxy,
                self.distilled_ids[covered.numpy()],
                targets[covered],
                partial(self.loss, temperature=self.temperature),
                generator(self.seed, Purpose.DISTILLATION, server_round),
            )
        except FloatingPointError as error:
            raise FloatingPointError(f"student, round {server_round}: {error}") from error

    def _weigh(self, teachers: TeacherPredictions) -> tuple[Tensor, Tensor]:
        return _weigh(teachers, self.scorer, self.combiner, self.temperature, self.weight_cap)

    def _rehearse(self) -> None:
        """Try scorer, combiner and loss on three made-up examples.

        A rule that cannot work here should say so now, not after the clients have trained.
        """
        shape = (2, 3, self.test.num_classes)
        teachers = TeacherPredictions(
            client_ids=(0, 1),
            logits=torch.zeros(shape),
            mask=torch.ones(shape[:2], dtype=torch.bool),
            own_probs=None if self.discriminator is None else torch.full(shape[:2], 0.5),
            num_examples=torch.ones(2),
        )
        # On copies: a rule with a state must not see made-up answers.
        scorer, combiner, loss = deepcopy((self.scorer, self.combiner, self.loss))
        _, targets = _weigh(teachers, scorer, combiner, self.temperature, self.weight_cap)
        losses = loss(torch.zeros(shape[1:]), targets, temperature=self.temperature)
        if targets.shape != shape[1:] or losses.shape != shape[1:2]:
            raise ValueError(
                f"combiner and loss gave shapes {tuple(targets.shape)} and {tuple(losses.shape)} "
                f"for 2 clients and 3 examples: expected {shape[1:]} and {shape[1:2]}"
            )

    def _cohort(self, server_round: int, node_ids: list[int]) -> list[int]:
        size = max(1, round(self.fraction * len(node_ids)))
        rng = generator(self.seed, Purpose.COHORT, server_round)
        # Positions are drawn, not ids: numpy would round Flower's 64-bit ids to float64.
        return [node_ids[i] for i in sorted(rng.choice(len(node_ids), size, replace=False))]


def _weigh(
    teachers: TeacherPredictions,
    scorer: Scorer,
    combiner: Combiner,
    temperature: float,
    weight_cap: float,
) -> tuple[Tensor, Tensor]:
    """Return weights [K, N] and targets [N, C]."""
    scores = scorer(teachers)
    try:
        weights = normalise(scores, teachers.mask, weight_cap)
    except ValueError as error:
        rule = scorer.func if isinstance(scorer, partial) else scorer
        name = getattr(rule, "__qualname__", type(rule).__qualname__)
        raise ValueError(f"scorer {rule.__module__}.{name}: {error}") from error
    return weights, combiner(teachers.logits, weights, temperature)


def _to_each(node_ids: list[int], request: PredictionRequest, kind: str) -> list[Message]:
    content = write_request(request)  # one object for all: the grid shares equal payloads
    return [Message(content, dst_node_id=node, message_type=kind) for node in node_ids]


def _cut(
    num_proxy: int, negative_share: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    order = generator(seed, Purpose.NEGATIVES).permutation(num_proxy)
    if not 0 <= negative_share < 1:
        raise ValueError(f"negative_share={negative_share}: expected in [0, 1)")
    cut = round(negative_share * num_proxy)
    return np.sort(order[:cut]), np.sort(order[cut:])


def _check(temperature: float, weight_cap: float, fraction: float, digest_epochs: int) -> None:
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature={temperature}: expected > 0 and finite")
    for name, value in (("weight_cap", weight_cap), ("fraction", fraction)):
        if not 0 < value <= 1:
            raise ValueError(f"{name}={value}: expected in (0, 1]")
    if digest_epochs < 0:
        raise ValueError(f"digest_epochs={digest_epochs}: expected >= 0")
