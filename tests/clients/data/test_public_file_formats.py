"""Where files are looked for, and what is said if they are not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients import data
from clients.data.public_file_formats import data_root


@pytest.mark.parametrize(
    ("reader", "file", "origin"),
    [
        (data.mnist, "MNIST/raw/train-images-idx3-ubyte.gz", "MNIST (Y. LeCun"),
        (data.fashion_mnist, "FashionMNIST/raw/train-images-idx3-ubyte.gz", "Zalando"),
        (data.cifar10, "cifar-10-batches-py/data_batch_1", "CIFAR-10 (A. Krizhevsky"),
        (data.cinic10, "CINIC-10/train/airplane/*.png", "CINIC-10 (L. Darlow"),
    ],
)
def test_missing_files_say_which_where_and_from_whom(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reader: Callable[[str | None], Any],
    file: str,
    origin: str,
) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        reader(str(tmp_path))
    message = str(raised.value)
    for part in (str(tmp_path / file), origin, "data.root=", "$STILLHOUSE_DATA"):
        assert part in message
    monkeypatch.delenv("STILLHOUSE_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"no data root: neither data\.root nor \$STILL"):
        reader(None)


def test_missing_npz_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as raised:
        data.npz("own.npz")
    assert str(tmp_path / "own.npz") in str(raised.value)


def test_the_argument_wins_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLHOUSE_DATA", str(tmp_path / "environment"))
    assert data_root(None) == tmp_path / "environment"
    assert data_root(str(tmp_path / "argument")) == tmp_path / "argument"
