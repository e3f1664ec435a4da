"""What a person sees while a run goes on."""

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from clients.partition.summary import summary
from sim.tracking.console import Display


def test_how_long_the_rest_will_take_is_said_after_two_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    display = Display(5, ["mlp", "mlp"], summary(np.array([0, 1, 0, 1]), [[0, 1], [2, 3]], 2))
    bars: Any = display._progress
    bars.stop()
    monkeypatch.setattr(bars, "get_time", lambda: now)
    for task in bars.tasks:
        task._get_time = bars.get_time
    seen = io.StringIO()
    console = Console(file=seen, width=120)
    for number in (1, 2, 3):
        display.round(
            {"round": number, "student": {}, "strategy": {}, "clients": {}, "failures": 0}, ""
        )
        now += 10
    console.print(bars.make_tasks_table(bars.tasks))
    assert "3/5" in seen.getvalue()
    assert "left 0:00:20" in seen.getvalue()  # two rounds of ten seconds
