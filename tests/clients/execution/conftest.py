"""Fixtures of those that compare clients trained together with clients trained one by one."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

import clients.data.batches_to_device
from clients.data import Dataset, normalised


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As in a worker; where others want the second core too, waiting for it takes the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are given float64 inputs: what is left of a difference is no rounding."""

    def double(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
        return normalised(dataset, indices).astype(np.float64)

    monkeypatch.setattr(clients.data.batches_to_device, "normalised", double)
