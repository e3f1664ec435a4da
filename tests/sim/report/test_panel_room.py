"""A panel of the report: its numbers, and what they all are times, are inside of it."""

import numpy as np
import pytest

from sim.report.drawing import Curve, curves


@pytest.mark.parametrize(
    ("values", "percent"),
    [
        ((0.1, 0.9), True),
        ((0.99, 0.9902), True),
        ((0.99991, 0.99992), True),
        ((2.30101, 2.30104), False),
        ((12.3456e6, 12.3457e6), False),
        ((98765.4, 98765.6), False),
        ((1e-5, 3e-5), False),
        ((-0.00025, 0.0002), False),
    ],
)
def test_numbers_are_inside(values: tuple[float, float], percent: bool) -> None:
    line = Curve(np.array([1.0, 2.0]), np.array(values))
    figure = curves("student accuracy", [line], "round", percent)
    box = figure.get_tightbbox()  # in inches
    width, height = figure.get_size_inches()
    assert 0 <= box.x0 < box.x1 <= width
    assert 0 <= box.y0 < box.y1 <= height
