"""The table of bytes in docs/methods.md: measured, and what the formulas say."""

import pytest

from benchmarks import wire
from conf.schema import EXAMPLES, HERE
from tests.places import ROOT

PAGE = (ROOT / "docs/methods.md").read_text()
QUICK = ("averaging", "dlad", "fd", "fedproto")
"""One of each kind; all are measured by `make test-slow`."""


def test_every_method_has_a_formula_or_a_reason_why_not() -> None:
    files = [path for place in (HERE, *EXAMPLES) for path in place.glob("strategy/*.yaml")]
    assert {path.stem for path in files} == {*wire.ROWS} | {*wire.OTHERS}
    assert not {*wire.ROWS} & {*wire.OTHERS}


REST = [pytest.param(name, marks=pytest.mark.slow) for name in wire.ROWS if name not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *REST])
def test_what_is_sent_is_what_the_formula_says_and_the_page_shows(name: str) -> None:
    """Beyond it are the headers of Flower's records: at most 200 bytes for each array."""
    sent, letters = wire.measured(name)
    arrays = 50 if name in ("fedbn", "silobn") else 14
    for way, formula in (("down", wire.ROWS[name].down), ("up", wire.ROWS[name].up)):
        assert 0 < sent[way] - wire.expected(formula, letters) < 200 * arrays
    cells = wire.line(name).split(" | ")
    assert " | ".join(cells[:7]) in PAGE  # lines of files are counted anew with the table
