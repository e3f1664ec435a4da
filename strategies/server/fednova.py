"""FedNova: what clients changed is averaged per local step, so that many steps are no weight.

Wang, Liu, Liang, Joshi, Poor, "Tackling the Objective Inconsistency Problem in Heterogeneous
Federated Optimization", NeurIPS 2020 (arXiv:2007.07481), eq. 4 with a_k of SGD with momentum: w <-
w + tau * sum p_k (w_k - w) / |a_k|, tau = sum p_k |a_k|, p_k by examples. With as many steps at all
clients it is federated averaging. Running statistics are averaged as they are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import nn

from clients.execution.trainer_calls import numbers_of
from clients.handlers.base import SERVER_ROUND, Replies
from clients.handlers.parameters import TRAIN, train_parameters
from clients.messages.accumulator import Reducer, fold_replies
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import ARRAYS, METRICS
from clients.messages.sizes import NUM_EXAMPLES, examples_in
from clients.models.factory import Parameters, buffer_names
from clients.population.clients import SimulatedClients
from clients.training.batches import local_steps
from clients.training.objective import Objective
from strategies.aggregation.parameters import WeightedSum, cast_to
from strategies.server.averaging import Averaging, WeightedMean, unlike_request

STEPS = "normalized-steps"
"""Metric of a reply: |a_k|, how far local training would move along a gradient of one, over lr."""

CHANGED, WEIGHT = "changed", "changed-weight"


def train(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Replies:
    """Train the parameters received; say by how many steps."""
    optimizer = cast(partial[Any], clients.local_training).keywords["optimizer"]
    momentum = optimizer.keywords.get("momentum", 0.0)
    for reply in train_parameters(clients, requests, contexts, device):
        if not isinstance(reply, Exception):
            metrics = cast(MetricRecord, reply.content[METRICS])
            steps = local_steps(clients.local_training, int(examples_in(metrics)))
            metrics[STEPS] = normalized_steps(max(1, steps), momentum)
        yield reply


def normalized_steps(steps: int, momentum: float) -> float:
    """Return |a_k| of so many steps of SGD: the sum over i of (1 - momentum^i) / (1 - momentum)."""
    rest = 1.0 - momentum
    return float((steps - momentum * (1.0 - momentum**steps) / rest) / rest)


def fault(request: Message, reply: Message) -> str | None:
    """Look for what cannot be averaged: as in federated averaging, and numbers of steps."""
    if found := unlike_request(request, reply):
        return found
    steps = cast(MetricRecord, reply.content[METRICS]).get(STEPS)
    if isinstance(steps, int | float) and steps >= 1:
        return None
    return f"metric '{STEPS}' is {steps}, expected a number >= 1"


class NormalizedMean:
    """Parameters, weighed by examples over steps; metrics and statistics, weighed by examples."""

    def __init__(self, buffers: frozenset[str]) -> None:
        """Begin with none; `buffers` are names of statistics."""
        self._buffers, self._mean, self._changed = buffers, WeightedMean(), WeightedSum()

    def add(self, content: RecordDict) -> None:
        """Take in a reply's content."""
        arrays = read_arrays(cast(ArrayRecord, content[ARRAYS]))
        metrics = cast(MetricRecord, content[METRICS])
        weight = examples_in(metrics) / float(cast(float, metrics[STEPS]))
        apart = {name: arrays.pop(name) for name in self._buffers & {*arrays}}
        self._changed.add(arrays, weight)
        self._mean.add(RecordDict({ARRAYS: write_arrays(apart), METRICS: metrics}))

    def merge(self, part: RecordDict) -> None:
        """Take in what `part` of another one returned."""
        weight = float(cast(float, cast(ConfigRecord, part[WEIGHT])["weight"]))
        self._changed.add(read_arrays(cast(ArrayRecord, part[CHANGED])), weight)
        about = {name: part[name] for name in (ARRAYS, METRICS) if name in part}
        self._mean.merge(RecordDict(about))

    def part(self) -> RecordDict:
        """Return both means, and the weight of the first."""
        part, weight = self._mean.part(), self._changed.weight
        part[CHANGED] = write_arrays({n: s / weight for n, s in self._changed.arrays.items()})
        part[WEIGHT] = ConfigRecord({"weight": weight})
        return part


class FedNova(Averaging):
    """Federated averaging in which each client counts by its examples, not by its steps."""

    averages = True

    def __init__(
        self,
        *,
        student: nn.Module,
        seed: int,
        fraction_train: Annotated[float, "in (0, 1]"] = 1.0,
        fraction_evaluate: Annotated[float, "in [0, 1]"] = 1.0,
    ) -> None:
        """Choose how many clients take part.

        Args:
            student: Tells parameters from statistics.
            seed: The run's seed.
            fraction_train: As in `Averaging`.
            fraction_evaluate: As there.
        """
        super().__init__(
            seed=seed, fraction_train=fraction_train, fraction_evaluate=fraction_evaluate
        )
        self._accumulator = partial(NormalizedMean, frozenset(buffer_names(student)))
        self._sent: Parameters = {}
        self.handlers = (replace(TRAIN, answer=train, keys=(SERVER_ROUND,)),)

    @staticmethod
    def require_clients(clients: SimulatedClients) -> None:
        """Refuse local training whose steps are not of one length; ValueError says which."""
        require_even_steps(clients.local_training)
        goal = clients.objective
        if isinstance(goal, Objective) and (goal.penalty or goal.correct):
            raise ValueError(
                "clients.objective: FedNova counts steps along the gradient of the loss alone: "
                "expected one without penalty or correction"
            )

    def intake(self, server_round: int, phase: str) -> Reducer | None:
        """Fold what clients trained into its normalised mean."""
        if phase != "train":
            return super().intake(server_round, phase)
        return Reducer(self._accumulator, fault)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the global model to the round's cohort."""
        self._sent = read_arrays(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Go by the mean number of steps along the mean change per step."""
        total, sent = self._accumulator(), self._sent
        if not fold_replies(total, replies):
            return None, None
        part = total.part()
        metrics = cast(MetricRecord, part[METRICS])
        examples = float(cast(float, metrics.pop(NUM_EXAMPLES)))
        per_step = float(cast(float, cast(ConfigRecord, part[WEIGHT])["weight"])) / examples
        scale = float(cast(float, metrics[STEPS])) * per_step
        means = read_arrays(cast(ArrayRecord, part[CHANGED]))
        new: dict[str, Any] = {
            name: sent[name] + scale * (array - sent[name]) for name, array in means.items()
        }
        if ARRAYS in part:
            new |= read_arrays(cast(ArrayRecord, part[ARRAYS]))
        whole = {name: np.asarray(new[name]) for name in sent}
        return write_arrays(cast_to({n: a.dtype for n, a in sent.items()}, whole)), metrics


def require_even_steps(train: Any) -> None:
    """Refuse a trainer of which |a_k| is not known.

    Args:
        train: With its numbers bound.

    Raises:
        ValueError: Names what is expected of `clients.training`.
    """
    how = numbers_of(train) or {}
    optimizer = how.get("optimizer")
    kind = optimizer.func if isinstance(optimizer, partial) else optimizer
    numbers = optimizer.keywords if isinstance(optimizer, partial) else {}
    uneven = (
        numbers.get("dampening")
        or numbers.get("nesterov")
        or not 0 <= numbers.get("momentum", 0.0) < 1
    )
    scheduled = how.get("scheduler") is not None and how.get("scheduler_by") != "round"
    if kind is not torch.optim.SGD or uneven or scheduled or how.get("stop_below") is not None:
        raise ValueError(
            "clients.training: FedNova counts steps of SGD: expected _target_="
            "clients.training.loop.train, optimizer._target_="
            "torch.optim.SGD with momentum in [0, 1) and without dampening and nesterov, "
            "scheduler=null or scheduler_by=round, and stop_below=null"
        )
