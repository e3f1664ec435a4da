"""Distillation over a graph, without server or student: peers learn what neighbours answer.

A round: everyone who is awake trains privately and answers the same proxy examples; answers go to
neighbours, where mixing weight times confidence makes soft labels of them; each imitates its own.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from clients.data import Dataset
from clients.execution.trainer_calls import numbers_of
from clients.handlers.base import Handler
from clients.handlers.peer_parameters import EVALUATE_OWN
from clients.handlers.peer_targets import RELAY, train_targets
from clients.handlers.predictions import TRAIN_PREDICTIONS, predictions
from clients.messages.accumulator import Intake, Keep
from clients.messages.field import as_they_are
from clients.messages.payload_routing import Mix
from clients.messages.replies import read_predictions
from clients.messages.requests import METRICS, PredictionRequest, write_request
from clients.messages.round_views import GraphView, RoundView
from clients.training.loop import Trainer
from clients.training.objective import DistillationLoss, Objective, with_temperature
from clients.training.optimizer_steps import require_steps
from clients.training.task_objectives import of_examples
from strategies import rule_state
from strategies.aggregation.ensemble import EnsembleRule
from strategies.aggregation.rule_arguments import require_none
from strategies.aggregation.task_compatibility import of_task
from strategies.base import BaseStrategy
from strategies.decentralised import mixed_targets as mixes
from strategies.decentralised.delivery import Delivery, Neighbours, payload_name
from strategies.decentralised.mixed_parameters import without_arrays
from strategies.decentralised.peer_round import Meeting
from strategies.teaching.proxy_split import ProxySplit
from strategies.teaching.rehearsal import is_reducible, rehearse_loss

ANSWERS = "answers"


class Gossip(BaseStrategy):
    """Peers of any architecture teach their neighbours through answers on the proxy set."""

    has_student = False
    any_shape = True

    def __init__(
        self,
        *,
        neighbours: Neighbours,
        test: Dataset,
        ensemble: EnsembleRule,
        proxy_split: ProxySplit,
        loss: DistillationLoss,
        distil: Trainer,
        with_own: bool = True,
        sweeps: Annotated[int, ">= 1"] = 1,
        report: Callable[[RoundView], None] = lambda view: None,
        watch: Callable[[GraphView], None] = lambda view: None,
    ) -> None:
        """Compose a method.

        Args:
            neighbours: Who hears of whom.
            test: Held-out set; gives the classes.
            ensemble: How peers answer, and what comes of the answers of a neighbourhood; with
                several sweeps nobody falls back.
            proxy_split: What they answer, in one chunk.
            loss: What peers minimise at the ensemble's temperature, to imitate.
            distil: Trains them so: `clients.training.loop.train` with its numbers bound.
            with_own: Whether a peer's own answers count among its neighbours'.
            sweeps: How often answers are mixed before they are imitated, >= 1. With more than one
                what goes on is numerators and denominators of the weighted mean, so that many
                sweeps come to what a server would make.
            report: Receives a view of each round, in which all peers are one neighbourhood.
            watch: Receives each round's graph.

        Raises:
            ValueError: A number is out of range, or a rule does not allow several sweeps.
        """
        if sweeps < 1:
            raise ValueError(f"strategy.sweeps={sweeps}: expected >= 1")
        if neighbours.missing == "sender":
            raise ValueError("strategy.missing=sender: expected renormalise, own or drop")
        if isinstance(loss, Objective) and loss.anchors:
            raise ValueError(
                f"strategy.loss: anchor '{loss.anchors[0]}': expected none, peers compare with "
                "what they began with only"
            )
        numbers = _numbers(distil)
        proxy_split.require_whole()
        if ensemble.wants_negatives:
            proxy_split.require_negatives()
        ensemble = of_task(ensemble, test.task)
        if proxy_split.labelled:
            raise ValueError(
                "strategy.proxy_split.labelled=true: expected false, for peers have no server that "
                "knows labels"
            )
        require_none(ensemble.stateful, "it is given by a server, and peers have none")
        self.rule, self.split = ensemble, proxy_split
        size = test.task.num_classes, test.task.sites
        rehearse_loss(ensemble, loss, *size)
        if sweeps > 1 and not is_reducible(ensemble, *size):
            raise ValueError(
                f"strategy.sweeps={sweeps}: expected 1 with this scorer, combiner or weight_cap: "
                "only weighted means, by scores of one answer each, can be mixed again"
            )
        self.sweeps = sweeps
        self.with_own = with_own
        goal = of_examples(with_temperature(loss, ensemble.temperature), test.task)
        self._imitating = train_targets(goal, numbers)
        self.handlers = (predictions(ensemble.fields)[0], RELAY, self._imitating, EVALUATE_OWN)
        self.report = report
        self._task = test.task
        self._meeting = Meeting(neighbours, watch)
        self._rules = {**ensemble.stateful, "loss": loss, "distil": distil}

    # --- Flower's five methods, and what our engine asks beside them ---

    def intake(self, server_round: int, phase: str) -> Intake:
        """Leave answers where they were made, but for those to the probe examples."""
        if phase != "train":
            return None
        show = partial(mixes.on_probes, probe=self.split.probes[0], fields=self.rule.fields)
        fault = partial(mixes.fault_in_size, fields=self.rule.fields)
        return Keep(payload_name(ANSWERS, server_round), show, fault if self.sweeps > 1 else None)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask everyone who is awake to train and to answer the distilled examples."""
        ids = self.split.distilled_ids
        request = PredictionRequest(
            server_round=server_round,
            num_inputs=len(ids),
            num_classes=self._task.num_classes,
            sites=self._task.sites,
            proxy_ids=ids,
            negative_ids=self.split.negative_ids if self.rule.wants_negatives else None,
            recipe=self.rule.recipe,
            temperature=self.rule.temperature,
            answers=self.rule.sent_as,
            fields=tuple(self.rule.fields),
        )
        awake = self._meeting.open(server_round, grid)
        return self._meeting.messages(awake, write_request(request), TRAIN_PREDICTIONS)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Deliver the answers, as often as there are sweeps; let each peer imitate its targets."""
        kept = self.intake(server_round, "train")
        shown = self._meeting.received(replies, kept)
        kind, have = ANSWERS, self._meeting.senders(shown)
        answered = len(have)
        mix: Mix = partial(mixes.sums_of_answers, rule=self.rule)
        for sweep in range(1, self.sweeps):
            delivery = self._meeting.deliver(kind, have, self.with_own or sweep > 1)
            kind = f"sums-{sweep}"
            keep = Keep(payload_name(kind, server_round), without_arrays)
            have = self._meeting.senders(self._send(delivery, mix, RELAY, keep))
            mix = mixes.sums_of_sums
        delivery = self._meeting.deliver(kind, have, self.with_own or self.sweeps > 1)
        made = mixes.targets_of_sums if self.sweeps > 1 else mixes.targets_of_answers
        step = partial(made, rule=self.rule, proxy_ids=self.split.distilled_ids)
        learnt = self._send(delivery, step, self._imitating, None)
        losses = _metric(learnt, "digest-loss")
        teachers = read_predictions(shown, as_they_are(self.rule.fields))
        if teachers is not None:
            teachers = self.rule.as_asked(teachers)
            weights = self.rule.weights(teachers)
            targets = self.rule.combined(teachers, weights)
            ids = tuple(self.split.probe_ids.tolist())
            self.report(RoundView(server_round, ids, teachers, weights, targets, losses))
        metrics = {"num-teachers": float(answered), **self._meeting.close(teachers)}
        if losses:
            metrics["distillation-loss"] = float(np.mean(losses))
        return None, MetricRecord({**metrics})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask everyone who is present, asleep or not, to measure its network."""
        return self._meeting.ask(self._meeting.present(), EVALUATE_OWN)

    def state(self) -> RecordDict:
        """Return what its rules, and its meeting, keep between rounds."""
        return RecordDict({**self._meeting.state(), **rule_state.state_of(self._rules)})

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        self._meeting.restore(state)
        rule_state.restore(self._rules, state)

    # --- steps ---

    def _send(self, delivery: Delivery, mix: Mix, asks: Handler, intake: Intake) -> list[Message]:
        messages = self._meeting.ask(sorted(delivery.letters), asks)
        return self._meeting.post(messages, delivery, mix, intake)


def _numbers(distil: Trainer) -> dict[str, Any]:
    numbers = numbers_of(distil)
    if numbers is None:
        raise ValueError(
            "strategy.distil: expected clients.training.loop.train, which peers run too"
        )
    require_steps(numbers["optimizer"], [torch.zeros(2, 2)], "strategy.distil.optimizer")
    return numbers


def _metric(replies: Iterable[Message], name: str) -> list[float]:
    """Collect a metric of those replies that have it."""
    records: list[Any] = [reply.content.get(METRICS) for reply in replies if reply.has_content()]
    return [float(record[name]) for record in records if record is not None and name in record]
