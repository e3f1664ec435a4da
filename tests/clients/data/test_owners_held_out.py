"""Owners: the test set of one file has its share of each; another file says whose it holds."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from clients import data
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
    """A fifth of ten and of five is two and one, whatever is drawn; of one nothing is held out."""
    for seed in range(9):
        train, test = cut([0] * 10 + [1] * 5 + [2], share=3 / 16, seed=seed)
        assert sorted(test) == [0, 0, 1]
        assert train.count(2) == 1


def test_the_share_is_that_of_owners_of_every_size() -> None:
    """Of two examples a fifth is 0.4 of one: some owners have one in the test set, drawn anew."""
    owners = [*np.repeat(np.arange(100), 2), *np.repeat(np.arange(100, 110), 50)]
    pairs = [{owner for owner in cut(owners, 0.2, seed)[1] if owner < 100} for seed in range(40)]
    assert np.mean([len(found) for found in pairs]) == pytest.approx(40, abs=2)
    assert len(set.union(*pairs)) == 100
    assert len({frozenset(found) for found in pairs}) == 40
    large = [cut(owners, 0.2, seed)[1].count(105) for seed in range(40)]
    assert np.mean(large) == pytest.approx(10, abs=0.5)
    assert max(large) - min(large) <= 3


def test_beyond_what_leaves_one_the_last_are_held_out_too() -> None:
    train, test = cut([0, 0, 1, 1, 2, 2], share=2 / 3)
    assert (len(train), sorted({*test})) == (2, [0, 1, 2])


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
            assert abs(test.count(owner) - share * size) <= 2


def test_without_owners_nothing_changes() -> None:
    inputs, labels = np.arange(40, dtype=np.float32)[:, None], np.arange(40) % 2
    rng = np.random.default_rng(3)
    test = hold_out("own", inputs, labels, classification((1,), 2), 1.0, 0.25, rng)[1]
    expected = np.random.default_rng(3).permutation(40)[:10]
    assert test.inputs[:, 0].tolist() == expected.tolist()
    assert test.owners is None
    with pytest.raises(ValueError, match="test_share=1.5"):
        hold_out("own", inputs, labels, classification((1,), 2), 1.0, 1.5, rng)


def written(folder: Path, text: str) -> str:
    (folder / "own.csv").write_text(text)
    return str(folder / "own.csv")


def test_a_test_file_may_say_of_whom_its_rows_are(tmp_path: Path) -> None:
    rows = "".join(f"{n}.5,w{n % 3},{n % 2}\n" for n in range(12))
    path = written(tmp_path, "age,ward,kind\n" + rows)
    other = tmp_path / "held_out.csv"
    other.write_text("age,ward,kind\n1.5,w2,0\n2.5,w9,1\n3.5,w0,0\n")
    train, test = data.table(path, owner="ward", test_path=str(other))
    assert test.owners is not None
    assert (test.owners.tolist(), test.owner_values) == ([2, 3, 0], ("w0", "w1", "w2", "w9"))
    assert train.owner_values == test.owner_values
    found = pa.table({"age": [1.5, 2.5], "ward": [2, 10], "kind": [0, 1]})
    parquet.write_table(found, tmp_path / "n.parquet")
    plain = written(tmp_path, "age,ward,kind\n" + rows.replace(",w", ","))
    train, test = data.table(plain, owner="ward", test_path=str(tmp_path / "n.parquet"))
    assert test.owners is not None
    assert (test.owners.tolist(), test.owner_values) == ([2, 3], (0, 1, 2, 10))
    zeros = written(tmp_path, "age,ward,kind\n" + rows.replace(",w", ",0"))
    with pytest.raises(
        ValueError, match="owners of the test set .10, 2. have no example in the tr"
    ):
        data.table(zeros, owner="ward", test_path=str(tmp_path / "n.parquet"))
    path = written(tmp_path, "age,ward,kind\n" + rows)
    other.write_text("age,kind\n1.5,0\n")
    train, test = data.table(path, owner="ward", test_path=str(other))
    assert (train.owner_values, test.owners) == (("w0", "w1", "w2"), None)
