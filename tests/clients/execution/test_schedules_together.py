"""Clients that train in the same steps, at a schedule and for so many steps."""

from functools import partial
from typing import Any

import pytest
from torch.optim import lr_scheduler

from tests.trained_together import FLOAT32, WAYS, Both, built

TOGETHER: list[dict[str, Any]] = [
    {"steps": 5},
    {"drop_last": True},
    {"scheduler": partial(lr_scheduler.ExponentialLR, gamma=0.8), "scheduler_by": "step"},
]


@pytest.mark.parametrize("numbers", TOGETHER, ids=lambda numbers: next(iter(numbers)))
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("one_thread")
def test_clients_of_unlike_sizes_together_do_what_each_does_alone(way: Any, numbers: Any) -> None:
    both = Both(built("mlp"), way, [21, 12, 7], epochs=2, batch_size=8, **numbers)
    assert both.agree(FLOAT32), both.errors()
