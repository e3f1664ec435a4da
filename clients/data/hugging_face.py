"""Data sets of Hugging Face's package `datasets`, which is an extra: from a disk, or as objects."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from clients.data.dataset import Dataset, Inputs, LabelValues
from clients.data.image_folder import HELD_OUT, read_images
from clients.data.own_arrays import numbered, own_sets
from clients.data.table_columns import features_of, labels_of, names_of, owners_of
from clients.data.task import classification

Sets = Mapping[str, Any]
"""A `datasets.Dataset` with the train set, and one with the test set if there is one, by name."""


def saved_dataset(
    path: str,
    label: str | None = None,
    drop: Sequence[str] = (),
    size: Sequence[Annotated[int, ">= 1"]] | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    owner: str | None = None,
) -> tuple[Dataset, Dataset]:
    """What `save_to_disk` of Hugging Face's `datasets` has written; nothing is ever downloaded.

    Args:
        path: the folder.
        label: as in `from_datasets`, like all that follows.
        drop: names of columns that are left out.
        size: [height, width] that images are resized to.
        test_share: share of the examples held out, in (0, 1).
        seed: of the shuffle.
        owner: name of the column that says whose a row is.

    Returns:
        Train and test set.

    Raises:
        FileNotFoundError: the folder is missing.
        ValueError: `datasets` is not installed, it did not write the folder, or as in
            `from_datasets`.
    """
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise ValueError(  # a defect it is not, which an ImportError would be taken for
            "data of Hugging Face want its package: pip install 'stillhouse[datasets]'"
        ) from error
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder.name} not found: looked for the folder {folder}, which save_to_disk of "
            "Hugging Face's datasets writes; say where it lies with data.source.path="
        )
    try:
        found = load_from_disk(str(folder))
    except Exception as error:  # a forged or cut file can raise nearly anything
        story = str(error).splitlines()[:1] or [type(error).__name__]
        raise ValueError(
            f"{folder}: expected what save_to_disk of Hugging Face's datasets writes: {story[0]}"
        ) from error
    try:
        return from_datasets(found, folder.name, label, drop, size, test_share, seed, owner)
    except ValueError as error:
        raise ValueError(f"{folder}: {str(error).removeprefix(f'{folder.name}: ')}") from error


def from_datasets(
    found: Any,
    name: str,
    label: str | None = None,
    drop: Collection[str] = (),
    size: Sequence[int] | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    owner: str | None = None,
) -> tuple[Dataset, Dataset]:
    """Make data sets of Hugging Face's: of a column of images, or else of all columns of numbers.

    Args:
        found: a `datasets.Dataset`, or a `DatasetDict` with `train` and, if there is one, `test` or
            `validation`.
        name: what messages call it.
        label: name of the column with the labels; None: the only `ClassLabel`, or "label".
        drop: names of columns that are left out.
        size: (height, width) that images are resized to; None: they all have one size.
        test_share: share of the examples held out, in (0, 1); unused if there is a test set.
        seed: of the shuffle that cuts test from train; unused likewise.
        owner: name of the column that says whose an example is, a writer's, for
            `partition=natural`; None: there is none.

    Returns:
        Train and test set: images uint8, other columns float32 [N, D]. The names of a `ClassLabel`
        are `label_values`, in its order; other labels are numbered in theirs.

    Raises:
        ValueError: there is no train set, no column of labels, or several of images; or as in
            `image_folder` and `table`.
    """
    sets = {which: each.with_format(None) for which, each in _train_and_test(found).items()}
    first = next(iter(sets.values()))
    drop = [*names_of(drop), *([owner] if owner else [])]
    if strange := [each for each in drop if each not in first.column_names]:
        raise ValueError(f"no column {strange[0]!r}, there are {', '.join(first.column_names)}")
    label = label or _label_column(first.features, drop)
    for which, each in sets.items():
        if label not in each.column_names:
            raise ValueError(
                f"{which}: no column {label!r}, there are {', '.join(each.column_names)}"
            )
    classes, values, num_classes = _classes(sets, label)
    others = [each for each in first.column_names if each not in (label, *drop)]
    pictures = [each for each in others if type(first.features[each]).__name__ == "Image"]
    if len(pictures) > 1:
        raise ValueError(
            f"{', '.join(pictures)} are columns of images, expected one: data.source.drop=[...]"
        )
    inputs: Mapping[str, Inputs]
    if pictures:
        inputs, columns = read_images(_image_files(sets, pictures[0]), size), None
    else:
        tables = {which: each.with_format("arrow")[:] for which, each in sets.items()}
        inputs, columns = {w: features_of(w, each, others) for w, each in tables.items()}, others
    task = classification(next(iter(inputs.values())).shape[1:], num_classes)
    whose = []
    if owner:
        whose = owners_of(
            {which: _of_owners(which, e, owner) for which, e in sets.items()}, owner, label
        )
    return own_sets(name, inputs, classes, task, test_share, seed, values, columns, whose)


# --- steps ---


def _of_owners(which: str, found: Any, owner: str) -> Any:
    """Return a table of the column of owners, with their names if it has them, or of none."""
    import pyarrow as pa

    if owner not in found.column_names:
        return pa.table({})
    table = found.select_columns(owner).with_format("arrow")[:]
    if names := getattr(found.features[owner], "names", None):
        numbers = table.column(0).to_pylist()
        if odd := [number for number in numbers if number is None or number < 0]:
            raise ValueError(f"{which}: {owner} is {odd[0]} in some rows: nobody's")
        table = pa.table({owner: [names[number] for number in numbers]})
    return table


def _train_and_test(found: Any) -> Sets:
    if not isinstance(found, Mapping):  # a DatasetDict is one
        return {"train": found}
    if "train" not in found:
        raise ValueError(f"expected a set 'train', found {', '.join(map(str, found))}")
    held_out = [name for name in HELD_OUT if name in found][:1]
    return {name: found[name] for name in ("train", *held_out)}


def _label_column(features: Mapping[str, Any], drop: Collection[str]) -> str:
    kept = {name: type(kind).__name__ for name, kind in features.items() if name not in drop}
    named = [name for name, kind in kept.items() if kind == "ClassLabel"]
    if len(named) == 1:
        return named[0]
    if "label" in kept:
        return "label"
    raise ValueError(
        f"which of the columns {', '.join(kept)} has the labels? Name it with data.source.label="
    )


def _classes(sets: Sets, label: str) -> tuple[list[npt.NDArray[np.int64]], LabelValues | None, int]:
    """Return the class of each example, by set; what the classes are called; and their number."""
    found = {which: labels_of(which, each.select_columns(label).with_format("arrow")[:], label)
             for which, each in sets.items()}  # fmt: skip
    names = getattr(next(iter(sets.values())).features[label], "names", None)
    if not names:
        return numbered(found)
    for which, own in found.items():
        if len(own) and own.min() < 0:
            raise ValueError(f"{which}: {label} is {own.min()} in some rows: not labelled")
    classes, _, num_classes = numbered(found, len(names))
    plain = names == [*map(str, range(num_classes))]
    return classes, None if plain else tuple(names), num_classes


def _image_files(sets: Sets, column: str) -> dict[str, dict[str, Path | bytes]]:
    """Return what is in each image's file, or where it lies, by set, by set and row."""
    found: dict[str, dict[str, Path | bytes]] = {}
    for which, each in sets.items():
        cells = each.select_columns(column).with_format("arrow")[:].column(column).to_pylist()
        if None in cells:
            raise ValueError(f"{which}: no {column} in row {cells.index(None)}")
        found[which] = {
            f"{which}, row {row}": cell["bytes"] or _plain_file(which, row, cell["path"])
            for row, cell in enumerate(cells)
        }
    return found


def _plain_file(which: str, row: int, path: str) -> Path:
    """Take an image's file by its name: a device or a pipe, which would be waited for, is none."""
    if not Path(path).is_file():
        raise ValueError(f"{which}, row {row}: no bytes, and no file {path}")
    return Path(path)
