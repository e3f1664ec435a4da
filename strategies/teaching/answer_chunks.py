"""Answers to the proxy set chunk by chunk, the next one while the last is being used."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch
from flwr.app import Message
from flwr.serverapp import Grid
from torch import Tensor

from clients.handlers.base import Handler
from clients.messages.accumulator import Folding, Reducer
from clients.messages.answers import Answers, Stacked, rows_at, rows_of, stack
from clients.messages.field import NO_FIELDS, Fields
from clients.messages.requests import PredictionRequest, write_request
from strategies.aggregation.ensemble import Ensemble
from strategies.aggregation.streaming import Part, gather, read_part
from strategies.teaching.proxy_split import ProxySplit

Chunk = TypeVar("Chunk")

TEACHERS_AT_ONCE = 64
"""How many teachers' answers are in one place at a time, where they can be summed but the grid does
not do it. Fixed, since how sums are grouped is part of the bits."""


def ahead(ask: Callable[[int], Chunk], number: int, overlap: bool) -> Generator[Chunk]:
    """Yield `ask(0)`, ..., `ask(number - 1)`, in this order.

    Args:
        ask: Makes one; called for one at a time.
        number: How many.
        overlap: Make each in a thread, while the one before is being used; else when its turn
            comes.

    Yields:
        What `ask` returned.
    """
    if not overlap:
        yield from map(ask, range(number))
        return
    with ThreadPoolExecutor(1) as helper:
        coming = helper.submit(ask, 0)
        for following in range(1, number):
            made = coming.result()
            coming = helper.submit(ask, following)
            yield made
        yield coming.result()


def to_each(node_ids: list[int], request: PredictionRequest, asks: Handler) -> list[Message]:
    """Address a request to each node; `asks` is the handler that answers."""
    content = write_request(request)  # one object for all: the grid shares equal payloads
    return [Message(content, dst_node_id=node, message_type=asks.kind) for node in node_ids]


def answers_to(
    messages: list[Message], grid: Grid, reducer: Reducer | None, fields: Fields = NO_FIELDS
) -> Part | Answers | None:
    """Send requests; return all answers, or their sums where a reducer makes them.

    Args:
        messages: One per teacher.
        grid: Where they go.
        reducer: None = all answers are wanted.
        fields: What is asked for beside logits and a discriminator's probabilities.

    Returns:
        None if there is no usable reply.
    """
    if isinstance(grid, Folding):
        return gather(grid.send_and_fold(messages, reducer), fields)
    if reducer is None:
        return gather(grid.send_and_receive(messages), fields)
    parts = []
    for start in range(0, len(messages), TEACHERS_AT_ONCE):
        replies = grid.send_and_receive(messages[start : start + TEACHERS_AT_ONCE])
        if contents := [reply.content for reply in replies if reply.has_content()]:
            parts.append(reducer.fold(contents))
    return read_part(reducer.merge(parts)) if parts else None


def on_probes(
    split: ProxySplit, ensembles: list[Ensemble | None]
) -> tuple[Answers, Tensor, Tensor]:
    """Put the probe examples of all chunks together.

    Args:
        split: Of the proxy set.
        ensembles: One per chunk, None where nobody answered; the first one's teachers are the
            round's.

    Returns:
        Their answers [K, P], weights [K, P] and targets [P, C], in the order of `split.probe_ids`.
        A teacher that did not answer a chunk is masked there.
    """
    whole = ensembles[0]
    assert whole is not None, "a round without an answer ends before this"
    if len(ensembles) == 1:
        rows = rows_at(torch.from_numpy(split.probes[0]), whole.teachers.sites)
        return whole.teachers, whole.weights, whole.targets[rows]
    first, ids = whole.teachers, torch.from_numpy(split.probe_ids)
    sites = first.sites
    shape, num_classes = (len(first.client_ids), len(ids) * sites), first.logits.shape[-1]
    logits, mask = torch.zeros(*shape, num_classes), torch.zeros(shape, dtype=torch.bool)
    own, weights, targets = (
        torch.zeros(shape),
        torch.zeros(shape),
        torch.zeros(shape[1], num_classes),
    )
    row_of = {client_id: row for row, client_id in enumerate(first.client_ids)}
    places = []
    for chunk, probe, ensemble in zip(split.chunks, split.probes, ensembles, strict=True):
        if ensemble is None:
            continue
        there = ensemble.teachers
        columns = torch.searchsorted(ids, torch.from_numpy(chunk[probe]))
        whose = torch.tensor([row_of[client_id] for client_id in there.client_ids])
        places.append((there, whose, columns))
        rows = rows_at(columns, sites)
        at = whose[:, None], rows
        logits[at], mask[at], weights[at] = there.logits, there.mask, ensemble.weights
        if there.own_probs is not None:
            own[at] = there.own_probs
        targets[rows] = ensemble.targets[rows_at(torch.from_numpy(probe), sites)]
    together = replace(
        first,
        logits=logits,
        mask=mask,
        own_probs=None if first.own_probs is None else own,
        per_input=_fields_on_probes(first, shape[1], places),
    )
    return together, weights, targets


def _fields_on_probes(
    first: Answers, num_probes: int, places: list[tuple[Answers, Tensor, Tensor]]
) -> dict[str, Stacked]:
    """Put the fields of all chunks together: of each its answers, whose row, which columns."""
    found: dict[str, Stacked] = {}
    for name, array in first.per_input.items():
        # Of each site, or of each input, as the first chunk that has probe examples tells.
        some = next((each for each, _, columns in places if len(columns)), first)
        of_sites = all(len(own) == some.mask.shape[1] for own in rows_of(some.per_input[name]))
        sites = first.sites if of_sites else 1
        length = num_probes // first.sites * sites
        rows = [own.new_zeros(length, *own.shape[1:]) for own in rows_of(array)]
        for answers, whose, columns in places:
            for row, own in zip(whose.tolist(), rows_of(answers.per_input[name]), strict=True):
                if own.shape[1:] == rows[row].shape[1:]:  # a client may say another size
                    rows[row][rows_at(columns, sites)] = own
        found[name] = stack(rows)
    return found
