"""Histograms of TensorBoard: bins of values however near to each other."""

import math
from pathlib import Path

import numpy as np
import pytest

from sim.tracking.tensorboard_run import bin_edges
from sim.tracking.tracker import Tracker
from tests.exchanges import exchange
from tests.tracked_runs import events_of, report


@pytest.mark.parametrize("scale", [1.0, 1e-30, -7e20, 0.0])
def test_values_that_differ_by_rounding_only_have_a_histogram(tmp_path: Path, scale: float) -> None:
    """numpy refuses thirty bins where there is no room for thirty numbers, and the run ended."""
    values = [scale, math.nextafter(scale, math.inf), scale]
    assert (np.diff(bin_edges(np.array(values), 30)) > 0).all()
    tracker = Tracker(tmp_path, {}, "")
    tracker.round(report(1, [exchange(k, metrics={"loss": v}) for k, v in enumerate(values)]))
    tracker.close()
    (event,) = events_of(tmp_path).Histograms("2 clients/loss")
    assert sum(event.histogram_value.bucket) == 3


def test_the_bins_reach_from_the_least_to_the_largest_value() -> None:
    assert bin_edges(np.array([3.0, 1.0, 2.0]), 2).tolist() == [1.0, 2.0, 3.0]
