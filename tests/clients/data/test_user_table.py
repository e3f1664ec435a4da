"""A user's own table: what is a feature, what a class, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from clients import data
from tests.quick_runs import federated

PETS = """id,age,income,kind
1,20,3.5,dog
2,30,1.5,cat
3,40,7,dog
4,50,2,owl
5,20,3.5,cat
6,35,1.5,owl
7,45,8,dog
8,55,2,owl
"""
KINDS = ["dog", "cat", "dog", "owl", "cat", "owl", "dog", "owl"]
SMALL = ["clients=mixed_tabular", "student=mlp", "partition=iid", "clients.num_clients=2"]
SMALL += ["clients.training.epochs=1", "strategy.distil.epochs=1", "probes=none"]


def written(folder: Path, text: str = PETS, name: str = "own.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def rows(*sets: data.Dataset) -> set[tuple[float, ...]]:
    """Features with the class, of all sets."""
    pairs = [pair for each in sets for pair in zip(each.inputs, each.labels.ravel(), strict=True)]
    return {(*map(float, features), float(label)) for features, label in pairs}


def test_columns_are_features_and_the_last_is_that_of_texts_in_their_order(tmp_path: Path) -> None:
    train, test = data.table(written(tmp_path), drop=["id"], test_share=0.25)
    assert (len(train), len(test), train.task.input_shape) == (6, 2, (2,))
    assert train.label_values == test.label_values == ("cat", "dog", "owl")
    ages, incomes = [20, 30, 40, 50, 20, 35, 45, 55], [3.5, 1.5, 7, 2, 3.5, 1.5, 8, 2]
    classes = [1, 0, 1, 2, 0, 2, 1, 2]
    assert rows(train, test) == {*zip(ages, incomes, classes, strict=True)}
    assert data.renumbered(train) == "own.csv: its labels cat, dog, owl are the classes 0..2 here"


def test_mean_and_deviation_are_those_of_the_train_set(tmp_path: Path) -> None:
    file = written(tmp_path, "x,y,kind\n1,0,0\n1,2,1\n3,4,0\n3,6,1\n")
    other = written(tmp_path, "kind,y,x\n1,7,5\n", "test.csv")
    train, test = data.table(file, test_path=other)
    assert train.mean == test.mean == (2.0, 3.0)
    assert train.std == test.std == (1.0, 5**0.5)
    np.testing.assert_allclose(data.normalised(test, np.arange(1)), [[3.0, 4 / 5**0.5]], rtol=1e-6)
    assert (test.labels.tolist(), train.label_values) == ([1], None)


def test_any_column_may_be_the_labels(tmp_path: Path) -> None:
    text = "kind,x\n" + "".join(f"{kind},{n}\n" for n, kind in enumerate(KINDS))
    train, test = data.table(written(tmp_path, text), label="kind")
    assert rows(train, test) == {(0, 1), (1, 0), (2, 1), (3, 2), (4, 0), (5, 2), (6, 1), (7, 2)}


@pytest.mark.parametrize(
    ("found", "values", "classes"),
    [
        ("-1 1 1 -1", (-1, 1), [0, 1, 1, 0]),
        ("2.0 7.0 2.0 7.0", (2, 7), [0, 1, 0, 1]),
        ("true false false true", None, [1, 0, 0, 1]),
        ("90001 12 12 90001", (12, 90001), [1, 0, 0, 1]),
        ("NA no no NA", ("NA", "no"), [0, 1, 1, 0]),
    ],
)
def test_labels_of_every_kind_are_numbered_in_their_order(
    tmp_path: Path, found: str, values: Any, classes: list[int]
) -> None:
    text = "x,label\n" + "".join(f"{n},{value}\n" for n, value in enumerate(found.split()))
    sets = data.table(written(tmp_path, text), test_share=0.25)
    assert sets[0].label_values == values
    assert rows(*sets) == {(float(n), float(c)) for n, c in enumerate(classes)}


@pytest.mark.parametrize("form", ["semicolons", "tabs", "packed", "parquet", "categories"])
def test_the_same_table_in_other_files_is_the_same(tmp_path: Path, form: str) -> None:
    plain = data.table(written(tmp_path))
    if form == "packed":
        file = str(tmp_path / "own.csv.gz")
        Path(file).write_bytes(gzip.compress(PETS.encode()))
    elif form in ("parquet", "categories"):
        names, *lines = [line.split(",") for line in PETS.splitlines()]
        columns = dict(zip(names, zip(*lines, strict=True), strict=True))
        table = pa.table({n: list(c if n == "kind" else map(float, c)) for n, c in columns.items()})
        if form == "categories":
            table = table.set_column(3, "kind", table["kind"].dictionary_encode())
        file = str(tmp_path / "own.parquet")
        parquet.write_table(table, file)
    else:
        sign = ";" if form == "semicolons" else "\t"
        file = written(tmp_path, PETS.replace(",", sign), "own.txt")
    for one, other in zip(plain, data.table(file), strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert (one.mean, one.std, one.label_values) == (other.mean, other.std, other.label_values)


def test_a_regression_predicts_the_column_in_units_of_its_deviation(tmp_path: Path) -> None:
    text = "x,price\n1,10\n2,10\n3,30\n4,30\n"
    train, test = data.table(written(tmp_path, text), numbers=True)
    assert train.task.measure == "r2"
    assert rows(train, test) == {(1, -1), (2, -1), (3, 1), (4, 1)}


def test_a_column_far_down_may_make_whole_numbers_fractions(tmp_path: Path) -> None:
    """Arrow takes the first megabyte of a file for all of it, unless it is one block."""
    lines = "".join(f"{n},{n % 2}\n" for n in range(200_000))
    train, _ = data.table(written(tmp_path, f"x,kind\n{lines}0.5,1\n"))
    assert len(train) == 160_001


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (PETS, {"label": "age", "drop": ["kind"]}, "'age' has 7 values in 8 rows, expected class"),
        (PETS, {"label": "id"}, "column 'kind' holds string, expected numbers: leave the column"),
        (PETS, {"label": "sort"}, "no column 'sort', there are id, age, income, kind"),
        (PETS, {"drop": ["a"]}, "no column 'a', there are id, age"),
        (PETS, {"drop": ["id", "age", "income"]}, r"no column but that of labels \('kind'\), exp"),
        (PETS, {"label": "income", "drop": ["kind"]}, "'income' holds double, expected texts"),
        (PETS.replace("dog", ""), {}, "column 'kind' is empty in 3 of 8 rows, expected none: fi"),
        (PETS.replace(",7,", ",,"), {}, "column 'income' is empty in 1 of 8 rows, expected none"),
        (PETS.replace(",7,", ",1e99,"), {}, "column 'income' holds NaN or infinity, expected fin"),
        (PETS.replace("age", "id"), {}, "two columns are called 'id', expected one of a name"),
        (PETS[19:], {}, "expected the names of the columns in the first line, found 'dog' both"),
        ("1,2\n3,4\n", {}, "expected the names of the columns in the first line, found numbers"),
        ("x,kind\n1,a\n1,b\n1,a\n1,b\n", {}, "column 'x' is constant"),
        ("x,y\n1,2\n2,2\n", {"numbers": True}, "column 'y' is constant, expected numbers to pre"),
        ("x,kind\n", {}, "no rows, expected at least 2"),
        ("x,kind\n1,2,3\n", {}, "a CSV or a Parquet file: CSV parse error: Expected 2 columns"),
        ("", {}, "expected a CSV or a Parquet file: "),
        ("PAR1", {}, "expected a CSV or a Parquet file: "),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_by_name(
    tmp_path: Path, text: str, words: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"own\.csv: (.* )?{message}") as raised:
        data.table(written(tmp_path, text), **words)
    assert "\n" not in str(raised.value)


def test_a_test_set_that_is_another_table_is_refused_with_both_names(tmp_path: Path) -> None:
    file, kinds = written(tmp_path), r"which .*own\.csv \(cat, dog, owl\) has not"
    for text, said in (
        ("id,age,income,kind\n1,2,3,cow\n", rf"test\.csv has cow, {kinds}"),
        ("id,age,income,kind\n1,2,3,4\n", rf"test\.csv has 4, {kinds}"),
        ("id,age,kind\n1,2,cat\n", r"test\.csv: no column 'income', there are id, age, kind"),
    ):
        with pytest.raises(ValueError, match=said):
            data.table(file, test_path=written(tmp_path, text, "test.csv"))
    with pytest.raises(FileNotFoundError, match=r"b\.csv not found: .*data\.source\.test_path="):
        data.table(file, test_path=str(tmp_path / "b.csv"))


def test_a_table_is_learned_from(tmp_path: Path) -> None:
    lines = "".join(f"{n % 7},{n % 5},{'ab'[n % 7 > 3]}\n" for n in range(100))
    words = ["data=table", f"data.source.path={written(tmp_path, 'x,y,kind' + chr(10) + lines)}"]
    words += [*SMALL, "clients.training.epochs=40", "strategy.distil.epochs=40"]
    assert federated(tmp_path / "run", *words)["student_accuracy"] > 0.8


def test_a_class_may_be_called_as_its_column(tmp_path: Path) -> None:
    """A file without a header is told by names that are numbers."""
    text = "length,spam\n1,spam\n2,ham\n3,spam\n4,ham\n5,spam\n"
    assert data.table(written(tmp_path, text))[0].label_values == ("ham", "spam")
    with pytest.raises(ValueError, match="found 'spam' both there and below it"):
        data.table(written(tmp_path, text.replace("length", "7")))


def test_decimal_commas_between_semicolons_are_points(tmp_path: Path) -> None:
    text = "a;b;kind\n1,5;2;x\n2,5;3;y\n3,5;4;x\n4,5;5;y\n"
    train, test = data.table(written(tmp_path, text))
    assert {row[0] for row in rows(train, test)} == {1.5, 2.5, 3.5, 4.5}
    train, test = data.table(written(tmp_path, text.replace(",", ".")))
    assert {row[0] for row in rows(train, test)} == {1.5, 2.5, 3.5, 4.5}


def test_one_column_is_dropped_by_its_name_alone_and_large_numbers_are_rounded(
    tmp_path: Path,
) -> None:
    text = "id,a,kind\n1,9007199254740993,x\n2,1,y\n3,2,x\n4,3,y\n"
    train, test = data.table(written(tmp_path, text), drop="id")
    assert train.task.input_shape == (1,)
    assert max(row[0] for row in rows(train, test)) == 2.0**53


def test_texts_become_columns_of_0_and_1(tmp_path: Path) -> None:
    text = "age,city,floor,kind\n" + "".join(
        f"{20 + n},{('Rome', 'Oslo', 'Bern')[n % 3]},{n % 2 + 1},{'ab'[n % 2]}\n" for n in range(12)
    )
    path = written(tmp_path, text)
    train, test = data.table(path, one_hot=["city"])
    assert train.task.input_shape == (5,)  # age, Bern, Oslo, Rome, floor
    for n in range(12):
        bern, oslo, rome = n % 3 == 2, n % 3 == 1, n % 3 == 0
        assert (20 + n, bern, oslo, rome, n % 2 + 1, n % 2) in rows(train, test)
    assert data.table(path, one_hot="floor", drop=["city"])[0].task.input_shape == (3,)
    assert data.table(path, one_hot=["city"], owner="floor")[0].task.input_shape == (4,)


def test_a_regression_keeps_its_owners(tmp_path: Path) -> None:
    text = "ward,age,income\n" + "".join(f"w{n % 3},{n},{n * n}\n" for n in range(12))
    train, _ = data.table(written(tmp_path, text), owner="ward", numbers=True)
    assert train.owner_values == ("w0", "w1", "w2")
    assert train.owners is not None
    ages = np.rint(train.inputs[:, 0]).astype(int)
    assert train.owners.tolist() == [age % 3 for age in ages]


@pytest.mark.parametrize(
    "more",
    [
        {"one_hot": ["kind"]},
        {"one_hot": ["kind"], "numbers": True},
        {"one_hot": ["kind"], "label": "kind"},
        {"one_hot": ["city", "city"]},
        {"one_hot": ["city"], "owner": "city"},
        {"one_hot": ["city"], "drop": ["city"]},
    ],
)
def test_one_hot_is_of_features_alone(tmp_path: Path, more: dict[str, Any]) -> None:
    path = written(tmp_path, "age,city,kind\n" + "1,R,a\n2,O,b\n3,R,b\n" * 4)
    with pytest.raises(ValueError, match=r"data\.source\.one_hot names '.*', expected colum"):
        data.table(path, **more)


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        (
            ["town"],
            "",
            "one_hot names 'town', expected columns of features, .* of age, ci",
        ),
        (["age"], "", "column 'age' has 12 values in 12 rows, expected several rows of each"),
        (
            ["weight"],
            "",
            "column 'weight' has 12 values in 12 rows, expected several rows of each",
        ),
        (["city"], "30,,1.5,b\n", "column 'city' is empty in 1 of 13 rows"),
    ],
)
def test_what_cannot_be_one_hot_is_told(
    tmp_path: Path, names: list[str], more: str, said: str
) -> None:
    lines = (f"{20 + n},{'RO'[n % 2]},{n + 0.5},{'ab'[n % 2]}\n" for n in range(12))
    path = written(tmp_path, "age,city,weight,kind\n" + "".join(lines) + more)
    with pytest.raises(ValueError, match=said):
        data.table(path, one_hot=names)


def test_a_test_set_has_no_other_texts(tmp_path: Path) -> None:
    path = written(tmp_path, "age,city,kind\n" + "1,R,a\n2,O,b\n" * 4)
    other = written(tmp_path, "age,city,kind\n1,R,a\n2,P,b\n", "test.csv")
    with pytest.raises(ValueError, match=r"test\.csv: column 'city' has P, which .*own\.csv"):
        data.table(path, test_path=other, one_hot=["city"])


def test_a_new_column_of_a_name_that_is_there_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, "city=R,city,kind\n" + "1,R,a\n2,O,b\n" * 4)
    with pytest.raises(ValueError, match="two columns are called 'city=R'"):
        data.table(path, one_hot=["city"])
