"""Kuzushiji, letters, CIFAR-100 and house numbers, from files written here as their authors do."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from clients import data
from clients.data.idx_sets import EMNIST_CLASSES


def write_idx(path: Path, array: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">{1 + array.ndim}I", 2048 + array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def write_pair(folder: Path, stem: str, images: Any, labels: Any) -> None:
    write_idx(folder / f"{stem}-images-idx3-ubyte.gz", images)
    write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", np.array(labels))


def noise(count: int) -> Any:
    return np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def test_kuzushiji_is_in_mnists_format(tmp_path: Path) -> None:
    for stem in ("train", "t10k"):
        write_pair(tmp_path / "KMNIST" / "raw", stem, noise(3), [7, 0, 9])
    train, test = data.kmnist(str(tmp_path))
    np.testing.assert_array_equal(train.inputs[:, 0], noise(3))
    assert train.labels.tolist() == test.labels.tolist() == [7, 0, 9]


@pytest.mark.parametrize("cut", EMNIST_CLASSES)
def test_letters_stand_upright_and_begin_with_0(cut: str, tmp_path: Path) -> None:
    first, last = (1, 26) if cut == "letters" else (0, EMNIST_CLASSES[cut] - 1)
    for part, count in (("train", 4), ("test", 2)):
        labels = [first, last, first, last][:count]
        write_pair(tmp_path / "EMNIST" / "raw", f"emnist-{cut}-{part}", noise(count), labels)
    train, test = data.emnist(str(tmp_path), cut)
    assert train.labels.tolist() == [0, last - first, 0, last - first]
    assert train.task.num_classes == EMNIST_CLASSES[cut]
    np.testing.assert_array_equal(train.inputs[:, 0], noise(4).transpose(0, 2, 1))
    assert train.mean == test.mean == (pytest.approx(noise(4).mean() / 255),)
    with pytest.raises(ValueError, match=r"data.source.cut=upper: expected one of balanced, "):
        data.emnist(str(tmp_path), "upper")


def write_cifar100(root: Path, **changes: Any) -> None:
    folder = root / "cifar-100-python"
    folder.mkdir(exist_ok=True)
    for part in ("train", "test"):
        pixels = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, 3072)
        content = {"data": pixels, "fine_labels": [99, 3], "coarse_labels": [19, 0], **changes}
        (folder / part).write_bytes(pickle.dumps(content, protocol=4))


def test_cifar100_has_classes_and_superclasses(tmp_path: Path) -> None:
    write_cifar100(tmp_path)
    train, _ = data.cifar100(str(tmp_path))
    assert (train.labels.tolist(), train.task.num_classes) == ([99, 3], 100)
    assert train.inputs[0, :, 0, 0].tolist() == [0, 1024 % 256, 2048 % 256]
    coarse, _ = data.cifar100(str(tmp_path), coarse=True)
    assert (coarse.labels.tolist(), coarse.task.num_classes) == ([19, 0], 20)
    write_cifar100(tmp_path, fine_labels=[100, 3])
    with pytest.raises(ValueError, match=r"cifar-100-python/train: .*labels lie in 3\.\.100"):
        data.cifar100(str(tmp_path))
    (tmp_path / "cifar-100-python" / "test").unlink()
    write_cifar100(tmp_path)
    (tmp_path / "cifar-100-python" / "train").write_bytes(pickle.dumps({"data": 1}))
    with pytest.raises(ValueError, match="expected keys data and fine_labels, found"):
        data.cifar100(str(tmp_path))


def write_svhn(root: Path, **changes: Any) -> Path:
    folder = root / "SVHN"
    folder.mkdir(exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 2), dtype=np.uint8)
    content = {"X": images, "y": np.array([[10], [4]], np.uint8), **changes}
    for part in ("train", "test"):
        savemat(folder / f"{part}_32x32.mat", content)
    return folder / "train_32x32.mat"


def test_house_numbers_have_their_0_in_its_place(tmp_path: Path) -> None:
    path = write_svhn(tmp_path)
    train, test = data.svhn(str(tmp_path))
    assert train.labels.tolist() == [0, 4]
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 2), dtype=np.uint8)
    np.testing.assert_array_equal(train.inputs[1, 2], images[:, :, 2, 1])
    assert train.mean == test.mean == pytest.approx((images / 255).mean((0, 1, 3)))
    write_svhn(tmp_path, X=images[:, :, :, :1])
    with pytest.raises(ValueError, match=r"expected X \[H, W, 3, 2\] for 2 labels, found"):
        data.svhn(str(tmp_path))
    write_svhn(tmp_path, X=images / 255)
    with pytest.raises(ValueError, match=r"expected X as uint8 \[H, W, 3, N\], found float64"):
        data.svhn(str(tmp_path))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=f"{path}: expected a MATLAB file"):
        data.svhn(str(tmp_path))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"train_32x32.mat not found.*SVHN"):
        data.svhn(str(tmp_path))


def write_stl10(root: Path, labels: list[int], images: Any) -> Path:
    """Write images [N, C, H, W] column by column."""
    folder = root / "stl10_binary"
    folder.mkdir(exist_ok=True)
    for part in ("train", "test"):
        (folder / f"{part}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())
        (folder / f"{part}_y.bin").write_bytes(bytes(labels))
    return folder


def test_stl10_stands_upright_and_begins_with_0(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 96), dtype=np.uint8)
    folder = write_stl10(tmp_path, [10, 1], images)
    train, test = data.stl10(str(tmp_path))
    np.testing.assert_array_equal(train.inputs, images)
    assert train.labels.tolist() == test.labels.tolist() == [9, 0]
    assert train.mean == test.mean == pytest.approx((images / 255).mean((0, 2, 3)))
    write_stl10(tmp_path, [10, 0], images)
    with pytest.raises(ValueError, match=r"train_y\.bin: stl10: labels lie in -1\.\.9, expected 0"):
        data.stl10(str(tmp_path))
    write_stl10(tmp_path, [1, 2, 3], images)
    with pytest.raises(ValueError, match=r"train_y\.bin: stl10: labels has shape \(3,\)"):
        data.stl10(str(tmp_path))
    (folder / "train_X.bin").write_bytes(b"0" * 100)
    with pytest.raises(ValueError, match=r"train_X\.bin: 100 bytes, expected a multiple of 27648"):
        data.stl10(str(tmp_path))
    (folder / "train_X.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"train_X\.bin not found.*STL-10"):
        data.stl10(str(tmp_path))
