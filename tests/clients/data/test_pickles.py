"""CIFAR's batches are pickles from anybody: what is read, what is refused."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import data
from clients.data.pickles import read_pickled_dict


def cifar_batch(count: int, seed: int) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"batch_label": "toy", "labels": [seed] * count, "data": pixels, "filenames": ["x"]}


@pytest.fixture
def cifar_root(tmp_path: Path) -> Path:
    """Five batches of 2 and a test batch of 3; the first names its globals as numpy 1 did."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for n in range(1, 6):
        content = pickle.dumps(cifar_batch(2, n), protocol=3)
        if n == 1:  # protocol 3 ends names with a newline, so their lengths may change
            content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            assert b"numpy.core.multiarray" in content
        (folder / f"data_batch_{n}").write_bytes(content)
    (folder / "test_batch").write_bytes(pickle.dumps(cifar_batch(3, 9), protocol=4))
    return tmp_path


def test_cifar_batches_are_read_in_order(cifar_root: Path) -> None:
    train, test = data.cifar10(str(cifar_root))
    assert (len(train), len(test)) == (10, 3)
    assert train.labels.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert train.task.input_shape == (3, 32, 32)
    assert train.inputs.dtype == np.uint8
    # Row-major planes: the second pixel of the green plane's second row is number 1024 + 32 + 1.
    assert train.inputs[0, 1, 1, 1] == cifar_batch(2, 1)["data"][0, 1024 + 32 + 1]
    assert train.mean == test.mean == (0.4914, 0.4822, 0.4465)


class Forged:
    """Pickled as a call of any function with any arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_foreign_global_is_refused_and_not_run(cifar_root: Path, protocol: int) -> None:
    path, marker = cifar_root / "cifar-10-batches-py" / "data_batch_3", cifar_root / "marker"
    forged = {"labels": [0], "data": Forged(os.system, f"touch {marker}")}
    path.write_bytes(pickle.dumps(forged, protocol=protocol))
    with pytest.raises(ValueError, match=r"asks for (posix|nt)\.system.*refused and not run") as e:
        data.cifar10(str(cifar_root))
    assert str(path) in str(e.value)
    assert not marker.exists()
    pickle.loads(path.read_bytes())  # what would have happened: the forgery itself works
    assert marker.exists()


@pytest.mark.parametrize(
    "function", [eval, np.load, np.frombuffer, np.ndarray.tofile, pickle.loads]
)
def test_nothing_but_array_parts_is_allowed(tmp_path: Path, function: Callable[..., Any]) -> None:
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps(Forged(function, "x"), protocol=4))
    with pytest.raises(ValueError, match="refused and not run"):
        read_pickled_dict(path)


PIXELS = cifar_batch(2, 0)["data"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(cifar_batch(2, 1), protocol=4)[:-500], "corrupt pickle"),
        (b"", "corrupt pickle"),
        (b"<html>404</html>", "corrupt pickle"),
        (pickle.dumps([1]), "expected a pickled dict, found list"),
        (pickle.dumps({"data": 1}), r"expected keys data and labels, found \['data'\]"),
        (pickle.dumps({"data": 1, "labels": [1]}), r"expected data as uint8.*found int"),
        (
            pickle.dumps({"data": PIXELS[:, :99], "labels": [1, 2]}, protocol=4),
            r"expected data \[2, 3072\] for 2 labels, found \[2, 99\]",
        ),
        (
            pickle.dumps({"data": PIXELS, "labels": [1]}, protocol=4),
            r"expected data \[1, 3072\] for 1 labels, found \[2, 3072\]",
        ),
        (
            pickle.dumps({"data": PIXELS, "labels": ["a", "b"]}, protocol=4),
            r"expected labels as integers \[N\]",
        ),
        (pickle.dumps({"data": PIXELS, "labels": [[1], [1, 2]]}, protocol=4), "a ragged list"),
    ],
)
def test_corrupt_cifar_batches_are_named(cifar_root: Path, content: bytes, message: str) -> None:
    path = cifar_root / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        data.cifar10(str(cifar_root))
    assert str(path) in str(raised.value)
