"""Batches of a data set on their way to a network's device."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.data import Dataset, normalised

Change = Callable[[int, npt.NDArray[Any]], npt.NDArray[Any]]
"""(number of the batch, its inputs) -> inputs of that shape."""


def feed(
    dataset: Dataset,
    batches: Iterable[npt.NDArray[np.int64]],
    device: torch.device,
    change: Change | None = None,
) -> Iterator[Tensor]:
    """Yield the network inputs of each batch.

    For a GPU each batch is copied from pinned memory, while the batch before it is computed with.

    Args:
        dataset: Where the inputs are.
        batches: Which examples, batch by batch.
        device: Where the inputs go.
        change: What is done to them before; None = nothing.

    Yields:
        Inputs [B, channels, height, width], float32.
    """
    taken = (normalised(dataset, batch) for batch in batches)
    if change is not None:
        taken = (change(number, inputs) for number, inputs in enumerate(taken))
    host = map(torch.from_numpy, taken)
    yield from _ahead(host, device) if device.type == "cuda" else host


def _ahead(host: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    copying: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    previous = None
    for inputs in host:
        with torch.cuda.stream(copying):
            copy = inputs.pin_memory().to(device, non_blocking=True)
        if previous is not None:
            yield previous
        torch.cuda.current_stream(device).wait_stream(copying)
        copy.record_stream(torch.cuda.current_stream(device))  # else its memory is reused too soon
        previous = copy
    if previous is not None:
        yield previous
