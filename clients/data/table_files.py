"""Files of tables: a CSV or a Parquet file as an Arrow table."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

NO_NAMES = "expected the names of the columns in the first line"


def read_table(file: Path, key: str, texts: Collection[str] = ()) -> pa.Table:
    """Read a file.

    Args:
        file: it.
        key: of `data.source`, that names it.
        texts: names of columns that stay texts in a CSV, where 007 and 7 are two.

    Returns:
        What is in it, at least one row.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no table.
    """
    from pyarrow import ArrowException, parquet

    if not file.is_file():
        raise FileNotFoundError(
            f"{file.name} not found: looked for {file}. It is a table of your own, CSV or Parquet; "
            f"say where it lies with data.source.{key}="
        )
    try:
        with file.open("rb") as stream:
            packed = stream.read(4) == b"PAR1"
        found = parquet.ParquetFile(file).read() if packed else _read_csv(file, texts)
    except (ArrowException, OSError, ValueError) as error:
        story = str(error).splitlines()[0]
        raise ValueError(f"{file}: expected a CSV or a Parquet file: {story}") from error
    if not len(found):
        raise ValueError(f"{file}: no rows, expected at least 2")
    return found


def _read_csv(file: Path, texts: Collection[str]) -> pa.Table:
    from pyarrow import BufferReader, csv, input_stream, string

    with input_stream(str(file), compression="detect") as stream:
        text = stream.read()
    first = text.split(b"\n", 1)[0]
    delimiter = max((",", ";", "\t"), key=lambda sign: first.count(sign.encode()))
    # In one block: of several, the first would say of what type a column is.
    reading = csv.ReadOptions(block_size=min(max(len(text), 1), 2**31 - 1))
    parsing = csv.ParseOptions(delimiter=delimiter)
    kept = dict.fromkeys(texts, string())
    signs = ".," if delimiter == ";" else "."  # where commas part no cells they may be points
    found, *others = (
        csv.read_csv(
            BufferReader(text),
            reading,
            parsing,
            csv.ConvertOptions(decimal_point=sign, column_types=kept),
        )
        for sign in signs
    )
    if others and _texts(others[0]) < _texts(found):
        found = others[0]
    if all(map(is_number, found.column_names)):
        raise ValueError(f"{NO_NAMES}, found numbers")
    return found


def _texts(found: pa.Table) -> int:
    return sum(str(kind) == "string" for kind in found.schema.types)


def is_number(text: str) -> bool:
    """Tell whether a text is a number, as no column is called."""
    try:
        float(text)
    except ValueError:
        return False
    return True
