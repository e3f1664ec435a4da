"""KT-pFL: each client is taught a mixture of all clients' soft labels, of weights that are learned.

Zhang, Guo, Ma, Wang, Xu, Wu, "Parameterized Knowledge Transfer for Personalized Federated
Learning", NeurIPS 2021 (arXiv:2111.02862). The server's knowledge coefficients c [K, K] have a row
for each receiver, and take one step in each round; client k digests t_k = sum_j c_kj p_j, then
trains. A step has the size at which the authors' code arrives by factors of five.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from clients.data import Dataset
from clients.handlers.peer_parameters import EVALUATE_OWN
from clients.handlers.predictions import predictions
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.replies import read_predictions
from clients.messages.requests import (
    CONFIG,
    PREDICTIONS,
    PredictionRequest,
    client_id_of,
    node_id_of,
    write_request,
)
from clients.models.factory import Parameters
from clients.seeding import Purpose, named_generator
from clients.training.loop import threads_of_torch
from clients.training.objective import DistillationLoss, Objective, with_temperature
from clients.training.task_objectives import of_examples
from strategies.base import BaseStrategy
from strategies.cohorts import cohort_of

KNOWLEDGE = "knowledge"
"""Record of the strategy's state: coefficients; the latest soft labels, of whom and of what."""


def learned_coefficients(
    coefficients: Tensor, probs: Tensor, *, pull: float, step: float, sharpness: float
) -> Tensor:
    """Move knowledge coefficients towards what each receiver says itself, and to equal ones.

    Row k goes down the gradient g_k of MSE(sum_j c_kj p_j, p_k) + pull MSE(c_k, 1/K), both means
    over elements, and through a softmax, which is what keeps it from ending at k alone.

    Args:
        coefficients: c [K, K], float64, each row on the simplex.
        probs: What clients say [K, N, C], rows of the simplex.
        pull: The paper's rho >= 0.
        step: Mean absolute size of a row's step, >= 0.
        sharpness: Of the softmax.

    Returns:
        softmax(sharpness (c_k - step g_k / mean |g_k|)) of each row k.

    Reference: KT-pFL, section 3.2 and the authors' code.
    """
    said, equal = probs.double().flatten(1), 1 / len(probs)
    gradient = (coefficients @ said - said) @ said.T / said.shape[1]
    gradient = 2 * (gradient + pull * (coefficients - equal) / len(probs))
    size = gradient.abs().mean(1, keepdim=True).clamp_min(1e-12)  # below it is rounding
    return (sharpness * (coefficients - step * gradient / size)).softmax(1)


class KTpFL(BaseStrategy):
    """Clients of any architecture learn mixtures of each other's soft labels, each its own."""

    has_student = False
    any_shape = True
    sends_targets = True

    def __init__(
        self,
        *,
        proxy: Dataset,
        num_clients: int,
        seed: int,
        loss: DistillationLoss,
        temperature: Annotated[float, "> 0"] = 10.0,
        digest_epochs: Annotated[int, ">= 0"] = 1,
        examples: Annotated[int, ">= 1"] = 5000,
        fraction: Annotated[float, "in (0, 1]"] = 1.0,
        pull: Annotated[float, ">= 0"] = 1.0,
        step: Annotated[float, ">= 0"] = 0.01,
        sharpness: Annotated[float, ">= 0"] = 5.0,
    ) -> None:
        """Begin with equal coefficients.

        Args:
            proxy: What clients answer; a task of classes.
            num_clients: K.
            seed: The run's seed.
            loss: What clients minimise to imitate their targets, at the temperature.
            temperature: T > 0 of answers and loss.
            digest_epochs: Of that imitation, before local training, >= 0.
            examples: Of the proxy set, drawn anew in each round; all if there are fewer; >= 1.
            fraction: Share of the clients in a round's cohort, in (0, 1]. The coefficients between
                these are learned, within what a row gives to all of them.
            pull: As in `learned_coefficients`.
            step: As there.
            sharpness: As there, >= 0; with 0 all are trusted alike.

        Raises:
            ValueError: A number is out of range, or the task has no classes.
        """
        ranges = {
            "temperature": (temperature, 0 < temperature < math.inf, "> 0"),
            "digest_epochs": (digest_epochs, digest_epochs >= 0, ">= 0"),
            "examples": (examples, examples >= 1, ">= 1"),
            "fraction": (fraction, 0 < fraction <= 1, "in (0, 1]"),
            "pull": (pull, 0 <= pull < math.inf, ">= 0"),
            "step": (step, 0 <= step < math.inf, ">= 0"),
            "sharpness": (sharpness, 0 <= sharpness < math.inf, ">= 0"),
        }
        for name, (value, fits, expected) in ranges.items():
            if not fits:
                raise ValueError(f"strategy.{name}={value}: expected {expected}")
        if not proxy.task.soft:
            raise ValueError(f"KTpFL mixes soft labels, and {proxy.name} has numbers")
        if isinstance(loss, Objective) and loss.anchors:
            raise ValueError(f"strategy.loss: anchor '{loss.anchors[0]}': expected none")
        self._numbers = {"temperature": temperature, "digest_epochs": digest_epochs}
        digest = of_examples(with_temperature(loss, temperature), proxy.task)
        handler = predictions(digest=digest)[0]
        assert handler.fault is not None, "answers are judged"
        self._asks = replace(handler, fault=partial(_partial_answers, before=handler.fault))
        self.handlers = (self._asks, EVALUATE_OWN)
        self._proxy, self._seed, self._fraction = proxy, seed, fraction
        self._examples = min(examples, len(proxy))
        self._learned = partial(learned_coefficients, pull=pull, step=step, sharpness=sharpness)
        equal = torch.full((num_clients, num_clients), 1 / num_clients, dtype=torch.float64)
        self._coefficients, self._latest = equal, Parameters()
        self._cohort, self._ids = list[int](), np.arange(0)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send each client its mixture of what the round before said; ask about fresh examples."""
        rng = named_generator(self._seed, Purpose.CHUNKS, f"ktpfl {server_round}")
        ids, task = np.sort(rng.permutation(len(self._proxy))[: self._examples]), self._proxy.task
        request = PredictionRequest(
            server_round=server_round,
            num_inputs=len(ids),
            num_classes=task.num_classes,
            sites=task.sites,
            proxy_ids=ids,
            **cast(Any, self._numbers),
        )
        nodes = cohort_of(grid, fraction=self._fraction, seed=self._seed, server_round=server_round)
        bare = write_request(request)
        messages = []
        for node_id in nodes:
            content = bare  # one object for all, which go in one group
            if self._latest:
                own = self._targets(client_id_of(node_id))
                told = replace(request, targets=own, digest_ids=self._latest["ids"])
                content = write_request(told)
            messages.append(Message(content, node_id, self._asks.kind))
        self._cohort = [client_id_of(node_id) for node_id in nodes]
        self._ids = ids
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Learn the coefficients between those who answered; keep what they said."""
        answers = read_predictions(replies)
        if answers is None:
            self._cohort = []
            return None, None
        self._cohort = [*answers.client_ids]
        probs = (answers.logits / self._numbers["temperature"]).softmax(-1)
        among = np.ix_(self._cohort, self._cohort)
        with threads_of_torch(1):  # so that sums are rounded alike on any machine
            own = self._coefficients[among]
            mass = own.sum(1, keepdim=True)
            self._coefficients[among] = mass * self._learned(own / mass, probs)
        of_whom = np.array(self._cohort)
        self._latest = {"probs": probs.numpy(), "clients": of_whom, "ids": self._ids}
        trust = float(self._coefficients[among].diagonal().mean())
        return None, MetricRecord({"num-teachers": len(self._cohort), "own-coefficient": trust})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the clients whose answers were used to measure their networks."""
        content = RecordDict({CONFIG: ConfigRecord({"server-round": server_round})})
        return [Message(content, node_id_of(k), EVALUATE_OWN.kind) for k in self._cohort]

    def state(self) -> RecordDict:
        """Return the coefficients, and the answers that the next targets are mixed of."""
        there = {"coefficients": self._coefficients.numpy(), **self._latest}
        return RecordDict({KNOWLEDGE: write_arrays(there)})

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        there = {n: a.copy() for n, a in read_arrays(cast(ArrayRecord, state[KNOWLEDGE])).items()}
        self._coefficients = torch.from_numpy(there.pop("coefficients"))
        self._latest = there

    def _targets(self, client_id: int) -> npt.NDArray[np.float32]:
        """Mix a client's targets of the latest answers, by its row among those who gave them."""
        row = self._coefficients[client_id, self._latest["clients"]]
        probs = torch.from_numpy(self._latest["probs"])
        with threads_of_torch(1):
            mixed = torch.tensordot(row / row.sum(), probs.double(), 1)
        targets: npt.NDArray[np.float32] = self._proxy.task.by_input(mixed.float()).numpy()
        return targets


def _partial_answers(
    request: Message, reply: Message, *, before: Callable[[Message, Message], str | None]
) -> str | None:
    """Refuse answers to some of the examples, beside what is refused anyway."""
    if found := before(request, reply):
        return found
    mask = read_arrays(cast(ArrayRecord, reply.content[PREDICTIONS])).get("mask")
    if mask is None or mask.all():
        return None
    return f"it answers for {int(mask.sum())} of {len(mask)} examples, expected all"
