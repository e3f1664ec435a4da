"""Ditto: a global model by federated averaging, and a network of each client's own held to it.

Li, Hu, Beirami, Smith, "Ditto: Fair and Robust Federated Learning Through Personalization", ICML
2021 (arXiv:2012.04221), algorithm 1: v <- argmin F_k(v) + weight / 2 ||v - w||^2, w being what the
client received in the round. A client's v begins as what it receives first.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, cast

from flwr.app import Context, Message, MetricRecord, RecordDict

from clients.execution.model_cache import as_tensors
from clients.handlers.base import SERVER_ROUND, Replies
from clients.handlers.compute_cost import local_training
from clients.handlers.parameters import TRAIN, train_parameters
from clients.handlers.personal_parameters import EVALUATE_PERSONAL, starts_of
from clients.handlers.state import MODEL, client_of, round_of
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import ARRAYS, METRICS
from clients.population.clients import SimulatedClients
from clients.training.objective import Anchors, Objective, as_objective, pulled
from strategies.server.averaging import Averaging, WeighBy

GLOBAL = "global"


def train(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    device: str,
    *,
    weight: float,
    own_epochs: int | None,
) -> Replies:
    """Train what was received, and send it; train one's own, held to what was received."""
    received = as_tensors(read_arrays(requests[0].content.array_records[ARRAYS]), device)
    starts = starts_of(clients, contexts, received, device)
    # One after the other: both are trained in the same networks.
    replies = list(train_parameters(clients, requests, contexts, device))
    anchors: Anchors = {GLOBAL: received}
    changes: dict[str, Any] = {} if own_epochs is None else {"epochs": own_epochs, "steps": None}
    changes["around"] = partial(held, weight=weight)
    about: Any = round_of(requests[0]), device, None, lambda client_id: anchors
    own = clients.train([client_of(context) for context in contexts], starts, *about, **changes)
    for context, reply, result in zip(contexts, replies, own, strict=True):
        if isinstance(reply, Exception) or isinstance(result, Exception):
            yield reply if isinstance(reply, Exception) else cast(Exception, result)
            continue
        context.state[MODEL] = write_arrays(result.parameters)
        loss = result.losses[-1] if result.losses else 0.0
        cast(MetricRecord, reply.content[METRICS])["own-train-loss"] = loss
        yield reply


def held(objective: Any, weight: float) -> Objective:
    """Add to an objective weight / 2 ||v - w||^2, by its gradient, as a proximal term is.

    Args:
        objective: What is minimised beside it.
        weight: >= 0.

    Returns:
        Their sum, for clients that come with the anchor "global".
    """
    own = as_objective(objective)
    correct = partial(pulled, before=own.correct, mu=weight, anchor=GLOBAL)
    return replace(own, correct=correct, anchors=(*own.anchors, GLOBAL))


def _both(
    clients: SimulatedClients, client_id: int, content: RecordDict, *, own_epochs: int | None
) -> float:
    """Count both trainings; the second as the first, or by the share of its epochs."""
    epochs = cast(partial[Any], clients.local_training).keywords.get("epochs") or 1
    times = 1.0 if own_epochs is None else own_epochs / epochs
    return (1.0 + times) * local_training(clients, client_id, content)


class Ditto(Averaging):
    """Federated averaging whose clients keep networks of their own, which are what is measured."""

    averages = True

    def __init__(
        self,
        *,
        seed: int,
        weight: Annotated[float, ">= 0"] = 1.0,
        own_epochs: Annotated[int, ">= 0"] | None = None,
        fraction_train: Annotated[float, "in (0, 1]"] = 1.0,
        fraction_evaluate: Annotated[float, "in [0, 1]"] = 1.0,
        weigh_by: WeighBy = "examples",
    ) -> None:
        """Choose how clients learn, and how many take part.

        Args:
            seed: The run's seed.
            weight: The paper's lambda, of the distance between one's own network and the global
                model, >= 0.
            own_epochs: Epochs in which one's own is trained, >= 0; None = as `clients.training`.
            fraction_train: As in `Averaging`.
            fraction_evaluate: Share of the clients in [0, 1] that measure their own networks.
            weigh_by: As in `Averaging`.

        Raises:
            ValueError: A number is out of range.
        """
        super().__init__(
            seed=seed,
            fraction_train=fraction_train,
            fraction_evaluate=fraction_evaluate,
            weigh_by=weigh_by,
        )
        if not 0 <= weight < float("inf"):
            raise ValueError(f"strategy.weight={weight}: expected >= 0 and finite")
        if own_epochs is not None and not (isinstance(own_epochs, int) and own_epochs >= 0):
            raise ValueError(f"strategy.own_epochs={own_epochs}: expected a number >= 0, or null")
        handler = replace(
            TRAIN,
            answer=partial(train, weight=weight, own_epochs=own_epochs),
            keys=(SERVER_ROUND,),
            multiplications=partial(_both, own_epochs=own_epochs),
        )
        self.handlers = (handler, EVALUATE_PERSONAL)
