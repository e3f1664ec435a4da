"""A user's own table, read from a CSV or a Parquet file: columns of numbers, and one of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clients.data.data_summary import told
from clients.data.dataset import Dataset
from clients.data.own_arrays import numbered, own_sets
from clients.data.table_columns import (
    features_of,
    labels_of,
    names_of,
    owners_of,
    with_one_hot,
)
from clients.data.table_files import read_table
from clients.data.task import classification, regression

if TYPE_CHECKING:
    import pyarrow as pa

    Tables = Mapping[str, pa.Table]


def table(
    path: str,
    label: str | None = None,
    drop: Sequence[str] = (),
    numbers: bool = False,
    test_path: str | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    owner: str | None = None,
    one_hot: Sequence[str] = (),
) -> tuple[Dataset, Dataset]:
    """A user's own table, CSV or Parquet: a row is an example, a column of numbers a feature.

    A CSV, which may be packed as `.gz`, begins with a line of names, between which are commas,
    semicolons or tabs. Labels are texts or whole numbers: they become the classes 0..C - 1 in their
    order, as the data set's `label_values` say. Mean and deviation are those that a column has in
    the train set, of private and proxy examples together.

    Args:
        path: the file.
        label: name of the column with the labels; None: the last that is not left out.
        drop: names of columns that are left out, such as of ids.
        numbers: labels are numbers to be predicted, a regression; they are taken less the mean of
            their column in the file and in units of its deviation, as `rmse` is then.
        test_path: another file, with the test set in the same columns; None: a share is held out.
        test_share: share of the rows held out, in (0, 1); unused if there is a test set.
        seed: of the shuffle that cuts test from train; unused likewise.
        owner: name of the column that says whose a row is, a hospital's, which is no feature;
            `partition=natural` goes by it. None: there is none.
        one_hot: names of columns of texts, or of whole numbers, that are features: each of their
            values becomes a column of 0 and 1.

    Returns:
        Train and test set; inputs are float32 [N, D], of D features.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is no table, a column is missing, constant, no numbers or has empty
            cells, or a label is of the test set alone.
    """
    tables = {}
    for key, given in (("path", path), ("test_path", test_path)):
        if given is not None:
            file = Path(given).expanduser().absolute()
            texts = [*names_of(one_hot), *([owner] if owner else [])]
            tables[str(file)] = read_table(file, key, texts)
    name = Path(path).name
    return table_sets(name, tables, label, drop, numbers, test_share, seed, owner, one_hot)


def table_sets(
    name: str,
    tables: Tables,
    label: str | None = None,
    drop: Collection[str] = (),
    numbers: bool = False,
    test_share: float = 0.2,
    seed: int = 0,
    owner: str | None = None,
    one_hot: Sequence[str] = (),
) -> tuple[Dataset, Dataset]:
    """Make data sets of Arrow tables.

    Args:
        name: of both sets.
        tables: that of the train set, and of the test set if it is given, by what they are called.
        label: as in `table`, like all that follows.
        drop: names of columns.
        numbers: whether it is a regression.
        test_share: share of the rows held out.
        seed: of the shuffle.
        owner: name of a column.
        one_hot: names of columns.

    Returns:
        Train and test set; inputs are float32 [N, D].

    Raises:
        ValueError: as in `table`.
    """
    first, whole = next(iter(tables.items()))
    drop = [*names_of(drop), *([owner] if owner else [])]
    if owner and label is None and whole.column_names[-1:] == [owner]:
        raise ValueError(
            f"{first}: the last column says whose a row is, expected that of labels to be named: "
            "data.source.label="
        )
    label, columns = _columns(first, whole.column_names, label, drop)
    whose = owners_of(tables, owner, label) if owner else []
    for each in (several := names_of(one_hot)):
        if each not in columns or several.count(each) > 1:
            raise ValueError(
                f"{first}: data.source.one_hot names {each!r}, expected columns of features, each "
                f"once, of {told(columns)}"
            )
    tables = with_one_hot(tables, several)
    _, columns = _columns(first, tables[first].column_names, label, drop)
    inputs = {
        which: features_of(which, found, columns, one_hot=True) for which, found in tables.items()
    }
    shape, about = (len(columns),), (test_share, seed)
    if not numbers:
        found = {which: labels_of(which, each, label) for which, each in tables.items()}
        classes, values, num_classes = numbered(found)
        if 2 * num_classes > len(whole):
            raise ValueError(
                f"{first}: column {label!r} has {num_classes} values in {len(whole)} rows, expected"
                " classes: name their column with data.source.label=, or predict numbers with "
                "data.source.numbers=true"
            )
        task = classification(shape, num_classes)
        return own_sets(name, inputs, classes, task, *about, values, columns, whose)
    targets = [features_of(which, each, [label]) for which, each in tables.items()]
    mean, deviation = targets[0].mean(dtype=np.float64), targets[0].std(dtype=np.float64)
    if not deviation > 0:
        raise ValueError(f"{first}: column {label!r} is constant, expected numbers to predict")
    labels = [((each - mean) / deviation).astype(np.float32) for each in targets]
    return own_sets(name, inputs, labels, regression(shape), *about, None, columns, whose)


# --- columns ---


def _columns(
    which: str, names: Sequence[str], label: str | None, drop: Collection[str]
) -> tuple[str, list[str]]:
    """Return the name of the labels' column, and those of the features."""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"{which}: two columns are called {twice[0]!r}, expected one of a name")
    if strange := [name for name in (*drop, *([label] if label else [])) if name not in names]:
        raise ValueError(f"{which}: no column {strange[0]!r}, there are {told(names)}")
    kept = [name for name in names if name not in {*drop}]
    label = label or (kept[-1] if kept else "")
    features = [name for name in kept if name != label]
    if not features:
        raise ValueError(f"{which}: no column but that of labels ({label!r}), expected features")
    return label, features
