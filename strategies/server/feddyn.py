"""FedDyn: clients' objectives are bent so that their minima, and not only the mean, agree.

Acar, Zhao, Navarro, Mattina, Whatmough, Saligrama, "Federated Learning Based on Dynamic
Regularization", ICLR 2021 (arXiv:2111.04263), algorithm 1. A client minimises L_k(w) - <g_k, w> +
alpha / 2 ||w - w0||^2 and then g_k <- g_k - alpha (w - w0), w0 being what it received. The server
keeps h <- h - alpha / K sum (w_k - w0) over the cohort, and sends the cohort's mean - h / alpha;
what is kept here is -h / alpha. Running statistics are averaged as they are.
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

from clients.execution.model_cache import as_tensors
from clients.handlers.base import SERVER_ROUND, Replies
from clients.handlers.parameters import TRAIN, training_metrics
from clients.handlers.state import client_of, kept_arrays, round_of
from clients.messages.accumulator import is_part
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import ARRAYS, METRICS
from clients.messages.sizes import examples_in
from clients.models.factory import Parameters
from clients.population.clients import SimulatedClients
from clients.training.objective import START, Anchors, Named, Objective, as_objective
from strategies.aggregation.parameters import cast_to
from strategies.server.averaging import Averaging

GRADIENT, SHIFT = "gradient", "shift"
"""Records: g_k of a client's state; -h / alpha of the strategy's."""


def train(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    device: str,
    *,
    alpha: float,
) -> Replies:
    """Train the parameters received on the bent objective; bend it further."""
    sent = read_arrays(requests[0].content.array_records[ARRAYS])
    start, ids = as_tensors(sent, device), [client_of(context) for context in contexts]
    network = clients.place(device).networks.of(clients.architectures[ids[0]])
    zeros = {name: np.zeros(p.shape, np.float32) for name, p in network.named_parameters()}
    own = {client_of(c): kept_arrays(c, GRADIENT) or zeros for c in contexts}

    def anchors(client_id: int) -> Anchors:
        return {GRADIENT: {n: torch.tensor(g, device=device) for n, g in own[client_id].items()}}

    around, server_round = partial(bent, alpha=alpha), round_of(requests[0])
    starts = [start] * len(ids)
    trained = clients.train(ids, starts, server_round, device, anchors=anchors, around=around)
    for request, context, result in zip(requests, contexts, trained, strict=True):
        if isinstance(result, Exception):
            yield result
            continue
        end, before = result.parameters, own[client_of(context)]
        after = {n: (g - alpha * (end[n] - sent[n])).astype(g.dtype) for n, g in before.items()}
        context.state[GRADIENT] = write_arrays(after)
        metrics = training_metrics(clients, client_of(context), result)
        reply = RecordDict({ARRAYS: write_arrays(end), METRICS: metrics})
        yield Message(reply, reply_to=request)


def bent(objective: Any, alpha: float) -> Objective:
    """Add to an objective -<g_k, w> + alpha / 2 ||w - w0||^2, by its gradient.

    Args:
        objective: What is minimised beside it.
        alpha: > 0.

    Returns:
        Their sum, for clients that come with the anchor "gradient".
    """
    own = as_objective(objective)
    correct = partial(_bent, before=own.correct, alpha=alpha)
    return replace(own, correct=correct, anchors=(*own.anchors, GRADIENT))


def _bent(
    gradients: Named, parameters: Named, anchors: Anchors, *, before: Any, alpha: float
) -> Named:
    if before is not None:
        gradients = before(gradients, parameters, anchors)
    start, own = anchors[START], anchors[GRADIENT]
    return {n: g - own[n] + alpha * (parameters[n] - start[n]) for n, g in gradients.items()}


class FedDyn(Averaging):
    """Averaging, each client alike, that goes on by what all cohorts so far have moved it."""

    averages = True

    def __init__(
        self,
        *,
        student: nn.Module,
        num_clients: int,
        seed: int,
        alpha: Annotated[float, "> 0"] = 0.01,
        fraction_train: Annotated[float, "in (0, 1]"] = 1.0,
        fraction_evaluate: Annotated[float, "in [0, 1]"] = 1.0,
    ) -> None:
        """Choose how far objectives are bent, and how many clients take part.

        Args:
            student: Tells parameters from statistics.
            num_clients: K >= 1.
            seed: The run's seed.
            alpha: Of the paper, > 0; there 0.001 to 0.1.
            fraction_train: As in `Averaging`.
            fraction_evaluate: As there.

        Raises:
            ValueError: A number is out of range.
        """
        super().__init__(
            seed=seed,
            fraction_train=fraction_train,
            fraction_evaluate=fraction_evaluate,
            weigh_by="clients",
        )
        if not 0 < alpha < float("inf"):
            raise ValueError(f"strategy.alpha={alpha}: expected > 0 and finite")
        self.num_clients, self._sent = num_clients, Parameters()
        self.shift = {n: np.zeros(p.shape, np.float32) for n, p in student.named_parameters()}
        answer = partial(train, alpha=alpha)
        self.handlers = (replace(TRAIN, answer=answer, keys=(SERVER_ROUND,)),)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the global model to the round's cohort."""
        self._sent = read_arrays(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average; add what all cohorts so far have moved the mean."""
        replies = list(replies)
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None:
            return None, metrics
        share = sum(_clients_in(reply) for reply in replies) / self.num_clients
        new: dict[str, Any] = read_arrays(mean)
        for name, shift in self.shift.items():
            moved = shift + share * (new[name] - self._sent[name])
            self.shift[name] = np.asarray(moved, np.float32)
            new[name] = np.asarray(new[name] + self.shift[name])
        return write_arrays(cast_to({n: a.dtype for n, a in self._sent.items()}, new)), metrics

    def state(self) -> RecordDict:
        """Return how far it goes beyond the mean."""
        return RecordDict({SHIFT: write_arrays(self.shift)})

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        self.shift = read_arrays(cast(ArrayRecord, state[SHIFT]))


def _clients_in(reply: Message) -> float:
    """Count the clients that a reply is of: a part of several says it, see `WeightedMean`."""
    if not reply.has_content():
        return 0.0
    if not is_part(reply):
        return 1.0
    return sum(examples_in(r) for r in reply.content.values() if isinstance(r, MetricRecord))
