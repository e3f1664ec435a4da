"""The conformance kit finds what is wrong: each check of it is failed by a seeded fault."""

import re
from typing import Any

import pytest

from run import engine_points
from strategies.conformance.checks import verdicts
from strategies.conformance.points import POINTS
from tests import faulty_clients, faulty_protocols, faulty_rules

CHECKS = {point.kind: point.checks for point in (*POINTS, *engine_points())}
FAULTS = [*faulty_rules.FAULTS, *faulty_clients.FAULTS, *faulty_protocols.FAULTS]
FOUND: set[tuple[str, str]] = set()
"""Kind and contract of each check that failed."""


@pytest.mark.parametrize(
    ("kind", "plugin", "said"), FAULTS, ids=[f"{kind}-{n}" for n, (kind, *_) in enumerate(FAULTS)]
)
def test_a_fault_is_told_by_a_line(kind: str, plugin: Any, said: str) -> None:
    found = [verdict for verdict in verdicts(plugin, CHECKS[kind]) if verdict.fault]
    FOUND.update((kind, verdict.ought) for verdict in found)
    assert any(re.search(said, str(verdict)) for verdict in found), [*map(str, found)]


def test_each_check_can_fail() -> None:
    """After the others of this file, by the faults above."""
    for kind, plugin, _ in FAULTS if not FOUND else ():
        FOUND.update((kind, v.ought) for v in verdicts(plugin, CHECKS[kind]) if v.fault)
    ought = {(kind, v.ought) for kind, checks in CHECKS.items() for v in verdicts(None, checks)}
    assert ought - FOUND == set()
