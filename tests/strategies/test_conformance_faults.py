"""The conformance kit finds what is wrong: each check of it is failed by a seeded fault."""

import re
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from clients.mutual.terms import Terms, supervised
from stillhouse.engine_points import engine_points
from strategies.conformance.checks import Verdict, verdicts
from strategies.conformance.points import POINTS
from tests import faulty_clients, faulty_protocols, faulty_rules, faulty_trainers

CHECKS = {point.kind: point.checks for point in (*POINTS, *engine_points())}
OF_KINDS = faulty_rules, faulty_clients, faulty_protocols, faulty_trainers
FAULTS = [fault for each in OF_KINDS for fault in each.FAULTS]


@cache
def failed(number: int) -> list[Verdict]:
    """Hold one to its contract, once for both tests."""
    kind, plugin, _ = FAULTS[number]
    return [each for each in verdicts(plugin, CHECKS[kind]) if each.fault and not each.untried]


@pytest.mark.parametrize(
    "number", range(len(FAULTS)), ids=[f"{kind}-{n}" for n, (kind, *_) in enumerate(FAULTS)]
)
def test_a_fault_is_told_by_a_line(number: int) -> None:
    lines = [str(verdict) for verdict in failed(number)]
    assert any(re.search(FAULTS[number][2], line) for line in lines), lines


def of_three(labels: Any, num_clients: int, rng: Any) -> Any:
    if num_clients != 3:
        raise ValueError(
            f"of_three: {num_clients} clients, expected 3"  # of several lines
        )
    return np.array_split(rng.permutation(len(labels)), 3)


def taught_in_threes(shared: Any, targets: Any, epoch: int, head: Any) -> Terms:
    if len(shared.logits) != 3:
        raise ValueError(f"taught_in_threes: {len(shared.logits)} peers, expected 3")
    return Terms([supervised(own, targets) for own in shared.logits])


def smoothed_votes(logits: Any, weights: Any, temperature: float) -> Any:
    votes = torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    return 0.9 * torch.einsum("kn,knc->nc", weights, votes) + 0.1 / logits.shape[-1]


@pytest.mark.parametrize(
    ("kind", "plugin"),
    [("partition", of_three), ("rule", taught_in_threes), ("combiner", smoothed_votes)],
    ids=["cut", "rule", "votes"],
)
def test_what_refuses_other_numbers_or_votes_is_as_it_ought_to_be(kind: str, plugin: Any) -> None:
    assert [str(verdict) for verdict in verdicts(plugin, CHECKS[kind]) if verdict.fault] == []


def test_each_check_can_fail() -> None:
    found = {(FAULTS[n][0], verdict.ought) for n in range(len(FAULTS)) for verdict in failed(n)}
    ought = {(kind, v.ought) for kind, checks in CHECKS.items() for v in verdicts(None, checks)}
    assert ought - found == set()
