"""Of a file in one piece, the test set has its share of each owner's examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.data import classification
from clients.data.splits import hold_out


def cut(owners: list[int], share: float, seed: int = 0) -> tuple[list[int], list[int]]:
    """Return whose the examples of the train set are, and of the test set."""
    whose = np.array(owners)
    inputs = np.random.default_rng(1).normal(size=(len(whose), 1)).astype(np.float32)
    labels = np.arange(len(whose)) % 2
    rng = np.random.default_rng(seed)
    task = classification((1,), 2)
    sets = hold_out("own", inputs, labels, task, 1.0, share, rng, owners=whose)
    place = {float(each): n for n, (each,) in enumerate(inputs)}
    for found in sets:  # each example has the owner that it came with
        assert found.owners is not None
        came = [place[float(each)] for (each,) in found.inputs]
        assert found.owners.tolist() == whose[came].tolist()
    assert len({float(each) for found in sets for (each,) in found.inputs}) == len(whose)
    train, test = (found.owners.tolist() for found in sets if found.owners is not None)
    return train, test


def test_by_hand() -> None:
    train, test = cut([0] * 10 + [1] * 5 + [2], share=3 / 16)
    assert sorted(test) == [0, 0, 1]
    assert train.count(2) == 1  # of one example nothing is held out
    drawn = {str(cut([0] * 6 + [1] * 6, 1 / 6, seed)) for seed in range(3)}
    assert len(drawn) == 1  # whichever of theirs: one of each


def test_which_examples_is_drawn() -> None:
    inputs = np.arange(20, dtype=np.float32)[:, None]
    first = {
        tuple(
            hold_out("own", inputs, np.arange(20) % 2, classification((1,), 2), 1.0, 0.1,
                     np.random.default_rng(seed), owners=np.arange(20) // 10)[1].inputs[:, 0]
        )
        for seed in range(8)
    }  # fmt: skip
    assert len(first) > 4


@given(st.lists(st.integers(0, 5), min_size=6, max_size=60), st.floats(0.1, 0.6), st.integers(0, 9))
def test_shares_differ_by_one_example_and_everybody_keeps_some(
    owners: list[int], share: float, seed: int
) -> None:
    train, test = cut(owners, share, seed)
    assert len(test) == round(share * len(owners))
    sizes = {owner: owners.count(owner) for owner in {*owners}}
    if len(test) <= len(owners) - len(sizes):
        assert {*train} == {*owners}
    if min(sizes.values()) > 1 / (1 - share):
        for owner, size in sizes.items():
            assert abs(test.count(owner) - share * size) <= 1.5


def test_without_owners_nothing_changes() -> None:
    inputs, labels = np.arange(40, dtype=np.float32)[:, None], np.arange(40) % 2
    rng = np.random.default_rng(3)
    test = hold_out("own", inputs, labels, classification((1,), 2), 1.0, 0.25, rng)[1]
    expected = np.random.default_rng(3).permutation(40)[:10]
    assert test.inputs[:, 0].tolist() == expected.tolist()
    assert test.owners is None
    with pytest.raises(ValueError, match="test_share=1.5"):
        hold_out("own", inputs, labels, classification((1,), 2), 1.0, 1.5, rng)
