"""Batches of a group of clients that train in the same steps: what each of them sees in each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.seeding import torch_seed
from clients.training.batches import passes

Indices = npt.NDArray[np.int64]
View = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


@dataclass
class Step:
    """What every client does in one step.

    Attributes:
        positions: Which of its examples each client sees [G, B]; behind those that count its first
            one again, so that padding brings nothing into a forward pass that is not there already.
        counts: How many count [G].
        epochs: Which epoch each client is in [G].
    """

    positions: Indices
    counts: Indices
    epochs: Indices


def schedule(
    sizes: Sequence[int],
    rngs: Sequence[np.random.Generator],
    batch_size: int,
    *how_long: Any,
) -> Iterator[Step]:
    """Draw every client's batches as `train` does; leave out those behind the last who trains."""
    plans: list[list[tuple[int, Indices]]] = []
    for size, rng in zip(sizes, rngs, strict=True):
        torch_seed(rng)  # what `train` gives to torch's generator, from which nothing here draws
        epochs = enumerate(passes(size, batch_size, rng, *how_long))
        plans.append([(epoch, batch) for epoch, order in epochs for batch in order])
    for number in range(max(len(plan) for plan in plans)):
        members = 1 + max(i for i, plan in enumerate(plans) if len(plan) > number)
        # The epoch of a client without a step matters as little as the position: it counts nothing.
        current = [p[number] if len(p) > number else (0, p[0][1][:0]) for p in plans[:members]]
        counts = np.array([len(batch) for _, batch in current])
        positions = np.zeros((members, counts.max()), dtype=np.int64)
        for row, (_, batch) in zip(positions, current, strict=True):
            row[: len(batch)] = batch
            row[len(batch) :] = batch[:1] if len(batch) else 0
        yield Step(positions, counts, np.array([epoch for epoch, _ in current]))


def as_seen(
    steps: Sequence[Step],
    views: Sequence[View | None],
    number: int,
    inputs: npt.NDArray[Any],
) -> npt.NDArray[Any]:
    """Show each client its inputs [G*B, ...] as it sees them; those that pad are its first again.

    Of padding a view would draw, and what a client sees depend on who trains beside it.
    """
    step = steps[number]
    parts = np.split(inputs, len(step.counts))
    for part, count, view in zip(parts, step.counts, views, strict=False):
        if view is not None and count:
            part[:count] = view(np.ascontiguousarray(part[:count]))
            part[count:] = part[:1]
    return inputs


class Examples:
    """Whose examples of the data set those of G clients are, and what the loss compares with."""

    def __init__(
        self, indices: Sequence[Indices], targets: Sequence[Tensor], device: torch.device
    ) -> None:
        padded = [torch.from_numpy(np.array(own)) for own in indices]
        self.indices = nn.utils.rnn.pad_sequence(padded, batch_first=True).numpy()
        self.targets = nn.utils.rnn.pad_sequence(list(targets), batch_first=True).to(device)

    def of(self, positions: Indices) -> Indices:
        """Look up the examples at positions [G, B], one client behind the other [G*B]."""
        members = np.arange(len(positions))[:, None]
        rows: Indices = self.indices[members, positions].ravel()
        return rows

    def learned(self, positions: Indices) -> tuple[Tensor, Tensor]:
        """Look up the targets at positions [G, B]: [G, B] or [G, B, C]; and give the positions."""
        members = torch.arange(len(positions), device=self.targets.device)[:, None]
        rows = torch.from_numpy(positions).to(self.targets.device)
        return self.targets[members, rows], rows
