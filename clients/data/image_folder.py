"""A user's own images, in a folder for each class, and how image files become arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt

from clients.data.dataset import Dataset
from clients.data.own_arrays import numbered, own_sets
from clients.data.task import classification

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""By content, whatever a file's name says: of an EPS another program would run what is in it."""
GREY, COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Modes of PIL's of eight bits a channel, or fewer."""
HELD_OUT = ("test", "val", "valid", "validation")


def image_folder(
    path: str,
    size: Sequence[Annotated[int, ">= 1"]] | None = None,
    test_share: float = 0.2,
    seed: int = 0,
) -> tuple[Dataset, Dataset]:
    """A user's own images: `<path>/<class>/*.png`, or `.jpg` and so on, also in folders below.

    Classes are numbered in the order of their names, which the data set's `label_values` are. Where
    there is a folder `train`, it has those of the classes; then `test`, `val`, `valid` or
    `validation`, the first of these that is there, has the test set. Images are grey if all of them
    are, else colour without what is transparent. Bytes are divided by 255; mean and deviation are
    those of the train set.

    Args:
        path: the folder.
        size: [height, width] in pixels that images are resized to, which may change their
            proportions; None: they all have one size.
        test_share: share of the images held out, in (0, 1); unused if there is a test set.
        seed: of the shuffle that cuts test from train; unused likewise.

    Returns:
        Train and test set, uint8.

    Raises:
        FileNotFoundError: the folder is missing, or there are no images in it.
        ValueError: a file is no image, images have several sizes or more than eight bits a channel,
            or a class is of the test set alone.
    """
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder.name} not found: looked for the folder {folder}. It has a folder of images "
            "for each class; say where it lies with data.source.path="
        )
    images, labels = {}, {}
    for part in _parts(folder):
        files = _files(part)
        labels[str(part)] = np.array([file.relative_to(part).parts[0] for file in files])
        images[str(part)] = {str(file): file for file in files}
    inputs = read_images(images, size)
    classes, values, num_classes = numbered(labels)
    task = classification(next(iter(inputs.values())).shape[1:], num_classes)
    return own_sets(folder.name, inputs, classes, task, test_share, seed, values)


def read_images(
    sets: Mapping[str, Mapping[str, Path | bytes]], size: Sequence[int] | None
) -> dict[str, npt.NDArray[np.uint8]]:
    """Read image files into arrays of one shape.

    Args:
        sets: the images of each set, at least one, by what messages call it: a file, or what is in
            one.
        size: (height, width) that they are resized to; None: they all have one.

    Returns:
        Images [N, channels, height, width] of each set, by its name; one channel if all images are
        grey, else three.

    Raises:
        ValueError: one is no image, has another size than the first or more than eight bits a
            channel; names it.
    """
    named = {name: file for own in sets.values() for name, file in own.items()}
    if size is not None and len(size) != 2:
        raise ValueError(f"data.source.size={[*size]}, expected [height, width]")
    mode, height, width = _common(named, size)
    found = {}
    for which, own in sets.items():
        images = np.empty((len(own), 1 if mode == "L" else 3, height, width), np.uint8)
        for image, (name, file) in zip(images, own.items(), strict=True):
            pixels = _read(name, file, mode, (width, height))
            image[...] = pixels if mode == "L" else pixels.transpose(2, 0, 1)
        found[which] = images
    return found


# --- steps ---


def _parts(folder: Path) -> list[Path]:
    """List the folders of the sets: one, or those of train and test.

    A class may be called train: without folders in it, or with other classes beside it.
    """
    train, beside = folder / "train", [each for each in folder.iterdir() if each.is_dir()]
    held_out = [part for name in HELD_OUT if _has_folders(part := folder / name)][:1]
    if _has_folders(train) and (held_out or beside == [train]):
        return [train, *held_out]
    return [folder]


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and any(each.is_dir() for each in folder.iterdir())


def _files(folder: Path) -> list[Path]:
    """List images, sorted; those whose names begin with a dot are none."""
    files = [
        file
        for kind in sorted(each for each in folder.iterdir() if each.is_dir())
        for file in sorted(kind.rglob("*"))
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]
    if not files:
        raise FileNotFoundError(
            f"{folder}: no images found in folders in it, expected one folder for each class, with "
            f"{', '.join(sorted(SUFFIXES))}"
        )
    return files


def _common(named: Mapping[str, Path | bytes], size: Sequence[int] | None) -> tuple[str, int, int]:
    """Tell mode, height and width that suit all images: none is decoded."""
    first, *_ = named
    grey, common = True, None if size is None else (size[0], size[1])
    for name, file in named.items():
        mode, found = _head(name, file)
        if mode not in (*GREY, *COLOUR):
            raise ValueError(f"{name}: of mode {mode}, expected at most eight bits a channel")
        common = common or found
        if size is None and found != common:
            raise ValueError(
                f"{name} is of {found[0]} x {found[1]} pixels (height x width), {first} of "
                f"{common[0]} x {common[1]}: expected one size, or data.source.size=[height,width]"
            )
        grey &= mode in GREY
    assert common is not None
    return "L" if grey else "RGB", *common


def _head(name: str, file: Path | bytes) -> tuple[str, tuple[int, int]]:
    with _opened(name, file) as image:
        return image.mode, (image.height, image.width)


def _read(name: str, file: Path | bytes, mode: str, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    from PIL.Image import Resampling

    with _opened(name, file) as image:
        converted = image.convert(mode)
        if converted.size != size:
            converted = converted.resize(size, Resampling.BILINEAR)
        return np.asarray(converted)


@contextmanager
def _opened(name: str, file: Path | bytes) -> Iterator[Image]:
    from PIL import Image  # here: of most runs no data are images in files

    try:
        opened = BytesIO(file) if isinstance(file, bytes) else file
        with Image.open(opened, formats=FORMATS) as image:
            yield image
    # A forged or cut file; PIL says "broken PNG" as SyntaxError.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: expected an image: {error}") from error
