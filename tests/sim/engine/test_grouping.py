"""Groups are cut by the cohort and the config alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.engine.grouping import cut_groups


def test_by_hand() -> None:
    kinds = {0: "a", 1: "b", 2: "a", 3: "a", 4: "b", 5: "a", 6: "a"}
    cost = {0: 5.0, 1: 9.0, 2: 1.0, 3: 4.0, 4: 2.0, 5: 4.0, 6: 8.0}
    # Of kind a by cost: 6, 0, 3, 5, 2, in two even pieces 6 0 | 3 5 2 of 13 and 9; b: 11.
    assert cut_groups(kinds, 3, cost.__getitem__) == [[6, 0], [1, 4], [3, 5, 2]]
    assert cut_groups(kinds, 1, cost.__getitem__) == [[1], [6], [0], [3], [5], [4], [2]]


def test_equal_costs_go_by_client() -> None:
    assert cut_groups(dict.fromkeys((3, 1, 2, 0), "a"), 2, lambda k: 1.0) == [[0, 1], [2, 3]]
    assert cut_groups({}, 2, lambda k: 1.0) == []


@given(
    st.dictionaries(st.integers(0, 50), st.sampled_from("abc")),
    st.integers(1, 8),
    st.lists(st.integers(0, 5), min_size=51, max_size=51),
)
def test_everyone_is_in_one_group_of_its_kind(
    kinds: dict[int, str], largest: int, costs: list[int]
) -> None:
    groups = cut_groups(kinds, largest, lambda k: float(costs[k]))
    assert sorted(k for group in groups for k in group) == sorted(kinds)
    sums = [sum(costs[k] for k in group) for group in groups]
    assert sums == sorted(sums, reverse=True)
    for kind in set(kinds.values()):
        sizes = [len(group) for group in groups if kinds[group[0]] == kind]
        assert max(sizes) <= largest
        assert max(sizes) - min(sizes) <= 1
        assert len(sizes) == -(-sum(sizes) // largest)
    for group in groups:
        assert len({kinds[k] for k in group}) == 1
    shuffled = dict(reversed(kinds.items()))
    assert cut_groups(shuffled, largest, lambda k: float(costs[k])) == groups


def test_the_longest_first_keeps_two_workers_even() -> None:
    costs = {k: 50 + k // 2 for k in range(100)}
    groups = cut_groups(dict.fromkeys(costs, "a"), 5, lambda k: float(costs[k]))
    busy = [0, 0]
    for group in groups:  # whoever is free takes the next
        busy[busy.index(min(busy))] += sum(costs[k] for k in group)
    assert max(busy) == pytest.approx(sum(costs.values()) / 2, rel=0.03)
