"""A partition from a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import partition
from tests.labels import Ints, balanced


def read(tmp_path: Path, content: Any, num_examples: int = 5, **options: bool) -> Sequence[Ints]:
    file = tmp_path / "parts.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    labels = np.zeros(num_examples, dtype=np.int64)
    rng = np.random.default_rng(0)
    return partition.from_file(labels, 2, rng, path=str(file), **options)


def test_from_file_reads_what_was_written(tmp_path: Path) -> None:
    parts = read(tmp_path, {"1": [4, 0], "0": [3, 1, 2]})
    assert [part.tolist() for part in parts] == [[1, 2, 3], [0, 4]]


def test_from_file_may_leave_examples_unused_on_request(tmp_path: Path) -> None:
    parts = read(tmp_path, {"0": [1], "1": [4]}, allow_unused=True)
    assert [part.tolist() for part in parts] == [[1], [4]]
    with pytest.raises(ValueError, match=r"3 of 5 indices belong to no client.*allow_unused"):
        read(tmp_path, {"0": [1], "1": [4]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected JSON"),
        ("[]", "expected a JSON object, found list"),
        ({"0": [0], "2": [1]}, r"expected the keys 0..1.*lacking \['1'\], foreign \['2'\]"),
        ({"0": [0, 1, 2, 3, 4], "1": []}, "client 1: expected a list of at least 1"),
        ({"0": [0, 1, 2.0], "1": [3, 4]}, "client 0: expected a list of at least 1 whole number"),
        ({"0": [0, True, 2], "1": [3, 4]}, "client 0: expected a list of at least 1 whole number"),
        ({"0": [0, 2**70], "1": [3, 4]}, "client 0: an index does not fit"),
        ({"0": [0, 1, 2], "1": [3, 5]}, r"client 1 has indices 3..5, expected 0..4"),
        ({"0": [-1, 1, 2], "1": [3, 4]}, r"client 0 has indices -1..2, expected 0..4"),
        ({"0": [0, 1, 2, 4], "1": [3, 4]}, "1 indices occur more than once"),
    ],
)
def test_from_file_refuses(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        read(tmp_path, content, allow_unused=True)
    assert str(tmp_path / "parts.json") in str(raised.value)


def test_from_file_says_where_it_looked(tmp_path: Path) -> None:
    path = str(tmp_path / "nowhere.json")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json not found: looked for /"):
        partition.from_file(balanced(), 2, np.random.default_rng(0), path=path)
