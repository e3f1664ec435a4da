"""Is a client as often right as it is sure?"""

import pytest

from sim.analysis.probes import calibration
from tests.views import labelled


def test_calibration_by_hand() -> None:
    found = calibration(labelled())
    # Sure .9 and right 3 of 4; sure .6 and right 1 of 4; the student sure .9 and right 2 of 4.
    assert found["ece"].values.tolist() == pytest.approx([0.15, 0.35])
    assert found["overconfidence"].values.tolist() == pytest.approx([0.15, 0.35])
    assert found["student_ece"] == pytest.approx(0.4)
    assert found["ensemble_ece"] == pytest.approx(0.05)
    assert found["confidence_right"] == pytest.approx((3 * 0.9 + 0.6) / 4)
    assert found["confidence_wrong"] == pytest.approx((0.9 + 3 * 0.6) / 4)
    lines = found["reliability"].lines
    assert [pytest.approx([0.6, 0.9]), pytest.approx([0.25, 0.75])] == [
        axis.tolist() for axis in lines["clients"]
    ]
