"""Each small input that failed once, or that figures were checked on, has a test: what is right."""

import re
from pathlib import Path

import pytest

from tests.fault_cases import FAULTS, NUMBERS, PLUGINS
from tests.places import ROOT
from tests.user_cases import USERS

TABLES = {"users": USERS, "numbers": NUMBERS, "faults": FAULTS, "plugins": PLUGINS}
CASES = {f"{table}/{name}": case for table, rows in TABLES.items() for name, case in rows.items()}
CHECKS = {case.check: name for name, case in CASES.items() if case.check}
"""Of cases with one check the last: it is done once."""


def test_how_many_cases_there_are() -> None:
    assert {name: len(rows) for name, rows in TABLES.items()} == {
        "users": 24, "numbers": 24, "faults": 16, "plugins": 1,
    }  # fmt: skip
    assert all(case.right and (case.tests or case.check) for case in CASES.values())


@pytest.mark.parametrize("test", sorted({test for case in CASES.values() for test in case.tests}))
def test_a_test_that_is_named_exists(test: str) -> None:
    module, name = test.split(".")
    text = (ROOT / "tests" / f"{module}.py").read_text()
    assert re.search(rf"^def {name}\(", text, re.MULTILINE)


@pytest.mark.parametrize("check", CHECKS, ids=CHECKS.values())
def test_a_case_is_right(check: object, tmp_path: Path) -> None:
    assert callable(check)
    check(tmp_path)
