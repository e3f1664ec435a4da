"""A user's own table, read from a CSV or a Parquet file: columns of numbers, and one of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clients.data.data_summary import told
from clients.data.dataset import Dataset
from clients.data.own_arrays import numbered, own_sets
from clients.data.table_files import NO_NAMES, is_number, read_table
from clients.data.task import classification, regression

if TYPE_CHECKING:
    import pyarrow as pa

    Tables = Mapping[str, pa.Table]
Floats = npt.NDArray[np.float32]


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
            tables[str(file)] = read_table(file, key)
    tables = _one_hot(tables, names_of(one_hot))
    name = Path(path).name
    return table_sets(name, tables, label, drop, numbers, test_share, seed, owner)


def table_sets(
    name: str,
    tables: Tables,
    label: str | None = None,
    drop: Collection[str] = (),
    numbers: bool = False,
    test_share: float = 0.2,
    seed: int = 0,
    owner: str | None = None,
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

    Returns:
        Train and test set; inputs are float32 [N, D].

    Raises:
        ValueError: as in `table`.
    """
    first, whole = next(iter(tables.items()))
    drop = [*names_of(drop), *([owner] if owner else [])]
    label, columns = _columns(first, whole.column_names, label, drop)
    whose = labels_of(first, whole, owner, "owner") if owner else None
    inputs = {which: features_of(which, found, columns) for which, found in tables.items()}
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


def names_of(drop: Collection[str]) -> list[str]:
    """Return names of columns; one may stand alone, as `drop=id`."""
    return [drop] if isinstance(drop, str) else [*map(str, drop)]


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


def features_of(which: str, found: pa.Table, columns: Sequence[str]) -> Floats:
    """Return columns of numbers.

    Args:
        which: what messages call the table.
        found: it, N rows.
        columns: names of D columns.

    Returns:
        Their numbers [N, D], float32.

    Raises:
        ValueError: a column is missing, no numbers, or has empty cells; names it.
    """
    features = np.empty((len(found), len(columns)), np.float32)
    for place, name in enumerate(columns):
        features[:, place] = _numbers(which, name, _column(which, found, name))
    return features


def _numbers(which: str, name: str, column: pa.ChunkedArray) -> Floats:
    from pyarrow import types

    leave_out = f"leave the column out with data.source.drop=[{name}]"
    if not any(is_of(column.type) for is_of in (types.is_integer, types.is_floating,
                                                types.is_boolean, types.is_decimal)):  # fmt: skip
        raise ValueError(
            f"{which}: column {name!r} holds {column.type}, expected numbers: {leave_out}, or "
            f"have a column of 0 and 1 for each of its values: data.source.one_hot=[{name}]"
        )
    with np.errstate(over="ignore"):  # what is too large for float32 is refused as infinite
        values: Floats = column.cast("float64", safe=False).to_numpy().astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(
            f"{which}: column {name!r} holds NaN or infinity, expected finite values of float32: "
            f"put numbers there, or {leave_out}"
        )
    return values


def labels_of(which: str, found: pa.Table, name: str, key: str = "label") -> npt.NDArray[Any]:
    """Return a column of whole numbers or texts.

    Args:
        which: what messages call the table.
        found: it, N rows.
        name: of the column.
        key: that names it, of `data.source`.

    Returns:
        Its cells [N], int64 or text.

    Raises:
        ValueError: the column is missing, holds something else, or has empty cells; names it.
    """
    from pyarrow import types

    column = _column(which, found, name)
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_string(column.type) or types.is_large_string(column.type):
        texts: npt.NDArray[np.str_] = column.to_numpy().astype(np.str_)
        if (texts == "").any():
            _refuse_empty(which, name, int((texts == "").sum()), len(texts))
        others = (each for each in found.column_names if each != name)
        if (texts == name).any() and any(map(is_number, others)):
            raise ValueError(f"{which}: {NO_NAMES}, found {name!r} both there and below it")
        return texts
    if types.is_boolean(column.type) or types.is_integer(column.type):
        return np.asarray(column.cast("int64"))
    if types.is_floating(column.type):
        values = np.asarray(column)
        if (values == np.rint(values)).all() and np.abs(values).max() < 2**53:
            return values.astype(np.int64)
    predict = ", or predict numbers with data.source.numbers=true" if key == "label" else ""
    raise ValueError(
        f"{which}: column {name!r} holds {column.type}, expected texts or whole numbers: name "
        f"another with data.source.{key}={predict}"
    )


def _column(which: str, found: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in found.column_names:
        raise ValueError(f"{which}: no column {name!r}, there are {told(found.column_names)}")
    column = found.column(name)
    if column.null_count:
        _refuse_empty(which, name, column.null_count, len(column))
    return column


def _refuse_empty(which: str, name: str, empty: int, rows: int) -> None:
    raise ValueError(
        f"{which}: column {name!r} is empty in {empty} of {rows} rows, expected none: fill them, "
        f"or leave the rows or the column out (data.source.drop=[{name}])"
    )


def _one_hot(tables: Tables, names: Sequence[str]) -> dict[str, pa.Table]:
    """Put `city=Oslo`, `city=Rome`, ... of 0 and 1, in their order, in the place of `city`."""
    found = dict(tables)
    first = next(iter(found))
    for name in names:
        cells = {which: labels_of(which, each, name, "one_hot") for which, each in found.items()}
        values = np.unique(cells[first])
        if 2 * len(values) > len(cells[first]):
            raise ValueError(
                f"{first}: column {name!r} has {len(values)} values in {len(cells[first])} rows, "
                f"expected few of each: leave it out with data.source.drop=[{name}]"
            )
        for which, own in cells.items():
            if strange := np.setdiff1d(own, values).tolist():
                raise ValueError(
                    f"{which}: column {name!r} has {told(strange)}, which {first} has not"
                )
            place, table = found[which].column_names.index(name), found[which].drop_columns(name)
            for number, value in enumerate(values.tolist()):
                table = table.add_column(
                    place + number, f"{name}={value}", [(own == value).astype(np.float32)]
                )
            found[which] = table
    return found
