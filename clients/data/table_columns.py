"""Columns of a user's table: features, labels, and whose a row is."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clients.data.data_summary import told
from clients.data.table_files import NO_NAMES, is_number

if TYPE_CHECKING:
    import pyarrow as pa

    Tables = Mapping[str, pa.Table]
Floats = npt.NDArray[np.float32]


def names_of(drop: Collection[str]) -> list[str]:
    """Return names of columns; one may stand alone, as `drop=id`."""
    return [drop] if isinstance(drop, str) else [*map(str, drop)]


def features_of(
    which: str, found: pa.Table, columns: Sequence[str], one_hot: bool = False
) -> Floats:
    """Return columns of numbers.

    Args:
        which: what messages call the table.
        found: it, N rows.
        columns: names of D columns.
        one_hot: whether a text may become a feature by `data.source.one_hot`.

    Returns:
        Their numbers [N, D], float32.

    Raises:
        ValueError: a column is missing, no numbers, or has empty cells; names it.
    """
    features = np.empty((len(found), len(columns)), np.float32)
    for place, name in enumerate(columns):
        features[:, place] = _numbers(which, name, _column(which, found, name), one_hot)
    return features


def _numbers(which: str, name: str, column: pa.ChunkedArray, one_hot: bool) -> Floats:
    from pyarrow import types

    leave_out = f"leave the column out with data.source.drop=[{name}]"
    if not any(is_of(column.type) for is_of in (types.is_integer, types.is_floating,
                                                types.is_boolean, types.is_decimal)):  # fmt: skip
        others = f", or have a column of 0 and 1 for each value: data.source.one_hot=[{name}]"
        raise ValueError(
            f"{which}: column {name!r} holds {column.type}, expected numbers: {leave_out}"
            f"{others * one_hot}"
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


def owners_of(
    tables: Mapping[str, pa.Table], name: str, label: str
) -> list[npt.NDArray[Any] | None]:
    """Return whose each row is.

    Args:
        tables: that of the train set, and of the test set if it is given, by what messages call
            them; N rows.
        name: of the column that says it.
        label: that of the labels.

    Returns:
        Of each table whole numbers, or texts [N]; None where a test set has no such column.

    Raises:
        ValueError: as in `labels_of`; or it is that of the labels, or hardly two rows are of one.
    """
    first = next(iter(tables))
    if name == label:
        raise ValueError(f"{first}: data.source.owner={name} is the column of labels too")
    there = {w: each for w, each in tables.items() if w == first or name in each.column_names}
    whose = {which: labels_of(which, each, name, "owner") for which, each in there.items()}
    _few(first, "owner", name, whose[first])
    # 2 is before 10; what has zeros before it, or does not fit, stays a text, of all tables.
    plain = all(
        each.dtype.kind != "U" or re.fullmatch("-?[1-9][0-9]{0,17}|0", str(value))
        for each in whose.values()
        for value in np.unique(each).tolist()
    )
    kind = np.int64 if plain else np.str_
    return [whose[which].astype(kind) if which in whose else None for which in tables]


def _few(which: str, key: str, name: str, cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the distinct values of a column in which rows share them."""
    values = np.unique(cells)
    if 2 * len(values) > len(cells):
        raise ValueError(
            f"{which}: column {name!r} has {len(values)} values in {len(cells)} rows, expected "
            f"several rows of each: name another with data.source.{key}="
        )
    return values


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
        f"or leave out the rows, or the column, if it is a feature (data.source.drop=[{name}])"
    )


def with_one_hot(tables: Tables, names: Sequence[str]) -> dict[str, pa.Table]:
    """One-hot columns: `city=Oslo`, `city=Rome`, ... of 0 and 1 stand in the place of `city`.

    Args:
        tables: that of the train set, and of the test set if it is given, by what they are called.
        names: of the columns, of texts or whole numbers.

    Returns:
        Tables with these, in the order of their values.

    Raises:
        ValueError: as in `labels_of`; hardly two rows have one value, or one is of the test set
            alone.
    """
    found = dict(tables)
    first = next(iter(found))
    for name in names:
        cells = {which: labels_of(which, each, name, "one_hot") for which, each in found.items()}
        values = _few(first, "one_hot", name, cells[first])
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
