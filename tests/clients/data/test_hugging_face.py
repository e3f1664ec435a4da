"""Data sets of Hugging Face's `datasets`: which columns are what, which set is which."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import data
from tests.quick_runs import federated

hf: Any = pytest.importorskip("datasets")
FACES = [np.full((2, 3, 3), 10 * n, np.uint8) for n in range(6)]
KINDS = [2, 0, 1, 2, 0, 1]
NAMED = ["owl", "cat", "dog"]
FEW = ["clients=same", "student=mlp", "partition=iid", "clients.num_clients=2", "probes=none"]
FEW += ["clients.training.epochs=1", "strategy.distil.epochs=1"]


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    hf.disable_progress_bars()
    yield
    hf.enable_progress_bars()


def pictures(**more: Any) -> Any:
    kinds = {"image": hf.Image(), "label": hf.ClassLabel(names=NAMED)}
    columns = {"image": FACES, "label": KINDS} | {
        name: column for name, (column, _) in more.items()
    }
    kinds |= {name: kind for name, (_, kind) in more.items()}
    return hf.Dataset.from_dict(columns, features=hf.Features(kinds))


def pairs(*sets: data.Dataset) -> set[tuple[int, ...]]:
    return {
        (*map(int, np.unique(pixels)), int(label))
        for each in sets
        for pixels, label in zip(each.inputs, each.labels, strict=True)
    }


WHOLE = {(0, 2), (10, 0), (20, 1), (30, 2), (40, 0), (50, 1)}


@pytest.mark.parametrize("held_out", ["test", "validation", None])
def test_what_was_saved_is_read_and_classes_keep_their_names(
    tmp_path: Path, held_out: str | None
) -> None:
    whole = pictures()
    rows = {"train": whole} | ({held_out: whole.select([3, 4])} if held_out else {})
    (hf.DatasetDict(rows) if held_out else whole).save_to_disk(str(tmp_path / "pets"))
    train, test = data.saved_dataset(str(tmp_path / "pets"))
    assert (train.name, train.task.input_shape, train.scale) == ("pets", (3, 2, 3), 1 / 255)
    assert train.label_values == test.label_values == ("owl", "cat", "dog")
    assert pairs(train, test) == WHOLE
    assert len(train) == (6 if held_out else 5)
    assert not held_out or pairs(test) == {(30, 2), (40, 0)}


def test_a_class_may_have_no_example_and_rows_may_be_chosen() -> None:
    train, _ = data.from_datasets(pictures().select([0, 2, 3, 5]), "pets", test_share=0.25)
    assert (train.task.num_classes, train.label_values) == (3, ("owl", "cat", "dog"))
    assert set(train.labels) == {1, 2}


def test_images_are_resized() -> None:
    train, test = data.from_datasets(pictures(), "pets", size=[4, 5])
    assert train.task.input_shape == (3, 4, 5)
    assert pairs(train, test) == WHOLE


def test_without_images_columns_of_numbers_are_features() -> None:
    rows = {"id": list("abcd"), "x": [1.5, 2, 3, 4], "y": [4, 3, 2, 1], "kind": list("no") * 2}
    table = hf.Dataset.from_dict(rows)
    train, test = data.from_datasets(table, "own", label="kind", drop=["id"], test_share=0.25)
    assert train.label_values == ("n", "o")
    found = {(*map(float, x), int(k)) for s in (train, test)
             for x, k in zip(s.inputs, s.labels, strict=True)}  # fmt: skip
    assert found == {(1.5, 4, 0), (2, 3, 1), (3, 2, 0), (4, 1, 1)}
    with pytest.raises(ValueError, match="train: column 'id' holds string, expected numbers: leav"):
        data.from_datasets(table, "own", label="kind")
    with pytest.raises(ValueError, match="which of the columns id, x, y, kind has the labels"):
        data.from_datasets(table, "own")


def test_a_label_is_chosen_among_several() -> None:
    whole = pictures(coarse=([0, 0, 1, 0, 0, 1], hf.ClassLabel(names=["0", "1"])))
    train, test = data.from_datasets(whole, "pets", label="coarse")
    assert pairs(train, test) == {(0, 0), (10, 0), (20, 1), (30, 0), (40, 0), (50, 1)}
    assert train.label_values is None  # its classes are called by their numbers
    assert data.from_datasets(whole, "pets")[0].task.num_classes == 3  # "label"


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    unlabelled = pictures().remove_columns("label").add_column("label", [-1] * 6)
    unlabelled = unlabelled.cast_column("label", hf.ClassLabel(names=NAMED))
    for found, said in (
        (hf.DatasetDict(a=pictures()), "expected a set 'train', found a"),
        (hf.DatasetDict(train=pictures(), test=unlabelled), "test: label is -1 in some rows: not"),
        (pictures(other=(FACES, hf.Image())), "image, other are columns of images, expected one"),
        (pictures().select([]), "train: no examples, expected"),
    ):
        with pytest.raises(ValueError, match=said):
            data.from_datasets(found, "pets")
    with pytest.raises(ValueError, match="no column 'a', there are image, label"):
        data.from_datasets(pictures(), "pets", drop=["a"])
    with pytest.raises(ValueError, match="train: no column 'a', there are image, label"):
        data.from_datasets(pictures(), "pets", label="a")
    with pytest.raises(ValueError, match=rf"^{tmp_path}: expected what save_to_disk of .* writes"):
        data.saved_dataset(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"b not found: looked for the folder .*path="):
        data.saved_dataset(str(tmp_path / "b"))


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'stillhouse\[datasets\]'"):
        data.saved_dataset(str(tmp_path))


def test_a_saved_set_is_learned_from(tmp_path: Path) -> None:
    hf.concatenate_datasets([pictures()] * 5).save_to_disk(str(tmp_path / "pets"))
    words = ["data=hugging_face", f"data.source.path={tmp_path / 'pets'}"]
    assert federated(tmp_path / "run", *words, *FEW)["failures"] == 0


def test_a_column_says_whose_an_example_is(tmp_path: Path) -> None:
    whose = ["b", "a", "b", "c", "a", "b"]
    whole = pictures(writer=(whose, hf.Value("string")))
    train, test = data.from_datasets(whole, "pets", owner="writer", test_share=0.34)
    first = {10 * n: "abc".index(who) for n, who in enumerate(whose)}  # by the first pixel
    for each in (train, test):
        found = each.inputs[:, 0, 0, 0].tolist()
        assert each.owners is not None
        assert each.owners.tolist() == [first[min(first, key=lambda k: abs(k - p))] for p in found]
    sets = {"train": whole, "test": whole.select([3, 0])}
    assert data.from_datasets(sets, "pets", owner="writer")[1].owners.tolist() == [2, 1]  # type: ignore[union-attr]
    sets["test"] = pictures()
    assert data.from_datasets(sets, "pets", owner="writer")[1].owners is None
    assert data.from_datasets(whole, "pets", drop=["writer"])[0].owners is None
    kinds = hf.ClassLabel(names=["zoe", "al", "bo"])
    coded = pictures(writer=([0, 1, 0, 2, 1, 0], kinds))
    coded.save_to_disk(str(tmp_path / "pets"))
    train, _ = data.saved_dataset(str(tmp_path / "pets"), owner="writer", test_share=0.34)
    assert train.owner_values == ("al", "bo", "zoe")
    others = hf.ClassLabel(names=["cy", "bo", "al"])  # numbered otherwise than in the train set
    both = {"train": pictures(writer=([0, 1, 0, 2, 1, 0], kinds)),
            "test": pictures(writer=([0, 1, 2, 0, 1, 2], others))}  # fmt: skip
    test = data.from_datasets(both, "pets", owner="writer")[1]
    assert test.owner_values == ("al", "bo", "zoe", "cy")
    assert test.owners is not None
    assert test.owners.tolist() == [3, 1, 0, 3, 1, 0]
    both["test"] = pictures(writer=([0, 1, -1, 0, 1, 2], others))
    with pytest.raises(ValueError, match="test: writer is -1 in some rows"):
        data.from_datasets(both, "pets", owner="writer")
    with pytest.raises(ValueError, match="no column 'writers'"):
        data.from_datasets(whole, "pets", owner="writers")
