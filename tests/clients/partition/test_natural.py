"""The natural partition: by hand, and as every request has it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import data, partition
from clients.data import Dataset, classification
from clients.population.plugin_arguments import cut
from clients.seeding import Purpose, generator
from tests.commands import run_py
from tests.federations import SEED
from tests.quick_runs import federated, hashes

OWNERS = np.array([2, 0, 2, 3, 0, 2, 5, 3])  # 0 twice, 2 thrice, 3 twice, 5 once


def lists(parts: partition.Partition) -> list[list[int]]:
    return [part.tolist() for part in parts]


def natural(clients: int, seed: int = 0, **options: int) -> partition.Partition:
    rng = np.random.default_rng(seed)
    return partition.natural(np.zeros(8), clients, rng, owners=OWNERS, **options)


def test_as_many_clients_as_owners_are_they_in_their_order() -> None:
    assert lists(natural(4)) == [[1, 4], [0, 2, 5], [3, 7], [6]]
    assert lists(natural(3, min_examples=2)) == [[1, 4], [0, 2, 5], [3, 7]]
    assert lists(natural(1, min_examples=3)) == [[0, 2, 5]]


def test_of_more_owners_some_are_drawn_and_the_rest_is_nobodys() -> None:
    all_of_them = lists(natural(4))
    drawn = {str(lists(natural(2, seed))) for seed in range(40)}
    pairs = {str([all_of_them[a], all_of_them[b]]) for a in range(4) for b in range(a + 1, 4)}
    assert drawn == pairs


def test_grouped_deals_all_of_them_out() -> None:
    for seed in range(10):
        sizes = [len({*OWNERS[part]}) for part in natural(3, seed, grouped=True)]
        assert sizes == [2, 1, 1]
    assert sorted(np.concatenate(natural(3, grouped=True))) == [*range(8)]
    left = natural(2, grouped=True, min_examples=2)
    assert sorted(np.concatenate(left)) == [0, 1, 2, 3, 4, 5, 7]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.booleans(), st.integers(0, 9))
def test_no_owner_is_of_two_clients_and_no_client_has_nothing(
    owners: list[int], grouped: bool, seed: int
) -> None:
    whose, there = np.array(owners), len({*owners})
    for clients in range(1, there + 1):
        rng = np.random.default_rng(seed)
        parts = partition.natural(whose, clients, rng, owners=whose, grouped=grouped)
        groups = [{*whose[part].tolist()} for part in parts]
        assert all(groups)
        assert sum(map(len, groups)) == len(set.union(*groups)) == (there if grouped else clients)
        for part, group in zip(parts, groups, strict=True):
            assert part.tolist() == [i for i, owner in enumerate(owners) if owner in group]


def test_what_cannot_be_is_named() -> None:
    said = "num_clients=5: 4 owners have 1 private examples or more, when .* expected at most 4"
    with pytest.raises(ValueError, match=said):
        natural(5)
    with pytest.raises(ValueError, match="3 owners have 2 private examples or more"):
        natural(4, min_examples=2)
    with pytest.raises(ValueError, match="min_examples=9: who has most has 3 private"):
        natural(1, min_examples=9)
    with pytest.raises(ValueError, match="min_examples=0, expected >= 1"):
        natural(1, min_examples=0)


def private(owners: np.ndarray | None) -> Dataset:
    task = classification((2,), 2)
    inputs = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    labels = np.arange(8) % 2
    return Dataset("own", inputs, labels, task, 1.0, (0.0, 0.0), (1.0, 1.0), owners=owners)


def test_a_data_set_has_an_owner_for_each_example_or_none() -> None:
    found = data.subset(private(OWNERS), np.array([5, 3]))
    assert found.owners is not None
    assert found.owners.tolist() == [2, 3]
    with pytest.raises(ValueError, match=r"own: owners has shape \(7,\), expected \(8,\)"):
        private(OWNERS[:7])
    with pytest.raises(ValueError, match="read-only"):
        private(OWNERS).owners[0] = 1  # type: ignore[index]
    rng = generator(0, Purpose.PARTITION)
    capped = partition.capped(OWNERS, 2, rng, of=lambda *_: [np.arange(3), np.arange(3, 8)], most=2)
    assert capped.sizes.tolist() == [2, 2]
    with pytest.raises(ValueError, match=r"own does not say whose its examples are: .*owner="):
        cut(partition.natural, private(None).labels, 2, rng, private(None))

    def if_known(labels, num_clients, rng, *, owners=None):  # type: ignore[no-untyped-def]
        return partition.iid(labels, 2 if owners is None else len({*owners}), rng)

    assert len(cut(if_known, private(None).labels, 2, rng, private(None))) == 2
    assert len(cut(if_known, private(None).labels, 4, rng, private(OWNERS))) == 4


def odd(owners: object, values: object = None) -> str:
    with pytest.raises(ValueError) as told:  # noqa: PT011
        replace(private(OWNERS), owners=np.array(owners), owner_values=values)
    return str(told.value)


def test_odd_owners_of_a_reader_are_told() -> None:
    assert "owners are float64, expected whole numbers from 0 on" in odd(OWNERS / 1)
    assert "owners are <U1, expected whole numbers" in odd([*"abcdabcd"])
    assert "expected whole numbers from 0 on" in odd(OWNERS - 1)
    assert "owners go up to 5, expected below 2" in odd(OWNERS, ("a", "b"))
    assert "no tuple of texts" in odd(OWNERS, np.arange(6))
    assert "no tuple of texts" in odd(OWNERS, tuple(np.arange(6)))
    far = private(OWNERS * 10**12)
    assert len(cut(partition.natural, far.labels, 4, np.random.default_rng(0), far)) == 4


def test_whose_examples_clients_have_is_said_of_natural_clients_only() -> None:
    own = replace(private(OWNERS), owner_values=(*"abcde", "f\n"))
    shared = [np.array([0, 1, 2]), np.array([4, 5])]  # 2 is of both
    assert data.owners_by_client(own, shared) is None
    parts = [np.array([1, 4, 6]), np.array([3])]
    named = data.owners_by_client(own, parts)
    assert named == [["a", "f\n"], ["d"]]
    line = "own: 3 of 4 owners have clients, with 4 of 8 private examples: 0 a + f?, 1 d"
    assert data.natural_clients(own, parts, named) == line
    assert data.owners_by_client(private(OWNERS), parts) == [[0, 5], [3]]
    assert data.owners_by_client(private(None), parts) is None


def write(folder: Path) -> Path:
    """Write a table in which each hospital has rows of its own mean."""
    rng = np.random.default_rng(0)
    names = ["north", "east", "west"]
    rows = [(names[n % 3], *(rng.normal(size=2) + 4 * (n % 3)), n % 2) for n in range(120)]
    lines = [f"{name},{a:.3f},{b:.3f},{kind}\n" for name, a, b, kind in rows]
    (folder / "wards.csv").write_text("hospital,age,weight,kind\n" + "".join(lines))
    return folder / "wards.csv"


WORDS = [
    *("partition=natural", "clients.num_clients=2", "clients=mixed_tabular", "student=mlp"),
    *(
        f"seed={SEED}",
        "strategy=distillation",
        "strategy.distil.epochs=1",
        "clients.training.epochs=1",
    ),
]


def test_a_tables_hospitals_are_the_clients_on_both_pools(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = data.table(str(write(tmp_path)), owner="hospital")
    assert train.task.input_shape == (2,)  # the hospital is no feature
    assert test.owners is not None
    assert np.bincount(test.owners).tolist() == [8, 8, 8]  # a fifth of each
    assert train.owners is not None
    means = [train.inputs[train.owners == owner].mean() for owner in range(3)]
    np.testing.assert_allclose(means, [4, 0, 8], atol=0.5)  # east, north, west
    path = f"data.source.path={tmp_path / 'wards.csv'}"
    words = ["data=table", path, "data.source.owner=hospital", *WORDS]
    here = federated(tmp_path / "here", *words)
    there = federated(tmp_path / "there", *words, sim="ray")
    other = federated(tmp_path / "other", *words, "partition.grouped=true")
    assert hashes(here) == hashes(there) != hashes(other)
    cut = [json.loads((tmp_path / name / "partition_summary.json").read_text())["owners"]
           for name in ("here", "other")]  # fmt: skip
    assert [each for (each,) in cut[0]] in (["east", "north"], ["east", "west"], ["north", "west"])
    assert sorted(len(each) for each in cut[1]) == [1, 2]
    first = " + ".join(cut[1][0])
    line = f"wards.csv: 3 of 3 owners have clients, with 77 of 77 private examples: 0 {first}, 1 "
    assert line in capsys.readouterr().out


def test_what_a_file_lacks_is_said_in_a_line(tmp_path: Path) -> None:
    words = ["data=table", f"data.source.path={write(tmp_path)}", *WORDS, "sim=inline"]
    for more, said in (
        ("data.source.owner=hospitl", "no column 'hospitl'"),
        ("data.source.drop=[hospital]", "wards.csv does not say whose its examples are"),
        ("data.source.owner=age", "column 'age' has 120 values in 120 rows, expected several"),
        ("data.source.owner=kind data.source.label=kind", "owner=kind is the column of labels too"),
    ):
        done = run_py(*words, *more.split(), f"hydra.run.dir={tmp_path / 'run'}")
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_ids_keep_their_zeros_and_numbers_their_order(tmp_path: Path) -> None:
    def owners(*names: str) -> tuple[object, ...] | None:
        lines = (f"{name},{n}.5,{n % 2}\n" for n, name in enumerate(names * 3))
        (tmp_path / "own.csv").write_text("ward,age,kind\n" + "".join(lines))
        return data.table(str(tmp_path / "own.csv"), owner="ward")[0].owner_values

    assert owners("007", "7", "08") == ("007", "08", "7")
    assert owners("10", "9", "2") == (2, 9, 10)
    assert owners("-1", "0", "-12") == (-12, -1, 0)
    long = ("100000000000000000000", "100000000000000000001", "9")
    assert owners(*long) == long


def test_the_last_column_is_not_taken_for_both(tmp_path: Path) -> None:
    lines = "".join(f"{n}.5,{n % 2},w{n % 3}\n" for n in range(12))
    (tmp_path / "own.csv").write_text("age,kind,ward\n" + lines)
    with pytest.raises(ValueError, match="last column says whose .* data.source.label="):
        data.table(str(tmp_path / "own.csv"), owner="ward")
    train, _ = data.table(str(tmp_path / "own.csv"), owner="ward", label="kind")
    assert (train.task.num_classes, train.owner_values) == (2, ("w0", "w1", "w2"))
