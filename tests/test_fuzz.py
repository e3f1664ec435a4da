"""One client answers oddly, through every strategy: named or harmless, and the run goes on."""

import logging
import warnings

import pytest

from tests.fuzzing import NAMES, attempt, tried

OFTEN = ("dlad", "fedavg", "FedAvg", "QFedAvg", "dml", "gossip", "fd", "defkt", "fedgkt", "scarlet")
"""What the others are sent is read by the same functions; they are tried with the slow tests."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in OFTEN else pytest.mark.slow) for n in NAMES]
)
def test_an_odd_answer_is_a_failure_with_a_name_and_ends_nothing(name: str) -> None:
    """Some of the answers that `make fuzz` tries by the thousand."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    verdicts = [attempt(name, seed) for seed in range(2)]
    assert not [(each.rule, each.wrong) for each in verdicts if each.wrong]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_odd_answers_end_no_run_and_leave_no_nan() -> None:
    warnings.simplefilter("error")
    tally = tried(10_000)
    assert not tally.wrong[:3]
    assert sum(counts["refused"] for counts in tally.counts.values()) > 5000
