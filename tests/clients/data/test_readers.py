"""Data sets: what a Dataset accepts, every reader on files written here, and the cuts."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import data
from clients.data import Dataset, split
from clients.data.files import data_root
from clients.data.pickles import read_pickled_dict
from clients.data.readers import CINIC10_CLASSES
from tests.places import ROOT

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


def packed(content: bytes) -> bytes:
    """Pack without the time: test names have it in them, and two processes must agree on them."""
    return gzip.compress(content, mtime=0)


def make(**changes: Any) -> data.Dataset:
    """Six images of 2x3x2 bytes, three classes."""
    fields: dict[str, Any] = {
        "name": "toy",
        "images": np.arange(72, dtype=np.uint8).reshape(6, 2, 3, 2),
        "labels": np.array([0, 1, 2, 0, 1, 2], dtype=np.int64),
        "num_classes": 3,
        "scale": 1 / 255,
        "mean": (0.5, 0.25),
        "std": (0.2, 0.3),
    }
    return data.Dataset(**(fields | changes))


# --- Dataset ---


def test_dataset_keeps_its_dtype_and_knows_its_shape() -> None:
    dataset = make()
    assert len(dataset) == 6
    assert dataset.image_shape == (2, 3, 2)
    assert dataset.images.dtype == np.uint8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((6, 4), np.uint8)}, r"toy: images has shape \(6, 4\)"),
        ({"images": np.zeros((6, 2, 3, 2))}, "toy: images has dtype float64"),
        ({"images": np.full((6, 2, 3, 2), np.nan, np.float32)}, "toy: images holds NaN"),
        ({"labels": np.zeros(5, np.int64)}, r"toy: labels has shape \(5,\), expected \(6,\)"),
        ({"labels": np.zeros(6, np.int32)}, "toy: labels has dtype int32, expected int64"),
        ({"labels": np.full(6, 3)}, r"toy: labels lie in 3\.\.3, expected 0\.\.2"),
        ({"labels": np.full(6, -1)}, r"toy: labels lie in -1\.\.-1, expected 0\.\.2"),
        ({"num_classes": 0}, "toy: num_classes=0, expected at least 1"),
        ({"mean": (0.5,)}, r"toy: mean=\(0.5,\), expected one value per channel \(2\)"),
        ({"mean": (0.5, np.inf)}, "toy: mean=.*expected finite"),
        ({"std": (0.2, 0.0)}, r"toy: std=\(0.2, 0.0\), expected > 0"),
        ({"scale": 0.0}, "toy: scale=0.0, expected a finite number > 0"),
    ],
)
def test_dataset_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_subset_copies() -> None:
    dataset = make()
    part = data.subset(dataset, np.array([4, 1]))
    np.testing.assert_array_equal(part.images, dataset.images[[4, 1]])
    assert part.labels.tolist() == [1, 1]
    assert part.images.dtype == np.uint8
    assert not np.shares_memory(part.images, dataset.images)
    assert not np.shares_memory(part.labels, dataset.labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_normalised_is_what_the_formula_says(dtype: type) -> None:
    """Against float64, within 4 roundings (gain, product, shift, difference) of a float32.

    The largest product is 255/255/0.2 = 5, so a rounding is at most 5 * 2^-24 = 3e-7.
    """
    rng = np.random.default_rng(0)
    images: npt.NDArray[Any] = rng.integers(0, 256, (50, 2, 5, 4)).astype(dtype)
    images[0], images[1] = 0, 255
    dataset = make(images=images, labels=np.zeros(50, np.int64))
    indices = rng.permutation(50)[:20]
    mean, std = np.array(dataset.mean)[:, None, None], np.array(dataset.std)[:, None, None]
    expected = (images[indices].astype(np.float64) / 255 - mean) / std
    found = data.normalised(dataset, indices)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * 5 * 2**-24)


def test_normalised_is_fresh_writable_and_contiguous_even_from_a_read_only_view() -> None:
    # Channels last and frozen, as images may lie in shared memory; scale 1, mean 0, std 1 would let
    # a careless version hand out the store itself.
    store = np.ones((6, 3, 2, 2), np.float32)
    store.flags.writeable = False
    dataset = make(images=store.transpose(0, 3, 1, 2), scale=1.0, mean=(0.0, 0.0), std=(1.0, 1.0))
    batch = data.normalised(dataset, np.arange(6))
    assert batch.flags.c_contiguous
    assert batch.flags.writeable
    batch += 1
    assert (store == 1).all()


# --- readers: files written here ---


def idx(array: Bytes, magic: int | None = None) -> bytes:
    magic = {3: 2051, 1: 2049}[array.ndim] if magic is None else magic
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


@pytest.fixture
def mnist_root(tmp_path: Path) -> Path:
    """Three train and two test images under both names."""
    rng = np.random.default_rng(0)
    for name in ("MNIST", "FashionMNIST"):
        folder = tmp_path / name / "raw"
        folder.mkdir(parents=True)
        for part, count in (("train", 3), ("t10k", 2)):
            images: Bytes = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
            labels = np.arange(count, dtype=np.uint8) + 7
            path = folder / f"{part}-images-idx3-ubyte.gz"
            path.write_bytes(packed(idx(images)))
            path = folder / f"{part}-labels-idx1-ubyte.gz"
            path.write_bytes(packed(idx(labels)))
    return tmp_path


@pytest.mark.parametrize(
    ("reader", "mean"), [(data.mnist, (0.1307,)), (data.fashion_mnist, (0.2860,))]
)
def test_idx_files_are_read(
    mnist_root: Path,
    reader: Callable[[str], tuple[data.Dataset, data.Dataset]],
    mean: tuple[float, ...],
) -> None:
    train, test = reader(str(mnist_root))
    assert (len(train), len(test)) == (3, 2)
    assert train.image_shape == (1, 28, 28)
    assert train.images.dtype == np.uint8
    assert train.labels.tolist() == [7, 8, 9]
    assert (train.scale, train.mean) == (1 / 255, mean)
    assert train.std == test.std


def test_unpacked_idx_files_are_read_when_the_packed_are_absent(mnist_root: Path) -> None:
    before, _ = data.mnist(str(mnist_root))
    for path in (mnist_root / "MNIST" / "raw").iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    after, _ = data.mnist(str(mnist_root))
    np.testing.assert_array_equal(before.images, after.images)


ZERO_IMAGES = np.zeros((3, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packed(idx(ZERO_IMAGES))[:-9], "truncated or corrupt gzip"),
        (packed(idx(ZERO_IMAGES))[:20], "truncated or corrupt gzip"),
        (b"<html>404</html>", "truncated or corrupt gzip"),
        (packed(b"\0\0\x08"), "expected a header of 16 bytes, found 3"),
        (packed(idx(ZERO_IMAGES, 2049)), "expected magic 2051, found 2049"),
        (
            packed(idx(ZERO_IMAGES[:, :27])),
            r"expected dimensions \['any', 28, 28\], found \[3, 27, 28\]",
        ),
        (packed(idx(ZERO_IMAGES)[:-1]), "expected 2368 bytes.*found 2367"),
        (packed(idx(ZERO_IMAGES) + b"x"), "expected 2368 bytes.*found 2369"),
    ],
)
def test_corrupt_idx_files_are_named(mnist_root: Path, content: bytes, message: str) -> None:
    path = mnist_root / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        data.mnist(str(mnist_root))
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([1, 2], r"expected dimensions \[3\], found \[2\]"), ([1, 2, 10], r"labels lie in 1\.\.10")],
)
def test_wrong_idx_labels_are_named(mnist_root: Path, labels: list[int], message: str) -> None:
    path = mnist_root / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(packed(idx(np.array(labels, np.uint8))))
    with pytest.raises(ValueError, match=message) as raised:
        data.mnist(str(mnist_root))
    assert str(path) in str(raised.value)


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
    assert train.image_shape == (3, 32, 32)
    assert train.images.dtype == np.uint8
    # Row-major planes: the second pixel of the green plane's second row is number 1024 + 32 + 1.
    assert train.images[0, 1, 1, 1] == cifar_batch(2, 1)["data"][0, 1024 + 32 + 1]
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


@pytest.fixture
def cinic_root(tmp_path: Path) -> Path:
    """One image per class and folder, its red channel the class; ship's test image is grey."""
    from PIL import Image

    for part in ("train", "valid", "test"):
        for label, name in enumerate(CINIC10_CLASSES):
            folder = tmp_path / "CINIC-10" / part / name
            folder.mkdir(parents=True)
            pixels = np.zeros((32, 32, 3), np.uint8)
            pixels[..., 0] = label
            image = Image.fromarray(pixels)
            if (part, name) == ("test", "ship"):
                image = Image.fromarray(np.full((32, 32), 77, np.uint8))
            image.save(folder / "one.png")
    return tmp_path


def test_image_folders_are_read(cinic_root: Path) -> None:
    train, test = data.cinic10(str(cinic_root))
    assert train.labels.tolist() == list(range(10))
    assert train.images.shape == (10, 3, 32, 32)
    assert train.images.dtype == np.uint8
    assert train.images[:, 0, 5, 5].tolist() == list(range(10))
    assert (test.images[8] == 77).all()
    both, _ = data.cinic10(str(cinic_root), include_valid=True)
    assert len(both) == 20


def test_broken_and_missing_images_are_named(cinic_root: Path) -> None:
    from PIL import Image

    path = cinic_root / "CINIC-10" / "train" / "cat" / "one.png"
    whole = path.read_bytes()
    for content in (b"no image", whole[:60], whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="expected a PNG image") as raised:
            data.cinic10(str(cinic_root))
        assert str(path) in str(raised.value)
    Image.new("RGB", (32, 16)).save(path)
    with pytest.raises(ValueError, match=r"expected .*\(32, 32\), found \(16, 32\)"):
        data.cinic10(str(cinic_root))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"train/cat/\*\.png.*CINIC-10 \(L\. Darlow"):
        data.cinic10(str(cinic_root))


def save(path: Path, **arrays: npt.NDArray[Any]) -> str:
    np.savez(path, allow_pickle=True, **arrays)
    return str(path)


def test_npz_is_read_as_bytes_or_floats(tmp_path: Path) -> None:
    rng, labels = np.random.default_rng(0), np.arange(10) % 3
    grey = rng.integers(0, 256, (10, 4, 5), dtype=np.uint8)
    train, test = data.npz(save(tmp_path / "a.npz", images=grey, labels=labels))
    assert (len(train), len(test), train.num_classes) == (8, 2, 3)
    assert train.image_shape == (1, 4, 5)
    assert train.images.dtype == np.uint8
    assert train.scale == 1 / 255
    colour = rng.normal(size=(10, 3, 4, 5))
    path = save(
        tmp_path / "b.npz",
        images=colour,
        labels=labels.astype(np.uint8),
        test_images=colour[:4],
        test_labels=np.array([0, 1, 2, 7]),
    )
    train, test = data.npz(path, num_classes=8)
    assert (len(train), len(test), train.num_classes, test.num_classes) == (10, 4, 8, 8)
    assert train.images.dtype == np.float32
    assert train.scale == 1.0
    inputs = data.normalised(train, np.arange(10)).astype(np.float64)
    # Normalised by its own moments; 200 float32 numbers of size 1 leave 1e-7 each at most.
    np.testing.assert_allclose(inputs.mean(axis=(0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(inputs.std(axis=(0, 2, 3)), 1, atol=1e-6)
    assert train.mean == test.mean


GREY, LABELS = np.arange(160, dtype=np.uint8).reshape(10, 4, 4), np.arange(10)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GREY}, r"expected an array labels, found \['images'\]"),
        ({"images": GREY, "labels": LABELS, "test_labels": LABELS}, "an array test_images"),
        ({"images": GREY[0], "labels": LABELS}, r"expected images as \[N, C, H, W\]"),
        ({"images": GREY.astype(np.int64), "labels": LABELS}, "expected images as uint8 or floats"),
        ({"images": GREY, "labels": LABELS * 1.0}, "expected labels as integers"),
        ({"images": GREY, "labels": LABELS[:9]}, "9 labels for 10 images"),
        ({"images": GREY, "labels": LABELS - 1}, "labels go down to -1, expected none"),
        ({"images": GREY * np.nan, "labels": LABELS}, "images holds NaN"),
        ({"images": GREY, "labels": np.array([{}] * 10)}, "plain arrays: Object arrays cannot"),
        (
            {"images": GREY, "labels": LABELS, "test_images": GREY[:, :2], "test_labels": LABELS},
            r"expected test_images as uint8 \[1, 4, 4\] like images, found uint8 \[1, 2, 4\]",
        ),
    ],
)
def test_wrong_npz_files_are_named(
    tmp_path: Path, arrays: dict[str, npt.NDArray[Any]], message: str
) -> None:
    path = save(tmp_path / "own.npz", **arrays)
    with pytest.raises(ValueError, match=message) as raised:
        data.npz(path)
    assert "own.npz" in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut"])
def test_corrupt_npz_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected an \.npz file of plain arrays") as raised:
        data.npz(str(path))
    assert str(path) in str(raised.value)
    np.save(tmp_path / "single.npy", GREY)
    with pytest.raises(ValueError, match="it holds a single array"):
        data.npz(str(tmp_path / "single.npy"))


# --- readers: no files needed ---


def test_digits_are_all_there_and_cut_by_seed() -> None:
    train, test = data.digits()
    assert (len(train), len(test)) == (1438, 359)  # round(0.2 * 1797) = 359
    assert train.image_shape == (1, 8, 8)
    assert train.images.dtype == np.uint8
    assert (train.images.max(), train.scale) == (16, 1 / 16)
    # Known counts of the 10 digits in scikit-learn's set.
    counts = np.bincount(train.labels) + np.bincount(test.labels)
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    again, _ = data.digits()
    other, _ = data.digits(seed=1)
    np.testing.assert_array_equal(train.labels, again.labels)
    assert not np.array_equal(train.labels, other.labels)
    with pytest.raises(ValueError, match=r"digits: test_share=1\.0, expected a number in \(0, 1\)"):
        data.digits(test_share=1.0)


def test_blobs_can_be_told_apart() -> None:
    """Nearest class mean, estimated on train, is right on nearly all of test.

    Centres are 5.7 apart on average, which is an error of 1 - Phi(2.8) = 0.3 % per pair; chance is
    25 %, and below 80 % could only come from labels that do not belong to their images.
    """
    train, test = data.blobs()
    assert (len(train), len(test)) == (450, 150)
    assert train.images.dtype == np.float32
    means = np.stack([train.images[train.labels == c].mean(axis=0) for c in range(4)])
    distances = np.square(test.images[:, None] - means[None]).sum(axis=(2, 3, 4))
    assert (distances.argmin(axis=1) == test.labels).mean() > 0.8
    with pytest.raises(ValueError, match="num_classes=0, expected at least 1"):
        data.blobs(num_classes=0)
    with pytest.raises(ValueError, match="spread=-1, expected"):
        data.blobs(spread=-1)


# --- where files are looked for ---


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


# --- splits ---


def numbered(count: int, name: str = "numbered") -> data.Dataset:
    """Images that are their own number, so that an example can be recognised."""
    images = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1)
    return data.Dataset(name, images, np.zeros(count, np.int64), 2, 1.0, (7.0,), (3.0,))


def numbers(dataset: data.Dataset) -> list[int]:
    return [int(value) for value in dataset.images.ravel()]


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(10, 60),
    share=st.floats(0.1, 0.9),
    limited=st.booleans(),
    proxy_limit=st.none() | st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_private_and_proxy_are_disjoint(
    count: int, share: float, limited: bool, proxy_limit: int | None, seed: int
) -> None:
    limit = max(8, count // 2) if limited else None
    used = limit or count
    splits = data.split(
        numbered(count),
        numbered(3),
        proxy_share=share,
        proxy_source=None,
        limit=limit,
        proxy_limit=proxy_limit,
        rng=np.random.default_rng(seed),
    )
    private, proxy = numbers(splits.private), numbers(splits.proxy)
    assert len(set(private + proxy)) == len(private) + len(proxy)
    assert set(private + proxy) <= set(range(count))
    num_proxy = round(share * used)
    assert len(private) == used - num_proxy  # whatever proxy_limit says
    assert len(proxy) == min(num_proxy, proxy_limit or num_proxy)
    assert len(splits.test) == 3


def cut(train: data.Dataset, **changes: Any) -> data.Splits:
    options: dict[str, Any] = {
        "proxy_share": 0.25,
        "proxy_source": None,
        "limit": None,
        "proxy_limit": None,
        "rng": np.random.default_rng(0),
    }
    return data.split(train, train, **(options | changes))


def test_a_split_is_shuffled_and_repeatable() -> None:
    first, again = cut(numbered(40)), cut(numbered(40))
    assert numbers(first.private) == numbers(again.private)
    assert numbers(first.proxy) != sorted(numbers(first.proxy))
    other = cut(numbered(40), rng=np.random.default_rng(1))
    assert numbers(first.private) != numbers(other.private)


def test_another_data_set_as_proxy_is_normalised_like_the_private_set() -> None:
    train = make()
    source = make(name="foreign", mean=(0.0, 0.0), std=(1.0, 1.0), num_classes=9, scale=0.5)
    source = replace(source, images=255 - source.images)
    splits = cut(train, proxy_source=source, proxy_limit=4)
    assert (len(splits.private), len(splits.proxy)) == (6, 4)
    assert (splits.proxy.mean, splits.proxy.std) == (train.mean, train.std)
    assert (splits.proxy.name, splits.proxy.scale) == ("foreign", 0.5)
    assert source.mean == (0.0, 0.0)


def test_images_that_clients_or_the_test_have_are_left_out_of_a_foreign_proxy_set() -> None:
    train, test = numbered(10), numbered(4)
    test = replace(test, images=test.images + 100)
    images = np.concatenate([train.images[:3], test.images[1:], train.images + 50])
    source = Dataset("foreign", images, np.zeros(16, np.int64), 1, 1.0, train.mean, train.std)
    splits = split(
        train, test, proxy_share=0.5, proxy_source=source, limit=None, proxy_limit=None,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    found = {image.tobytes() for image in splits.proxy.images}
    assert found == {image.tobytes() for image in train.images + 50}
    with pytest.raises(ValueError, match="every image of it is in"):
        cut(train, proxy_source=train)


@pytest.mark.parametrize("told", ["bytes as floats", "floats as bytes", "floats of half precision"])
def test_a_foreign_proxy_set_is_compared_by_what_networks_see(told: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 1, 4, 4), dtype=np.uint8)
    stored = Dataset("stored", pixels, np.zeros(40, np.int64), 2, 1 / 255, (0.5,), (0.3,))
    floats = (pixels / 255).astype(np.float32)
    if "half" in told:
        stored = replace(stored, images=floats - 0.001, scale=1.0)
        floats = (floats - 0.001).astype(np.float16).astype(np.float32)
    copies = replace(stored, name="copies", images=floats, scale=1.0)
    ours, theirs = (copies, stored) if told == "floats as bytes" else (stored, copies)
    train, test = data.subset(ours, np.arange(25)), data.subset(ours, np.arange(25, 30))
    splits = split(
        train, test, proxy_share=0.2, proxy_source=theirs, limit=None, proxy_limit=None, rng=rng,
    )  # fmt: skip
    kept = {image.tobytes() for image in splits.proxy.images}
    assert kept == {image.tobytes() for image in theirs.images[30:]}


def test_no_proxy_set_on_request() -> None:
    splits = cut(numbered(10), proxy_share=0.0)
    assert (len(splits.private), len(splits.proxy)) == (10, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proxy_share": 1.0}, r"proxy_share=1\.0, expected a number in \[0, 1\)"),
        ({"proxy_share": -0.1}, r"proxy_share=-0\.1, expected a number in \[0, 1\)"),
        ({"proxy_share": 0.001}, r"proxy_share=0\.001 of 10 examples leaves 0 for the proxy"),
        ({"proxy_share": 0.999}, r"proxy_share=0\.999 of 10 .* and 0 for the private"),
        ({"limit": 11}, r"limit=11, expected 1\.\.10, the training examples of numbered"),
        ({"limit": 0}, r"limit=0, expected 1\.\.10"),
        ({"proxy_limit": 0}, "proxy_limit=0, expected at least 1"),
        ({"proxy_source": make()}, r"toy has images of shape \(2, 3, 2\), expected \(1, 1, 1\)"),
        ({"proxy_source": numbered(0, "none")}, "proxy_source=none is empty"),
    ],
)
def test_split_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cut(numbered(10), **changes)


# --- the real files, where there are any ---


def real_root() -> Path:
    return Path(os.environ.get("STILLHOUSE_DATA") or ROOT.parent / "shared" / "data")


def needs(folder: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not (real_root() / folder).is_dir(), reason=f"no {folder} in {real_root()}"
    )


def moments(images: Bytes) -> tuple[list[float], list[float]]:
    """Channel means and deviations of images / 255 to 4 decimals, by counting pixel values."""
    means, deviations, values = [], [], np.arange(256) / 255
    for channel in images.transpose(1, 0, 2, 3):
        shares = np.bincount(channel.ravel(), minlength=256) / channel.size
        means.append(round(float(shares @ values), 4))
        deviations.append(round(float(np.sqrt(shares @ values**2 - (shares @ values) ** 2)), 4))
    return means, deviations


@pytest.mark.parametrize(
    ("reader", "train_counts", "test_counts"),
    [
        pytest.param(
            data.mnist,
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
            [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
            marks=needs("MNIST"),
        ),
        pytest.param(data.fashion_mnist, [6000] * 10, [1000] * 10, marks=needs("FashionMNIST")),
        pytest.param(data.cifar10, [5000] * 10, [1000] * 10, marks=needs("cifar-10-batches-py")),
    ],
)
def test_real_files_have_the_known_counts_and_moments(
    reader: Callable[[str], tuple[data.Dataset, data.Dataset]],
    train_counts: list[int],
    test_counts: list[int],
) -> None:
    train, test = reader(str(real_root()))
    assert np.bincount(train.labels).tolist() == train_counts
    assert np.bincount(test.labels).tolist() == test_counts
    assert train.images.dtype == test.images.dtype == np.uint8
    assert moments(train.images) == (list(train.mean), list(train.std))


def test_importing_data_and_partition_imports_nothing_heavy() -> None:
    code = (
        "import sys, clients.data, clients.partition; "
        "print(*{'torch', 'ray', 'flwr', 'hydra', 'sklearn', 'PIL'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
