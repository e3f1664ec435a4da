"""The contract of every condition found in conf/, and of yours: see tests/test_plugins.py."""

import pytest

from strategies.conformance.checks import verdicts
from strategies.conformance.points import POINTS
from tests.plugins import CONDITIONS

(CHECKS,) = (point.checks for point in POINTS if point.kind == "condition")


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_keeps_the_contract(name: str) -> None:
    assert [str(verdict) for verdict in verdicts(CONDITIONS[name], CHECKS) if verdict.fault] == []
