"""Passages of tiny Shakespeare, from a file that is made here."""

from pathlib import Path

import numpy as np
import pytest

from clients import data

PLAY = """Anna:
To be, or not to be: that's it.

Bert:
Be it so! Be it so! Be it so! So be it!

Anna:
Not so. Not so? To be is to be so.

Carl:
No.

A line without a colon
is nobody's.
"""


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text(PLAY)
    return str(tmp_path)


def both(root: str, **numbers: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and labels of both sets, sorted by label."""
    sets = data.shakespeare(root, test_share=0.3, **numbers)
    inputs = np.concatenate([each.inputs for each in sets])
    labels = np.concatenate([each.labels for each in sets])
    order = np.lexsort((*inputs.T[::-1], labels))
    return inputs[order], labels[order]


def test_passages_by_hand(root: str) -> None:
    """Anna says 11 + 12 words and marks in two speeches, Bert 16, Carl 2, too few for a passage.

    Of 38 in passages "be" is there 7 times, "so" 7, "!" 4, "it" 4 or 5; at V = 4 the first two are
    2 and 3, any other word 1.
    """
    inputs, labels = both(root, num_speakers=2, length=5, num_tokens=4)
    assert np.bincount(labels).tolist() == [4, 3]
    anna, bert = inputs[labels == 0], inputs[labels == 1]
    assert [1, 2, 1, 1, 1] in anna.tolist()  # to be , or not
    assert [2, 1, 3, 1, 2] in bert.tolist()  # be it so ! be
    train, _ = data.shakespeare(root, num_speakers=2, length=5, num_tokens=4)
    task = train.task
    assert (task.input_shape, task.num_classes, task.num_tokens) == ((5,), 2, 4)
    assert train.inputs.dtype == np.int32


def test_each_number_changes_what_is_read(root: str) -> None:
    few = {"num_speakers": 2, "length": 2, "num_tokens": 5}
    inputs, labels = both(root, **few)
    assert labels.max() == 1
    assert both(root, **few | {"num_speakers": 3})[1].max() == 2
    assert both(root, **few | {"length": 3})[0].shape[1] == 3
    assert inputs.max() == 4
    assert both(root, **few | {"num_tokens": 6})[0].max() == 5


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"num_speakers": 1}, "num_speakers=1, expected at least 2"),
        ({"length": 0}, "length=0, expected at least 1"),
        ({"num_tokens": 2}, "num_tokens=2, expected at least 3"),
        ({"num_speakers": 3, "length": 5}, r"num_speakers=3, found 2 who say 5 words"),
    ],
)
def test_numbers_out_of_range_are_named(root: str, numbers: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.shakespeare(root, **numbers)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"input\.txt not found: .*tiny Shakespeare"):
        data.shakespeare(str(tmp_path))
