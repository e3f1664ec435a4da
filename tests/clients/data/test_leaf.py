"""LEAF's files, written as its scripts do, and what is no such file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import data


def write(root: Path, which: str, file: str, users: dict[str, Any]) -> None:
    folder = root / "femnist" / which
    folder.mkdir(parents=True, exist_ok=True)
    counts = [len(each["y"]) for each in users.values()]
    content = {"users": [*users], "num_samples": counts, "user_data": users}
    (folder / file).write_text(json.dumps(content))


def writer(*labels: int, first: float = 0.0) -> dict[str, Any]:
    rng = np.random.default_rng(len(labels))
    images = rng.uniform(0, 1, (len(labels), 784)).round(3)
    images[:, 0] = first
    return {"x": images.tolist(), "y": [*labels]}


def test_writers_are_owners(tmp_path: Path) -> None:
    write(
        tmp_path,
        "train",
        "all_data_0.json",
        {"f01_2": writer(3, 61), "f00_1": writer(0, 0, 9), "f09": writer()},
    )
    write(tmp_path, "train", "all_data_1.json", {"f02_9": writer(5)})
    write(tmp_path, "test", "all_data_0.json", {"f00_1": writer(1, first=0.5)})
    train, test = data.femnist(str(tmp_path))
    assert (train.inputs.shape, train.inputs.dtype) == ((6, 1, 28, 28), np.float32)
    assert train.labels.tolist() == [3, 61, 0, 0, 9, 5]
    assert train.task.num_classes == 62
    assert train.owners is not None
    assert train.owners.tolist() == [1, 1, 0, 0, 0, 2]
    assert train.owner_values == ("f00_1", "f01_2", "f02_9")
    assert (test.labels.tolist(), test.inputs[0, 0, 0, 0]) == ([1], 0.5)
    assert test.owners is not None
    assert (test.owners.tolist(), test.owner_values) == ([0], train.owner_values)
    assert (test.mean, test.std) == (train.mean, train.std)


def test_what_leaf_did_not_write_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="github.com/TalwalkarLab/leaf"):
        data.femnist(str(tmp_path))
    write(tmp_path, "train", "a.json", {"w": writer(0, 1)})
    with pytest.raises(FileNotFoundError, match="test"):
        data.femnist(str(tmp_path))
    write(tmp_path, "test", "a.json", {"w": writer(0)})
    for users, said in (
        ({"w": writer(62)}, "labels 62 to 62 of w"),
        ({"w": {"x": [[0.5] * 784], "y": [1, 2]}}, "1 images and .2,. labels of w"),
        ({"w": {"x": [[0.5] * 10], "y": [1]}}, "reshape"),
        ({"w": {"x": [[float("nan")] * 784], "y": [1]}}, "pixels of w beyond 0 to 1"),
        ({"w": {"x": [[255.0] * 784], "y": [1]}}, "pixels of w beyond 0 to 1"),
        ({"w": {"x": [[0.5] * 784], "y": [1.5]}}, "1 images and .1,. labels of w"),
        ({"w": writer(-1)}, "labels -1 to -1 of w"),
        ({"w": {"y": [1]}}, "'x'"),
        ({}, "it has no writer with an image"),
    ):
        write(tmp_path, "train", "a.json", users)
        with pytest.raises(ValueError, match=rf"train/a.json: expected .*{said}"):
            data.femnist(str(tmp_path))
    (tmp_path / "femnist/train/a.json").write_text("[1")
    with pytest.raises(ValueError, match=r"a\.json: expected .*writer"):
        data.femnist(str(tmp_path))
