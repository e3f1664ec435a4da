"""Drawing a cohort: its law, its bits, and that nobody lists the population for it."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.messages.requests import node_id_of
from clients.seeding import Purpose, generator
from strategies.cohorts import draw


@pytest.mark.parametrize(
    ("num_clients", "fraction", "seed", "server_round", "expected"),
    [
        (20, 0.5, 0, 1, [0, 1, 2, 3, 4, 6, 10, 11, 13, 16]),
        (1000, 0.01, 3, 7, [127, 158, 169, 268, 462, 475, 528, 743, 833, 842]),
        (20_000, 0.0002, 3, 2, [1363, 3903, 11119, 18509]),
    ],
)
def test_cohorts_stay_as_they_were(
    num_clients: int, fraction: float, seed: int, server_round: int, expected: list[int]
) -> None:
    """Recorded when a strategy listed and sorted all ids."""
    ids = range(node_id_of(0), node_id_of(num_clients))
    drawn = draw(ids, fraction, generator(seed, Purpose.COHORT, server_round))
    assert drawn == [node_id_of(client) for client in expected]
    assert {type(node) for node in drawn} == {int}


@settings(max_examples=100, deadline=None)
@given(
    number=st.integers(1, 200),
    step=st.integers(-3, 3).filter(bool),
    fraction=st.floats(0.001, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_cohort_does_not_depend_on_how_ids_are_listed(
    number: int, step: int, fraction: float, seed: int
) -> None:
    ids = range(7, 7 + step * number, step)
    drawn = draw(ids, fraction, np.random.default_rng(seed))
    shuffled = np.random.default_rng(seed + 1).permutation(list(ids)).tolist()
    assert draw(shuffled, fraction, np.random.default_rng(seed)) == drawn
    assert draw(iter(shuffled), fraction, np.random.default_rng(seed)) == drawn
    assert drawn == sorted(set(drawn))
    assert len(drawn) == max(1, round(fraction * number))
    assert set(drawn) <= set(ids)


def test_a_million_million_clients_are_not_listed() -> None:
    drawn = draw(range(10**12), 1e-10, np.random.default_rng(0))
    assert len(set(drawn)) == 100
    assert max(drawn) > 9e11  # 0.9**100 = 3e-5


def test_every_client_is_as_likely_as_any_other() -> None:
    """Drawn 20,000 times with probability 1/4: 5,000 +- 61, and five times that at most."""
    rng = np.random.default_rng(0)
    times = Counter(node for _ in range(20_000) for node in draw(range(12), 0.25, rng))
    assert max(abs(times[node] - 5000) for node in range(12)) < 5 * 61.3


@pytest.mark.parametrize(
    ("ids", "fraction"), [([], 0.5), ([3], 0.0), ([3], 1.1), ([3], float("nan"))]
)
def test_impossible_cohorts_are_refused(ids: list[int], fraction: float) -> None:
    with pytest.raises(ValueError, match=f"fraction={fraction} of {len(ids)} clients"):
        draw(ids, fraction, np.random.default_rng(0))
