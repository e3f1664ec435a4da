"""`python run.py report`: from a command line to a page and its Markdown twin.

Importing it imports none of the report's dependencies: run.py does so whatever it is to do.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ABOUT = """One self-contained HTML page, and the same in Markdown, about one run or several: curves,
maps of the clients, final numbers, failures, cost, config. Runs that differ only in their seed are
one method; methods are compared over the seeds that they share."""


def main(words: Sequence[str]) -> int:
    """Write a report.

    Args:
        words: The command line after `report`.

    Returns:
        The exit status: 0, or 1 after a line on standard error that says what is wrong.
    """
    parser = argparse.ArgumentParser(prog="run.py report", description=ABOUT)
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="a run folder, or a folder that holds run folders, such as a sweep",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.html",
        help="where to write; FILE.md lies beside it (default: report.html in the run folder, "
        "in the folder that holds several, or of several folders in the current one)",
    )
    parser.add_argument(
        "--target",
        type=_share,
        metavar="SHARE",
        help="an accuracy in (0, 1]: rounds until it was reached are counted",
    )
    parser.add_argument(
        "--tables",
        type=Path,
        metavar="FOLDER",
        help="its tables there too, each as CSV and as LaTeX (booktabs)",
    )
    given = parser.parse_args(words)
    from sim.report.exports import write_tables
    from sim.report.page import render, tables_of
    from sim.report.reading import ReportError, find_runs

    try:
        runs = find_runs(given.folders)
        alone = given.folders[0] if len(given.folders) == 1 else Path()
        page = given.out or (runs[0].folder if len(runs) == 1 else alone) / "report.html"
        twin = page.with_suffix(".md")
        _require_ours(page, twin)
        for path, text in zip((page, twin), render(runs, given.target), strict=True):
            path.write_text(text, encoding="utf-8")
        files = write_tables(given.tables, tables_of(runs, given.target)) if given.tables else []
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(runs)} run{'s' * (len(runs) > 1)}: {page.resolve()} and {twin.resolve()}")
    if files:
        print(f"{len(files)} tables: {given.tables.resolve()}")
    return 0


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected in (0, 1]")
    return value


def _require_ours(page: Path, twin: Path) -> None:
    """Refuse to write over what is no report."""
    from sim.report.page import MARK
    from sim.report.reading import ReportError

    if page.suffix != ".html":
        raise ReportError(f"--out {page}: expected a name that ends in .html")
    if not page.parent.is_dir():
        raise ReportError(f"--out {page}: no such folder as {page.parent}")
    for path in (page, twin):
        if path.is_symlink():
            raise ReportError(f"{path}: a link, which is not written through; name a file by --out")
        if path.exists() and MARK.encode() not in path.read_bytes()[:500]:
            raise ReportError(f"{path}: exists and is no report; name another file by --out")
