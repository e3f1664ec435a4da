"""A user's own `.npz`: which values are classes, which axis is channels, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from clients import data
from tests.commands import run_py

CLASSES = np.arange(40) % 4
NOISE = np.random.default_rng(0).normal(size=(40, 1, 5, 5)).astype(np.float32)


def own(folder: Path, labels: npt.NDArray[Any], **arrays: npt.NDArray[Any]) -> str:
    np.savez(folder / "own.npz", **({"images": NOISE, "labels": labels} | arrays))
    return str(folder / "own.npz")


def test_labels_in_a_row_from_0_are_classes_and_nothing_is_said(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.int32, np.uint64):
        train, test = data.npz(own(tmp_path, CLASSES.astype(dtype)))
        assert (train.task.num_classes, train.label_values, test.label_values) == (4, None, None)
        assert data.renumbered(train) is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, 2, 3, 4], "1..4"),
        ([0, 5, 7, 1000], "0, 5, 7, 1000"),
        ([0, 1, 2, 10**9], "0, 1, 2, 1000000000"),
        ([0, 1, 2**63, 2**64 - 1], f"0, 1, {2**63}, {2**64 - 1}"),
    ],
)  # fmt: skip
def test_other_values_are_numbered_in_their_order_and_said(
    tmp_path: Path, values: list[int], said: str
) -> None:
    found = np.array(values, np.uint64)[CLASSES]
    whole = data.npz(own(tmp_path, found))
    given = data.npz(own(tmp_path, found, test_images=NOISE[:8], test_labels=found[:8]))
    plain = data.npz(own(tmp_path, CLASSES, test_images=NOISE[:8], test_labels=CLASSES[:8]))
    for pair, meant in ((given, plain), (whole, data.npz(own(tmp_path, CLASSES)))):
        for mine, theirs in zip(pair, meant, strict=True):
            assert mine.labels.tolist() == theirs.labels.tolist()
            assert (mine.task.num_classes, mine.label_values) == (4, tuple(values))
    part = data.subset(whole[0], np.arange(3))
    assert data.renumbered(part) == f"own.npz: its labels {said} are the classes 0..3 here"


def test_many_values_are_said_in_short(tmp_path: Path) -> None:
    train, _ = data.npz(own(tmp_path, 3 * np.arange(40)))
    assert "labels 0, 3, 6, 9, 12, 15, 18, 21, ..., 117 are" in str(data.renumbered(train))


def test_unsigned_and_signed_labels_of_one_file_are_compared_as_they_are(tmp_path: Path) -> None:
    """As floats, which numpy makes of the two, 2^53 and 2^53 + 1 were one class."""
    labels = (CLASSES + 2**53).astype(np.uint64)
    test = {"test_images": NOISE[:4], "test_labels": np.array([3, 2, 1, 0]) + 2**53}
    train, held_out = data.npz(own(tmp_path, labels, **test))
    assert train.task.num_classes == 4
    assert held_out.labels.tolist() == [3, 2, 1, 0]


def test_texts_are_numbered_likewise(tmp_path: Path) -> None:
    plain, _ = data.npz(own(tmp_path, np.array([1, 2, 0, 3])[CLASSES]))
    path = own(tmp_path, np.array(["b", "c", "a", "dog"])[CLASSES])
    train, _ = data.npz(path)
    assert train.label_values == ("a", "b", "c", "dog")
    np.testing.assert_array_equal(train.labels, plain.labels)
    with pytest.raises(ValueError, match="own.npz: labels are texts, which no num_classes=4 goes"):
        data.npz(path, num_classes=4)


def test_given_a_number_of_classes_labels_are_taken_as_they_are(tmp_path: Path) -> None:
    train, _ = data.npz(own(tmp_path, 2 * CLASSES), num_classes=9)
    assert (train.task.num_classes, train.label_values) == (9, None)
    assert set(train.labels) == {0, 2, 4, 6}
    with pytest.raises(
        ValueError, match="own.npz: labels go up to 6, expected below num_classes=6"
    ):
        data.npz(own(tmp_path, 2 * CLASSES), num_classes=6)


@pytest.mark.parametrize("shift", [1, 6])
def test_test_labels_that_no_training_example_has_are_refused(tmp_path: Path, shift: int) -> None:
    """One counted from 0 and one from 1 would be wrong for every example."""
    path = own(tmp_path, CLASSES, test_images=NOISE[:4], test_labels=CLASSES[:4] + shift)
    strange = "4" if shift == 1 else r"6\.\.9"
    message = rf"/own\.npz: test_labels has {strange}, which labels \(0\.\.3\) has not: .*num_class"
    with pytest.raises(ValueError, match=message):
        data.npz(path)
    assert data.npz(path, num_classes=10)[1].labels.tolist() == [n + shift for n in range(4)]


def test_one_class_is_refused_where_it_is_learned_and_not_as_a_proxy_set(tmp_path: Path) -> None:
    alike, _ = data.npz(own(tmp_path, 0 * CLASSES))
    train, test = data.npz(own(tmp_path, CLASSES, images=NOISE + 1))
    cut = {"proxy_share": 0.0, "limit": None, "proxy_limit": None, "rng": np.random.default_rng(0)}
    assert len(data.split(train, test, proxy_source=alike, **cut).proxy) == 32
    with pytest.raises(ValueError, match=r"own\.npz: all labels are alike, expected at least 2 cl"):
        data.split(alike, test, proxy_source=None, **cut)


@pytest.mark.parametrize(
    ("shape", "last"),
    [
        ((28, 28, 2), True), ((28, 32, 2), True), ((32, 28, 1), True), ((4, 4, 3), True),
        ((9, 9, 200), True), ((3, 32, 1), True), ((2, 28, 28), False), ((3, 32, 16), False),
        ((8, 3, 3), False), ((1, 1, 50), False), ((5, 5, 5), False), ((200, 9, 9), False),
    ],
)  # fmt: skip
def test_images_that_look_like_channels_last_want_a_word(
    tmp_path: Path, shape: tuple[int, int, int], last: bool
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, *shape), dtype=np.uint8)
    path = own(tmp_path, CLASSES, images=images, test_images=images, test_labels=CLASSES)
    if last:
        with pytest.raises(
            ValueError, match=r"/own\.npz: images .* look like \[N, H, W, C\].*layo"
        ):
            data.npz(path)
    else:
        np.testing.assert_array_equal(data.npz(path)[0].inputs, images)
    np.testing.assert_array_equal(data.npz(path, layout="NCHW")[0].inputs, images)
    for each in data.npz(path, layout="NHWC"):
        np.testing.assert_array_equal(each.inputs, images.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match="own.npz: layout=HWC, expected one of NCHW, NHWC"):
        data.npz(path, layout="HWC")


@pytest.mark.parametrize(
    "channel", [np.zeros(()), np.full((), 0.1), 1000 + 1e-4 * NOISE[:, 0], 1e-39 * NOISE[:, 0]]
)
def test_a_channel_that_is_constant_as_float32_goes_is_refused(
    tmp_path: Path, channel: npt.NDArray[Any]
) -> None:
    """Divided by its deviation it would be rounding, 1e9 of it for 0.1, or not a number."""
    images = np.stack([NOISE[:, 0], np.broadcast_to(channel, (40, 5, 5))], axis=1)
    for more in ({}, {"test_images": images, "test_labels": CLASSES}):
        with pytest.raises(ValueError, match=r"/own\.npz: channel 1 of inputs is constant \(mean"):
            data.npz(own(tmp_path, CLASSES, images=images, **more))
    images[:, 1] = 1000 + 0.1 * NOISE[:, 0]  # a hundredth of a thousandth of its mean is something
    assert len(data.npz(own(tmp_path, CLASSES, images=images))[0]) == 32


def test_what_is_too_large_for_float32_is_refused_and_nothing_warns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"/own\.npz: images holds NaN or infinity"):
        data.npz(own(tmp_path, CLASSES, images=NOISE.astype(np.float64) * 1e300))


def test_a_run_says_once_which_label_is_which_class(tmp_path: Path) -> None:
    words = ["sim=inline", "data=npz", "clients=same", "clients.num_clients=2", "partition=iid"]
    words += ["student=mlp", "strategy=averaging", "rounds=1", f"hydra.run.dir={tmp_path / 'run'}"]
    labels = np.array([3, 10**9, 7, 5])[CLASSES]
    ended = run_py(*words, f"data.source.path={own(tmp_path, labels)}")
    assert ended.returncode == 0, ended.stderr
    said = "own.npz: its labels 3, 5, 7, 1000000000 are the classes 0..3 here"
    assert ended.stdout.count(said) == 1


def save(path: Path, **arrays: npt.NDArray[Any]) -> str:
    np.savez(path, allow_pickle=True, **arrays)
    return str(path)


def test_npz_is_read_as_bytes_or_floats(tmp_path: Path) -> None:
    rng, labels = np.random.default_rng(0), np.arange(10) % 3
    grey = rng.integers(0, 256, (10, 4, 5), dtype=np.uint8)
    train, test = data.npz(save(tmp_path / "a.npz", images=grey, labels=labels))
    assert (len(train), len(test), train.task.num_classes) == (8, 2, 3)
    assert train.task.input_shape == (1, 4, 5)
    assert train.inputs.dtype == np.uint8
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
    assert (len(train), len(test), train.task.num_classes, test.task.num_classes) == (10, 4, 8, 8)
    assert train.inputs.dtype == np.float32
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
        ({"images": GREY, "labels": LABELS[:9]}, "9 labels for 10 inputs"),
        ({"images": GREY, "labels": LABELS - 1}, "labels go down to -1, expected none"),
        ({"images": GREY * np.nan, "labels": LABELS}, "images holds NaN"),
        (
            {"images": GREY, "labels": np.array([{}] * 10)},
            "plain arrays: it is no such file, or holds Python objects",
        ),
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


def test_owners_go_with_their_examples(tmp_path: Path) -> None:
    who = np.array(["b", "a", "c", "b", "a"])[np.arange(40) % 5]
    given = {"test_images": NOISE[:8], "test_labels": CLASSES[:8]}
    train, test = data.npz(own(tmp_path, CLASSES, owners=who, **given))
    assert train.owners is not None
    assert (train.owners.tolist(), test.owners) == ([1, 0, 2, 1, 0] * 8, None)
    given["test_owners"] = np.array([*"cdbacdba"])
    test = data.npz(own(tmp_path, CLASSES, owners=who, **given))[1]
    assert test.owners is not None
    assert (test.owners.tolist(), test.owner_values) == ([2, 3, 1, 0] * 2, (*"abcd",))
    for cut in data.npz(own(tmp_path, CLASSES, owners=who)):
        places = [int(np.flatnonzero((each == NOISE).all((1, 2, 3)))[0]) for each in cut.inputs]
        assert cut.owners is not None
        assert cut.owners.tolist() == [[1, 0, 2, 1, 0][place % 5] for place in places]
    with pytest.raises(ValueError, match="test_owners without owners"):
        data.npz(own(tmp_path, CLASSES, **given))
    with pytest.raises(ValueError, match="test_owners without test_images"):
        data.npz(own(tmp_path, CLASSES, owners=who, test_owners=who[:8]))
    with pytest.raises(ValueError, match="expected 8 test_owners, one for each image: 7"):
        data.npz(own(tmp_path, CLASSES, owners=who, **given | {"test_owners": who[:7]}))
    with pytest.raises(ValueError, match="owners of the test set .0..7. have no exam"):
        data.npz(own(tmp_path, CLASSES, owners=who, **given | {"test_owners": np.arange(8)}))
    with pytest.raises(ValueError, match="expected 40 owners, one for each image: 39"):
        data.npz(own(tmp_path, CLASSES, owners=who[:39]))
    with pytest.raises(ValueError, match="expected owners as integers or texts"):
        data.npz(own(tmp_path, CLASSES, owners=NOISE[:, 0, 0, 0]))
