"""A user's own folder of images: which is of which class, what shape they get, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clients import data
from tests.quick_runs import federated

RED = np.zeros((4, 6, 3), np.uint8)
RED[..., 0] = np.arange(24).reshape(4, 6)
GREY = RED[..., 0]


def saved(file: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(file)


def pets(folder: Path, pixels: np.ndarray = GREY) -> Path:
    """Two cats and two dogs, whose first pixels are 10, 11, 20 and 21."""
    for kind, tens in (("dog", 20), ("cat", 10)):
        for number in range(2):
            saved(folder / kind / f"{number}.png", pixels + np.uint8(tens + number))
    return folder


def pairs(*sets: data.Dataset) -> set[tuple[int, int]]:
    """First pixel and class of each image."""
    return {
        (int(pixels[0, 0, 0]), int(label))
        for each in sets
        for pixels, label in zip(each.inputs, each.labels, strict=True)
    }


def test_classes_are_folders_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    saved(folder / "cat" / "deeper" / "2.PNG", GREY + np.uint8(12))
    (folder / "notes.txt").write_text("not an image")
    (folder / "cat" / "Thumbs.db").write_bytes(b"not one either")
    (folder / "cat" / "._0.png").write_bytes(b"nor this")
    train, test = data.image_folder(str(folder), test_share=0.4)
    assert (train.name, len(train), len(test)) == ("pets", 3, 2)
    assert train.label_values == test.label_values == ("cat", "dog")
    assert pairs(train, test) == {(10, 0), (11, 0), (12, 0), (20, 1), (21, 1)}
    assert (train.task.input_shape, train.scale) == ((1, 4, 6), 1 / 255)
    assert data.renumbered(train) == "pets: its labels cat, dog are the classes 0..1 here"


@pytest.mark.parametrize("held_out", ["test", "val", None])
def test_a_folder_of_train_has_its_test_set_beside_it(tmp_path: Path, held_out: str | None) -> None:
    pets(tmp_path / "train")
    if held_out is not None:
        saved(tmp_path / held_out / "dog" / "0.png", GREY + np.uint8(99))
    train, test = data.image_folder(str(tmp_path))
    if held_out is None:
        assert (len(train), len(test)) == (3, 1)
    else:
        assert (len(train), pairs(test)) == (4, {(99, 1)})


def test_images_are_grey_if_all_are(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    saved(folder / "dog" / "one_bit.png", GREY * np.uint8(11), "1")
    assert data.image_folder(str(folder))[0].inputs.shape[1:] == (1, 4, 6)
    saved(folder / "dog" / "red.png", RED)
    saved(folder / "dog" / "see_through.png", RED, "RGBA")
    train, test = data.image_folder(str(folder), test_share=0.5)
    inputs = np.concatenate([train.inputs, test.inputs])
    assert inputs.shape == (7, 3, 4, 6)
    assert sum((image == RED.transpose(2, 0, 1)).all() for image in inputs) == 2
    assert sum((image == GREY + 10).all() for image in inputs) == 1


def test_a_size_resizes_each(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    saved(folder / "dog" / "wide.png", np.full((2, 20), 7, np.uint8))
    train, test = data.image_folder(str(folder), size=[8, 10])
    inputs = np.concatenate([train.inputs, test.inputs])
    assert inputs.shape == (5, 1, 8, 10)
    assert sum((image == 7).all() for image in inputs) == 1
    with pytest.raises(
        ValueError,
        match=r"wide\.png is of 2 x 20 pixels .*0\.png of 4 x 6: .*size=\[height,width\]",
    ):
        data.image_folder(str(folder))
    with pytest.raises(ValueError, match=r"size=\[8\], expected \[height, width\]"):
        data.image_folder(str(folder), size=[8])


def cut(folder: Path) -> None:
    content = (folder / "dog" / "1.png").read_bytes()
    (folder / "dog" / "1.png").write_bytes(content[:-30])


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda f: (f / "dog/1.png").write_text("n"), ValueError, r"dog/1\.png: expected an ima"),
        (cut, ValueError, r"dog/1\.png: expected an image: "),
        (
            lambda f: saved(f / "dog/deep.png", GREY.astype(np.uint16)),
            ValueError,
            r"dog/deep\.png: of mode I;16, expected at most eight bits a channel",
        ),
        (
            lambda f: [saved(f / part / f"{part}_cow/1.png", GREY) for part in ("train", "test")],
            ValueError,
            r"/test has test_cow, which .*/train \(train_cow\) has not: expected both",
        ),
        (
            lambda f: [shutil.rmtree(each) for each in f.iterdir()],
            FileNotFoundError,
            ": no images found in folders in it, expected one folder for each class",
        ),
    ],
    ids=["text", "cut", "deep", "others", "empty"],
)  # fmt: skip
def test_what_is_no_such_folder_is_refused_by_name(
    tmp_path: Path, spoil: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    spoil(pets(tmp_path))
    with pytest.raises(error, match=message) as raised:
        data.image_folder(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_missing_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pets not found: looked for the folder /.*path="):
        data.image_folder(str(tmp_path / "pets"))


def test_a_folder_of_images_is_learned_from(tmp_path: Path) -> None:
    folder, rng = tmp_path / "pets", np.random.default_rng(0)
    for number in range(60):
        kind = ("cat", "dog", "owl")[number % 3]
        pixels = rng.integers(0, 60, (8, 8, 3), dtype=np.uint8) + np.uint8(90 * (number % 3))
        saved(folder / kind / f"{number}.{'jpg' if number % 2 else 'png'}", pixels)
    words = ["data=image_folder", f"data.source.path={folder}", "data.source.size=[5,4]"]
    words += ["clients=same", "student=mlp", "partition=iid", "clients.num_clients=2"]
    words += ["clients.training.epochs=20", "strategy.distil.epochs=20", "probes=none"]
    assert federated(tmp_path / "run", *words)["student_accuracy"] > 0.8


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for kind in ("bus", "car", "train"):
        for side in ("front", "rear"):
            saved(tmp_path / kind / side / "1.png", GREY)
            saved(tmp_path / kind / side / "2.png", GREY)
    train, _ = data.image_folder(str(tmp_path))
    assert train.label_values == ("bus", "car", "train")


def test_what_is_in_a_file_decides_not_its_name(tmp_path: Path) -> None:
    """Of an EPS another program would run what is in it."""
    (tmp_path / "a").mkdir()
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"
    (tmp_path / "a" / "1.png").write_bytes(script)
    with pytest.raises(ValueError, match=r"1\.png: expected an image: cannot identify"):
        data.image_folder(str(tmp_path))
