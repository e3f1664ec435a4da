"""Every table of docs/benchmarks.md says on what, when and with which commit it was measured."""

import re

import pytest

from benchmarks.results import heading
from tests.places import ROOT

HEADING = re.compile(
    r"CPU: [^;]+; capability: \S+; date: \d{4}-\d\d-\d\d; commit: [0-9a-f]{7,40}\+?"
)
UNKNOWN = "before 2026-11-28; CPU and commit not recorded"
OLD_TABLES = 12
"""Tables under `UNKNOWN`. Measure one anew, head it and count one less; there may be no other."""


def headings_of(page: str) -> dict[int, str]:
    """Return the nearest line of text above each table, by the line the table begins on, from 1."""
    found, above, in_table = {}, "", False
    for number, line in enumerate(page.splitlines(), 1):
        is_row = line.lstrip().startswith("|")
        if is_row and not in_table:
            found[number], above = above, ""
        elif line.strip() and not is_row:
            above = line.strip()
        in_table = is_row
    return found


def unheaded(page: str) -> list[int]:
    """Return the lines on which tables begin that do not say where they come from."""
    headings = headings_of(page).items()
    return [n for n, line in headings if line != UNKNOWN and not HEADING.fullmatch(line)]


def test_every_table_is_headed_and_no_old_one_is_added() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert unheaded(page) == [], "lines: see `benchmarks.results.heading`"
    assert list(headings_of(page).values()).count(UNKNOWN) == OLD_TABLES


def test_what_the_benchmarks_print_is_such_a_heading() -> None:
    printed = heading()
    assert HEADING.fullmatch(printed) or printed.endswith("commit: none"), "outside of a repository"


TABLE = "| a | b |\n|---|---|\n| 1 | 2 |\n"
GOOD = "CPU: Some CPU @ 2 GHz; capability: AVX2; date: 2026-12-01; commit: 0123abc"


@pytest.mark.parametrize("line", [GOOD, GOOD + "+", UNKNOWN])
def test_a_headed_table_passes(line: str) -> None:
    assert unheaded(f"# Page\n\n{line}\n\n{TABLE}") == []


@pytest.mark.parametrize(
    "line",
    [
        "Two cores, no GPU.",
        GOOD.replace("capability: AVX2; ", ""),
        GOOD.replace("; commit: 0123abc", ""),
        GOOD.replace("0123abc", "none"),
        UNKNOWN + ".",
        UNKNOWN.replace("28", "29"),
        "# Page",
    ],
)
def test_a_table_without_a_whole_heading_is_refused(line: str) -> None:
    assert unheaded(f"{line}\n\n{TABLE}") == [3]


def test_each_of_two_tables_needs_its_own() -> None:
    assert unheaded(f"{GOOD}\n\n{TABLE}\nAnd:\n\n{TABLE}") == [9]
    assert unheaded(f"{GOOD}\n\n{TABLE}\n{TABLE}") == [7]
