"""Answering: what one client after the other says of shared inputs, field by field."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Context, Message, RecordDict
from torch import nn

from clients.data import Dataset
from clients.execution.executor import Answered
from clients.execution.isolation import Original, is_ours, keeps_nothing
from clients.execution.model_cache import Tensors, arrays_of
from clients.execution.shape_variants import in_turn
from clients.handlers.state import client_of
from clients.messages.field import Fields
from clients.messages.field_source import Asked, asked_about, key_of
from clients.messages.replies import PredictionReply, write_reply
from clients.messages.requests import PredictionRequest, crc32_of
from clients.models.factory import build
from clients.population.clients import SimulatedClients
from clients.population.views import Seeing
from clients.seeding import Purpose, stream
from clients.training.evaluation import measured


def answer(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    networks: Sequence[Tensors | Exception],
    asked: PredictionRequest,
    metrics: Mapping[int, dict[str, float]],
    device: str,
    known: Fields,
) -> Iterator[Message | Exception]:
    """Answer the inputs of a request, all clients the same ones.

    Args:
        clients: All of the federation's.
        requests: One for each client that answers.
        contexts: Theirs; fields may put something into their state.
        networks: Theirs, or what kept each from one.
        asked: What the requests say.
        metrics: To send along, by client id.
        device: Where to compute.
        known: Fields that can be asked for beside logits and a discriminator's probabilities.

    Yields:
        For each client in turn its reply, or what kept it from one.
    """
    dataset = (
        clients.splits.tested(asked.server_round)
        if asked.proxy_ids is None
        else clients.splits.proxy
    )
    ids, fields = _ids_of(asked, dataset), asked.asks(known)
    phase: Seeing = "test" if asked.proxy_ids is None else "answer"
    seen = [clients.seen(dataset, client_of(c), phase, asked.server_round) for c in contexts]
    taps = sorted({tap for each in fields.values() for tap in each.taps})
    answered = answers_of(clients, contexts, networks, (dataset, ids), seen, taps, device)
    watched = any(not is_ours(each.of) for each in fields.values())
    for request, context, network in zip(requests, contexts, networks, strict=True):
        if isinstance(network, Exception):
            yield network
        elif isinstance(item := next(answered), Exception):
            yield item
        else:
            lent = _Lent(clients, context, network, device, watched)
            about = _asked(clients, context, lent, asked, (dataset, ids, phase), item)
            known_of = metrics.get(about.client_id, {})
            yield _reply(clients, request, lent, about, asked, fields, known_of)


def answers_of(
    clients: SimulatedClients,
    contexts: Sequence[Context],
    networks: Sequence[Tensors | Exception],
    examples: tuple[Dataset, npt.NDArray[np.int64]],
    seen: Sequence[Dataset],
    taps: Sequence[str],
    device: str,
) -> Iterator[Answered | Exception]:
    """Let those who have a network answer the same examples, networks of one shape together.

    Args:
        clients: All of the federation's.
        contexts: Of clients of one architecture.
        networks: Theirs, or what kept each from one.
        examples: The data set, and which of its examples [N].
        seen: The data set as each sees it.
        taps: Places whose features are wanted, too.
        device: Where.

    Returns:
        Of each that has one in turn what it answers, or what kept it from an answer.
    """
    place, able = clients.place(device), list[tuple[Tensors, Dataset]]()
    names = []
    for context, network, own in zip(contexts, networks, seen, strict=True):
        if not isinstance(network, Exception):
            able.append((network, own))
            names.append(clients.network_of(client_of(context)))

    def run(name: str, few: Sequence[tuple[Tensors, Dataset]]) -> Iterator[Answered | Exception]:
        sees = [] if clients.view is None else [own for _, own in few]
        return place.answers(name, [network for network, _ in few], *examples, taps, sees)

    return in_turn(names, able, run)


def rehearse_fields(
    clients: SimulatedClients,
    fields: Fields,
    section: str = "strategy.ask",
    negative_ids: npt.NDArray[np.int64] | None = None,
) -> None:
    """Let a network of each architecture say fields of two examples, before anybody trains.

    Args:
        clients: All of the federation's.
        fields: What they will be asked for beside logits.
        section: Of the config, for errors.
        negative_ids: Proxy examples to tell own ones from; None = there are none.

    Raises:
        ValueError: One cannot; names the field and the architecture.
    """
    private, ids = clients.splits.private, np.arange(2)
    fields = deepcopy(dict(fields))  # a state must not see a try
    for name, model in clients.models.items():
        rng = np.random.default_rng(0)
        network = build(model, private.task, rng)
        for key, each in fields.items():
            try:
                about = asked_about(
                    network,
                    private,
                    ids,
                    each.taps,
                    indices=ids,
                    proxy=clients.splits.proxy,
                    negative_ids=negative_ids,
                )
                each.said(key, about)
            except ValueError as error:
                raise ValueError(f"{section}.{key}: architecture '{name}': {error}") from error


def _asked(
    clients: SimulatedClients,
    context: Context,
    lent: "_Lent",
    asked: PredictionRequest,
    inputs: tuple[Dataset, npt.NDArray[np.int64], Seeing],
    answered: Answered,
) -> Asked:
    """Put together what a client's fields are made of."""
    client_id = client_of(context)
    key = clients.seed, Purpose.FIELD, asked.server_round, client_id
    crc32 = crc32_of(asked.proxy_ids)
    own = clients.partitions[client_id].view()
    own.flags.writeable = False
    sets: dict[str, tuple[Dataset, Seeing]] = {
        "asked": (inputs[0], inputs[2]),
        "private": (clients.splits.private, "answer"),
        "proxy": (clients.splits.proxy, "answer"),
    }

    def look(which: str) -> Dataset:
        dataset, phase = sets[which]
        return clients.seen(dataset, client_id, phase, asked.server_round)

    return Asked(
        client_id=client_id,
        server_round=asked.server_round,
        logits=answered.logits,
        taps=answered.taps,
        look=look,
        ids=inputs[1],
        indices=own,
        labels=partial(clients.labels, client_id, asked.server_round),
        negative_ids=asked.negative_ids,
        network=lent,
        state=context.state,
        rng=lambda field: np.random.default_rng(stream(*key, key_of(field, crc32))),
    )


def _reply(
    clients: SimulatedClients,
    request: Message,
    lent: "_Lent",
    about: Asked,
    asked: PredictionRequest,
    fields: Fields,
    metrics: dict[str, float],
) -> Message | Exception:
    """Say what one client answers, and how sure it may be of it."""
    try:
        said = lent.said(about, fields)
        reply = PredictionReply(
            server_round=asked.server_round,
            client_id=about.client_id,
            inputs_crc32=crc32_of(asked.proxy_ids),
            num_examples=len(about.indices),
            logits=said.pop("logits"),
            own_probs=said.pop("own_probs", None),
            mask=None,
            metrics=metrics,
            answers=asked.answers,
            parameters=arrays_of(lent.parameters) if asked.send_parameters else None,
            architecture=clients.architectures[about.client_id],
            fields=said,
            sites=asked.sites,
        )
        if asked.proxy_ids is None:
            values = measured(torch.from_numpy(reply.logits), about.dataset)
            reply.metrics.update(values)
        codecs = {f"field '{name}': its codec": each.codec for name, each in fields.items()}
        with keeps_nothing(**{name: each for name, each in codecs.items() if not is_ours(each)}):
            content = write_reply(reply, fields, about.rng)
        return Message(content, reply_to=request)
    except Exception as error:  # the client's, not the group's
        return error


class _Lent:
    """A client's network, lent to fields; what a function that is not ours does to it is undone."""

    def __init__(
        self,
        clients: SimulatedClients,
        context: Context,
        parameters: Tensors,
        device: str,
        watched: bool,
    ) -> None:
        self.parameters = parameters
        self._networks = clients.place(device).networks
        self._name = clients.network_of(client_of(context))
        self._watched = watched
        self._original: Original | None = None

    def __call__(self) -> nn.Module:
        network = self._networks.loaded(self._name, self.parameters)
        if self._watched and self._original is None:
            self._original = Original(network)
        return network

    def said(self, about: Asked, fields: Fields) -> dict[str, npt.NDArray[Any]]:
        """Have all fields said; ValueError names a module of the network that was exchanged."""
        logits = fields["logits"].said("logits", about)
        said = {"logits": logits.copy() if self._watched else logits}
        fault = None
        try:
            for name, each in fields.items():
                if name != "logits":
                    watched = {f"field '{name}'": each.of} if self._watched else {}
                    with keeps_nothing(**watched), _own_records(about.state, name) as state:
                        said[name] = each.said(name, replace(about, state=state))
        finally:
            if self._original is not None:
                fault = self._original.exchanged()
                self._original.put_back()
        if fault:
            raise ValueError(f"a field's function changed its network: {fault}")
        return said


@contextmanager
def _own_records(state: RecordDict, field: str) -> Iterator[RecordDict]:
    """Lend a field records of its own of a client's state: a "model" of its is not the network."""
    head = f"field.{field}."
    own = RecordDict({n.removeprefix(head): state[n] for n in state if n.startswith(head)})
    yield own
    for name in [name for name in state if name.startswith(head)]:
        del state[name]
    for name, record in own.items():
        state[head + name] = record


def _ids_of(request: PredictionRequest, dataset: Dataset) -> npt.NDArray[np.int64]:
    """Say which examples of a data set a request asks about: those it names, or all."""
    return np.arange(len(dataset)) if request.proxy_ids is None else request.proxy_ids
