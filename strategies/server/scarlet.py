"""SCARLET: soft labels that server and clients know already are neither asked for nor sent again.

github.com/kitsuyaazuma/SCARLET: DS-FL with a cache. In each round a share of the proxy examples is
distilled; clients answer only those of which the server's cache has no soft label, or an old one,
and each is sent only the soft labels that its own cache has not. What a client holds is known by
its replies, so that one which was absent catches up.
"""

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import nn

from clients.data import Dataset
from clients.execution.isolation import same_modules
from clients.execution.trainer_calls import require_offered
from clients.handlers.base import SERVER_ROUND, Replies
from clients.handlers.peer_parameters import EVALUATE_OWN
from clients.handlers.predictions import predictions, train_predictions
from clients.handlers.state import kept_arrays
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.field import Fields
from clients.messages.replies import read_predictions
from clients.messages.requests import (
    CONFIG,
    TARGETS,
    PredictionRequest,
    client_id_of,
    node_id_of,
    read_request,
    write_request,
)
from clients.models.factory import Parameters, load_parameters, parameters_of
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, generator, named_generator
from clients.training.loop import Trainer, threads_of_torch
from clients.training.objective import DistillationLoss, Loss, Objective, with_temperature
from clients.training.schedules import of_round
from clients.training.task_objectives import of_examples
from strategies import rule_state
from strategies.aggregation.ensemble import EnsembleRule
from strategies.aggregation.task_compatibility import of_task
from strategies.base import BaseStrategy
from strategies.cohorts import cohort_of
from strategies.teaching.rehearsal import rehearse_loss, rehearse_student

CACHE, IDS, HOLDS = "cache", "ids", "holds"
"""Record of a request: of which proxy examples "targets" are; of a client's state: all it holds; of
the strategy's: all there is, and who holds what."""

Ids = npt.NDArray[np.int64]


def train(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    device: str,
    *,
    fields: Fields,
    digest: Loss | Objective,
) -> Replies:
    """Put new soft labels into the cache, imitate those of the round before, train, answer."""
    content = requests[0].content
    if CACHE in content:
        new = read_arrays(cast(ArrayRecord, content[CACHE]))[IDS]
        asked, targets = read_request(content), np.zeros((0, 0), np.float32)
        assert asked.targets is not None
        assert asked.digest_ids is not None
        for context in contexts:
            targets = _held(context, new, asked.targets, asked.digest_ids)
        told = write_request(replace(asked, targets=targets))  # the same of all: equal contents
        requests = [_with(request, told) for request in requests]
    yield from train_predictions(clients, requests, contexts, device, fields=fields, digest=digest)


def _held(context: Context, new: Ids, targets: Any, wanted: Ids) -> npt.NDArray[np.float32]:
    """Put soft labels into a client's cache; return those of some examples from it."""
    cache = kept_arrays(context, CACHE)
    known = dict(zip(cache[IDS].tolist(), cache[TARGETS], strict=True)) if cache else {}
    known |= dict(zip(new.tolist(), targets, strict=True))
    if lacking := {*wanted.tolist()} - {*known}:
        raise ValueError(f"its cache lacks soft labels of {len(lacking)} proxy examples")
    ids = np.array(sorted(known))
    arrays = {IDS: ids, TARGETS: np.stack([known[each] for each in ids.tolist()])}
    context.state[CACHE] = write_arrays(arrays)
    return np.stack([known[each] for each in wanted.tolist()])


def _with(request: Message, content: RecordDict) -> Message:
    other = copy(request)
    other.content = content
    return other


class Scarlet(BaseStrategy):
    """Clients of any architecture and a student learn soft labels that are kept for some rounds."""

    any_shape = True
    sends_targets = True

    def __init__(
        self,
        *,
        student: nn.Module,
        proxy: Dataset,
        seed: int,
        ensemble: EnsembleRule,
        loss: DistillationLoss,
        distil: Trainer,
        examples: Annotated[int, ">= 1"] = 1000,
        keep_rounds: Annotated[int, ">= 1"] = 50,
        digest_epochs: Annotated[int, ">= 0"] = 5,
        fraction: Annotated[float, "in (0, 1]"] = 1.0,
        student_threads: int | None = None,
    ) -> None:
        """Begin with an empty cache.

        Args:
            student: The global student.
            proxy: What clients answer.
            seed: The run's seed.
            ensemble: How they answer, and what comes of it; without discriminators.
            loss: What clients and student minimise to imitate soft labels, at its temperature.
            distil: Trains the student in each round.
            examples: Of the proxy set that a round distils, drawn anew; all if there are fewer.
            keep_rounds: Rounds in which a soft label is used, that of its answers included, >= 1;
                the authors' D. 1 = no cache.
            digest_epochs: Epochs in which clients imitate soft labels, >= 0.
            fraction: Share of the clients in a round's cohort, in (0, 1].
            student_threads: Of this process, with which the student learns.

        Raises:
            ValueError: A number is out of range, or parts do not go together.
        """
        numbers = {"examples": (examples, 1), "keep_rounds": (keep_rounds, 1)}
        for name, (value, least) in (numbers | {"digest_epochs": (digest_epochs, 0)}).items():
            if value < least:
                raise ValueError(f"strategy.{name}={value}: expected >= {least}")
        if not 0 < fraction <= 1:
            raise ValueError(f"strategy.fraction={fraction}: expected in (0, 1]")
        if ensemble.discriminator is not None:
            raise ValueError("strategy.discriminator: SCARLET's clients fit none: expected none")
        if isinstance(loss, Objective) and loss.anchors:
            raise ValueError(f"strategy.loss: anchor '{loss.anchors[0]}': expected none")
        require_offered(distil, "strategy.distil")
        self.rule, self._task = of_task(ensemble, proxy.task), proxy.task
        rehearse_loss(self.rule, loss, self._task.num_classes, self._task.sites)
        rehearse_student(distil, student, proxy, loss, self.rule)
        self._goal = of_examples(with_temperature(loss, self.rule.temperature), self._task)
        handler = predictions(self.rule.fields, self._goal)[0]
        self._asks = replace(
            handler,
            answer=partial(train, fields=self.rule.fields, digest=self._goal),
            records=(*handler.records, CACHE),
        )
        self.handlers = (self._asks, EVALUATE_OWN)
        self.student, self._proxy, self._seed, self._distil = student, proxy, seed, distil
        self._examples, self._keep = min(examples, len(proxy)), keep_rounds
        self._digest_epochs, self._fraction = digest_epochs, fraction
        self._threads = student_threads
        classes, sites = self._task.num_classes, self._task.sites
        shape = (classes,) if sites == 1 else (sites, classes)
        self._targets = np.zeros((len(proxy), *shape), np.float32)
        self._since = np.zeros(len(proxy), np.int64)  # round of each soft label; 0 = there is none
        self._holds: dict[int, Ids] = {}  # the same of what is in a client's cache
        self._learned = self._chosen = self._missing = np.arange(0)
        self._sent: dict[int, Ids] = {}
        self._rules = {**self.rule.stateful, "loss": loss, "distil": distil}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send each client the soft labels that it lacks; ask for those that the server lacks."""
        load_parameters(self.student, read_arrays(arrays))
        rng = named_generator(self._seed, Purpose.CHUNKS, f"scarlet {server_round}")
        self._chosen = np.sort(rng.permutation(len(self._proxy))[: self._examples])
        since = self._since[self._chosen]
        old = (since == 0) | (server_round - since >= self._keep)
        if not old.any():
            old[since.argmin()] = True  # no reply is without an answer
        self._missing = self._chosen[old]
        request = PredictionRequest(
            server_round=server_round,
            num_inputs=len(self._missing),
            num_classes=self._task.num_classes,
            sites=self._task.sites,
            proxy_ids=self._missing,
            digest_epochs=self._digest_epochs,
            temperature=self.rule.temperature,
            answers=self.rule.sent_as,
            fields=tuple(self.rule.fields),
        )
        contents, messages, self._sent = dict[bytes, RecordDict](), list[Message](), {}
        cohort = cohort_of(
            grid, fraction=self._fraction, seed=self._seed, server_round=server_round
        )
        for node_id in cohort:
            client_id = client_id_of(node_id)
            lacks = self._sent[client_id] = self._lacks(client_id)
            if (key := lacks.tobytes()) not in contents:  # one object for all who lack the same
                contents[key] = self._content(request, lacks)
            messages.append(Message(contents[key], node_id, self._asks.kind))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Put what the answers come to into the cache; teach the student from it."""
        answers = read_predictions(replies, self.rule.fields)
        self._sent = {} if answers is None else {k: self._sent[k] for k in answers.client_ids}
        for client_id, sent in self._sent.items():
            holds = self._holds.setdefault(client_id, np.zeros_like(self._since))
            holds[sent] = self._since[sent]
        if answers is None:
            return None, None
        known = {"ids": self._missing, "phase": "distil"}
        found = self.rule(answers, np.arange(0), False, known)
        covered = self._missing[found.covered_inputs.numpy()]
        self._targets[covered], self._since[covered] = found.targets_by_input.numpy(), server_round
        self._learned = self._chosen[self._since[self._chosen] > 0]
        losses = self._teach(server_round) if len(self._learned) else []
        metrics = {"num-teachers": len(self._sent), "asked-examples": len(self._missing)}
        told = MetricRecord({**metrics})
        if losses:
            told["distillation-loss"] = losses[-1]
        return write_arrays(parameters_of(self.student)), told

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the clients whose answers were used to measure their networks."""
        content = RecordDict({CONFIG: ConfigRecord({SERVER_ROUND: server_round})})
        return [Message(content, node_id_of(k), EVALUATE_OWN.kind) for k in self._sent]

    def state(self) -> RecordDict:
        """Return the cache, what clients hold of it, and what its rules keep."""
        there = {TARGETS: self._targets, "since": self._since, "learned": self._learned}
        state = rule_state.state_of(self._rules)
        state[CACHE] = write_arrays(there)
        state[HOLDS] = write_arrays({str(k): holds for k, holds in self._holds.items()})
        return state

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        there, holds = (_copied(cast(ArrayRecord, state[name])) for name in (CACHE, HOLDS))
        self._targets, self._since = there[TARGETS], there["since"]
        self._learned = there["learned"]
        self._holds = {int(client_id): each for client_id, each in holds.items()}
        rest = {name: each for name, each in state.items() if name not in (CACHE, HOLDS)}
        rule_state.restore(self._rules, RecordDict(rest))

    # --- steps ---

    def _lacks(self, client_id: int) -> Ids:
        """Return which soft labels of the round before a client has not, or has older ones of."""
        if (holds := self._holds.get(client_id)) is None:
            return self._learned
        lacks: Ids = self._learned[holds[self._learned] != self._since[self._learned]]
        return lacks

    def _content(self, request: PredictionRequest, lacks: Ids) -> RecordDict:
        """Write a request, with the soft labels that whoever gets it lacks."""
        if not len(self._learned):
            return write_request(request)
        told = replace(request, targets=self._targets[lacks], digest_ids=self._learned)
        content = write_request(told)
        content[CACHE] = write_arrays({IDS: lacks})
        return content

    def _teach(self, server_round: int) -> list[float]:
        """Let the student imitate the soft labels of a round."""
        rng = generator(self._seed, Purpose.DISTILLATION, server_round)
        distil = partial(self._distil, **of_round(self._distil, server_round))
        targets = torch.from_numpy(self._targets[self._learned])
        what = self._proxy, self._learned, targets, self._goal, rng
        with threads_of_torch(self._threads), same_modules("strategy.distil:", self.student):
            try:
                return distil(self.student, *what)
            except FloatingPointError as error:
                raise FloatingPointError(f"student, round {server_round}: {error}") from error


def _copied(record: ArrayRecord) -> Parameters:
    return {name: array.copy() for name, array in read_arrays(record).items()}
