"""A report's tables as files: CSV for a spreadsheet, LaTeX for a paper."""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sim.report.reading import ReportError
from sim.report.tables import Table

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
"""What stands for a sign that LaTeX would take for something else."""


def write_tables(folder: Path, tables: Mapping[str, Table]) -> list[Path]:
    """Write tables as NAME.csv and NAME.tex: a `tabular` with the rules of the package booktabs.

    Args:
        folder: Exists, or is made.
        tables: By name, which becomes that of the files; one without rows is left out.

    Returns:
        The files.

    Raises:
        ReportError: One of the files is a link.
        OSError: The folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in tables.items():
        if table.rows:
            for path in (folder / f"{name}.csv", folder / f"{name}.tex"):
                if path.is_symlink():
                    raise ReportError(f"{path}: a link, which is not written through")
                written.append(path)
            with written[-2].open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(zip(*_columns(table), strict=True))
            written[-1].write_text(latex(table), encoding="utf-8")
    return written


def _columns(table: Table) -> Iterator[list[str]]:
    """Give mean and deviation a column each, in which a spreadsheet finds numbers."""
    for name, *cells in zip(table.head, *table.rows, strict=True):
        parts = [re.sub(r" \(n=\d+\)$", "", cell).split(" ± ", 1) for cell in cells]
        yield [name, *(part[0] for part in parts)]
        if any(len(part) > 1 for part in parts):
            yield [f"{name} ±", *("".join(part[1:]) for part in parts)]


def latex(table: Table) -> str:
    """Write a table as a `tabular`: the first column to the left, numbers to the right."""
    rows = [" & ".join(map(escaped, row)) for row in (table.head, *table.rows)]
    lines = [rf"{row} \tabularnewline" for row in rows]  # after \\ a row might not begin with [
    columns = "l" + "r" * (len(table.head) - 1)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:],
         r"\bottomrule", r"\end{tabular}", ""]
    )  # fmt: skip


def escaped(text: str) -> str:
    """Write a text so that LaTeX sets it as it is."""
    return re.sub(r"[\\~^±&%$#_{}]", lambda sign: LATEX[sign[0]], " ".join(text.split()))
