"""Tasks: losses, rows of answers, measures and kinds by hand, and labels that are none."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.data import Dataset, Task, classification, dense_labelling, regression, several_heads
from clients.data.task import UNLABELLED

SHAPE = (1, 1, 3)
PIXELS = dense_labelling(SHAPE, 3)
HEADS = several_heads((4,), {"digit": 3, "turn": 2})
NUMBERS = regression((4,), 2)


def sure(*classes: int, of: int = 3) -> Tensor:
    """Logits that are sure of a class each, in rows."""
    return 50.0 * torch.nn.functional.one_hot(torch.tensor(classes), of)


def test_pixels_are_rows_in_the_order_of_their_labels() -> None:
    outputs = torch.randn(2, 3, 1, 3, generator=torch.Generator().manual_seed(0))
    rows = PIXELS.answers(outputs)
    assert rows.shape == (6, 3)
    torch.testing.assert_close(rows[4], outputs[1, :, 0, 1])  # second example, second pixel
    assert (PIXELS.sites, PIXELS.output_shape) == (3, (3, 1, 3))
    torch.testing.assert_close(PIXELS.by_input(rows)[1, 1], rows[4])


def test_the_loss_of_pixels_is_the_mean_over_those_that_are_labelled() -> None:
    outputs = outputs_of(torch.zeros(3, 3), torch.zeros(3, 3))
    labels = torch.tensor([[[0, 1, UNLABELLED]], [[UNLABELLED] * 3]])
    found = PIXELS.loss(outputs, labels)
    torch.testing.assert_close(found, torch.tensor([np.log(3), 0.0]).float())
    one_wrong = outputs_of(sure(0, 0, 2))
    loss = PIXELS.loss(one_wrong, torch.tensor([[[0, 1, UNLABELLED]]]))
    torch.testing.assert_close(loss, torch.tensor([25.0]))  # 0 and 50, of two pixels


def outputs_of(*examples: Tensor) -> Tensor:
    """Put rows [S, C] of each example back into outputs [B, C, 1, S]."""
    return torch.stack([rows.T[:, None] for rows in examples])


def test_mean_iou_by_hand() -> None:
    # Truth 0 0 1 1 -, answers 0 1 1 1 0: class 0 is 1 of 2, class 1 is 2 of 3, class 2 nowhere.
    task = dense_labelling((1, 1, 5), 3)
    labels = np.array([[[0, 0, 1, 1, UNLABELLED]]])
    found = task.measures(sure(0, 1, 1, 1, 0), labels)
    assert found["miou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["loss"] == pytest.approx(50 / 4)
    assert task.measures(sure(0, 0, 0, 0, 0), np.full((1, 1, 5), UNLABELLED)) == {}


def test_heads_are_rows_and_what_a_head_has_not_is_as_good_as_never_said() -> None:
    outputs = torch.tensor([[1.0, 2.0, 3.0, 5.0, -1.0]])
    rows = HEADS.answers(outputs)
    torch.testing.assert_close(rows[0], torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(rows[1], torch.tensor([5.0, -1.0, -10001.0]))
    probs = rows[1].softmax(-1)
    torch.testing.assert_close(probs[:2], torch.tensor([5.0, -1.0]).softmax(-1))
    assert float(probs[2]) == 0
    assert float((rows[1] / 100).softmax(-1)[2]) < 1e-40


def test_the_loss_and_measures_of_heads_by_hand() -> None:
    outputs = torch.cat([sure(2), sure(0, of=2)], 1)
    labels = torch.tensor([[2, 1]])
    torch.testing.assert_close(HEADS.loss(outputs, labels), torch.tensor([25.0]))
    torch.testing.assert_close(HEADS.loss(outputs, torch.tensor([[2, -1]])), torch.tensor([0.0]))
    found = HEADS.measures(HEADS.answers(outputs), labels.numpy())
    expected = {"accuracy": 0.5, "loss": 25.0, "accuracy_digit": 1.0, "accuracy_turn": 0.0}
    assert found == pytest.approx(expected)
    assert "accuracy_turn" not in HEADS.measures(HEADS.answers(outputs), np.array([[2, -1]]))


def test_the_loss_and_measures_of_numbers_by_hand() -> None:
    outputs = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    labels = np.array([[0.0, 1.0], [4.0, 1.0]], np.float32)
    loss = NUMBERS.loss(outputs, torch.from_numpy(labels))
    torch.testing.assert_close(loss, torch.tensor([1.0, 1.0]))  # (1 + 1) / 2
    found = NUMBERS.measures(outputs, labels)
    # The first number varies by 4, and errs by 1; the second does not vary.
    assert found == pytest.approx({"loss": 1.0, "rmse": 1.0, "r2": 1 - 1 / 4})
    assert NUMBERS.measures(outputs[:1], labels[:1])["r2"] == 0  # one example does not vary


@pytest.mark.parametrize(
    ("task", "labels", "kinds"),
    [
        (classification((4,), 3), [2, 0, 1], [2, 0, 1]),
        (PIXELS, [[[0, 0, 2]], [[0, 0, 0]], [[1, 2, 1]], [[-1, -1, -1]]], [2, 0, 1, 0]),
        (HEADS, [[2, 0], [-1, 1]], [2, 0]),
    ],
)
def test_the_kind_of_an_example(task: Task, labels: Any, kinds: list[int]) -> None:
    assert task.strata(np.array(labels)).tolist() == kinds
    assert max(kinds) < task.num_strata


def test_numbers_are_of_kinds_of_equal_size_by_rank() -> None:
    labels = np.random.default_rng(0).permutation(50).astype(np.float32)[:, None]
    kinds = regression((4,)).strata(labels)
    assert (kinds == labels[:, 0] // 5).all()
    assert kinds.max() == 9


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        (PIXELS, np.zeros((2, 3), np.int64), r"shape \(2, 3\), expected \[N, 1, 3\]"),
        (PIXELS, np.full((2, 1, 3), 3), r"3\.\.3, expected 0\.\.2 .*or -1, not labelled"),
        (PIXELS, np.full((2, 1, 3), -2), r"-2\.\.-2, expected 0\.\.2"),
        (HEADS, np.zeros((2, 3), np.int64), r"expected \[N, 2\], a column for each head"),
        (HEADS, np.array([[0, 0], [0, 2]]), r"head turn: labels lie in 0\.\.2, expected 0\.\.1"),
        (NUMBERS, np.zeros((2, 2)), "dtype float64, expected float32"),
        (NUMBERS, np.zeros((2, 1), np.float32), r"expected \[N, 2\]"),
        (NUMBERS, np.full((2, 2), np.nan, np.float32), "holds NaN or infinity"),
        (classification((4,), 3), np.full(2, -1), r"-1\.\.-1, expected 0\.\.2"),
    ],
)
def test_labels_that_are_none_are_named(task: Task, labels: Any, message: str) -> None:
    inputs = np.zeros((2, *task.input_shape), np.float32)
    moments = (0.0,) * task.input_shape[0], (1.0,) * task.input_shape[0]
    with pytest.raises(ValueError, match=f"^own: .*{message}"):
        Dataset("own", inputs, labels, task, 1.0, *moments)


def test_tokens_are_whole_numbers_below_their_number() -> None:
    task, labels = classification((2,), 2, num_tokens=5), np.zeros(1, np.int64)
    with pytest.raises(ValueError, match=r"own: tokens lie in 0\.\.5, expected 0\.\.4"):
        Dataset("own", np.array([[0, 5]], np.int32), labels, task)
    with pytest.raises(ValueError, match="own: inputs has dtype float32, expected whole numbers"):
        Dataset("own", np.zeros((1, 2), np.float32), labels, task)
    with pytest.raises(ValueError, match=r"own: inputs has shape \(1, 3\), expected \[N, 2\]"):
        Dataset("own", np.zeros((1, 3), np.int32), labels, task)


def test_there_must_be_a_head() -> None:
    with pytest.raises(ValueError, match="expected at least one"):
        several_heads((4,), {})
