"""Every reader on files written here, and on the real ones where there are any."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from clients import data
from clients.data.colour_sets import CINIC10_CLASSES
from clients.data.public_file_formats import scikit_learn_table
from tests.places import ROOT

Bytes = npt.NDArray[np.uint8]


def packed(content: bytes) -> bytes:
    """Pack without the time: test names have it in them, and two processes must agree on them."""
    return gzip.compress(content, mtime=0)


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
    assert train.task.input_shape == (1, 28, 28)
    assert train.inputs.dtype == np.uint8
    assert train.labels.tolist() == [7, 8, 9]
    assert (train.scale, train.mean) == (1 / 255, mean)
    assert train.std == test.std


def test_unpacked_idx_files_are_read_when_the_packed_are_absent(mnist_root: Path) -> None:
    before, _ = data.mnist(str(mnist_root))
    for path in (mnist_root / "MNIST" / "raw").iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    after, _ = data.mnist(str(mnist_root))
    np.testing.assert_array_equal(before.inputs, after.inputs)


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
    assert train.inputs.shape == (10, 3, 32, 32)
    assert train.inputs.dtype == np.uint8
    assert train.inputs[:, 0, 5, 5].tolist() == list(range(10))
    assert (test.inputs[8] == 77).all()
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


# --- readers: no files needed ---


def test_digits_are_all_there_and_cut_by_seed() -> None:
    train, test = data.digits()
    assert (len(train), len(test)) == (1438, 359)  # round(0.2 * 1797) = 359
    assert train.task.input_shape == (1, 8, 8)
    assert train.inputs.dtype == np.uint8
    assert (train.inputs.max(), train.scale) == (16, 1 / 16)
    # Known counts of the 10 digits in scikit-learn's set.
    counts = np.bincount(train.labels) + np.bincount(test.labels)
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    again, _ = data.digits()
    other, _ = data.digits(seed=1)
    np.testing.assert_array_equal(train.labels, again.labels)
    assert not np.array_equal(train.labels, other.labels)
    with pytest.raises(ValueError, match=r"digits: test_share=1\.0, expected a number in \(0, 1\)"):
        data.digits(test_share=1.0)


def test_what_ships_with_scikit_learn_is_read_as_it_reads_it() -> None:
    from sklearn.datasets import load_diabetes, load_digits

    table = scikit_learn_table("digits.csv.gz", ",")
    np.testing.assert_array_equal(table[:, :-1].reshape(-1, 8, 8), load_digits().images)
    np.testing.assert_array_equal(table[:, -1], load_digits().target)
    columns, progression = load_diabetes(return_X_y=True, scaled=False)
    np.testing.assert_array_equal(scikit_learn_table("diabetes_data_raw.csv.gz"), columns)
    np.testing.assert_array_equal(scikit_learn_table("diabetes_target.csv.gz"), progression)


def test_blobs_can_be_told_apart() -> None:
    """Nearest class mean, estimated on train, is right on nearly all of test.

    Centres are 5.7 apart on average, which is an error of 1 - Phi(2.8) = 0.3 % per pair; chance is
    25 %, and below 80 % could only come from labels that do not belong to their images.
    """
    train, test = data.blobs()
    assert (len(train), len(test)) == (450, 150)
    assert train.inputs.dtype == np.float32
    means = np.stack([train.inputs[train.labels == c].mean(axis=0) for c in range(4)])
    distances = np.square(test.inputs[:, None] - means[None]).sum(axis=(2, 3, 4))
    assert (distances.argmin(axis=1) == test.labels).mean() > 0.8
    with pytest.raises(ValueError, match="num_classes=0, expected at least 1"):
        data.blobs(num_classes=0)
    with pytest.raises(ValueError, match="spread=-1, expected"):
        data.blobs(spread=-1)


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
    assert train.inputs.dtype == test.inputs.dtype == np.uint8
    assert moments(train.inputs) == (list(train.mean), list(train.std))
