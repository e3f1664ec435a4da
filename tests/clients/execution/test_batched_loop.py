"""Clients trained together against the same clients trained one by one."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clients.execution.batched_loop import predict_together, train_together
from clients.execution.model_cache import as_tensors
from clients.execution.stack import Stack, Way
from clients.models.factory import parameters_of
from clients.training.losses import cross_entropy, kl
from tests.trained_together import (
    BUILDERS,
    CLASSES,
    FLOAT32,
    FLOAT32_MOBILE,
    FLOAT64,
    GREY,
    NOISE,
    SGD,
    UNEQUAL,
    WAYS,
    Both,
    built,
    distance,
    labels_of,
    parts_of,
)

ADAM = partial(torch.optim.Adam, lr=1e-3)


pytestmark = pytest.mark.usefixtures("one_thread")


# --- equality for every model of the zoo ---


def mobile(name: str) -> bool:
    """Tell whether a network is one of those whose grouped steps are slow."""
    return "mobilenet" in name or "shufflenet" in name


def deep(name: str) -> bool:
    """Tell whether a network has the layers of `resnet8`, and more of them."""
    return "resnet" in name and not name.startswith("resnet8-")


@pytest.mark.parametrize("name", BUILDERS)
def test_together_is_one_by_one(name: str) -> None:
    model = built(name)
    for way in WAYS:
        if mobile(name):
            both = Both(model, way, [16, 12], epochs=1, batch_size=16)
        else:
            both = Both(model, way, UNEQUAL)
        assert both.agree(FLOAT32_MOBILE if mobile(name) else FLOAT32), both.errors()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if mobile(name) or deep(name) else ())
        for name in BUILDERS
    ],
)
@pytest.mark.usefixtures("in_double")
def test_the_difference_is_rounding(name: str) -> None:
    model = built(name).double()
    for way in WAYS:
        both = Both(model, way, UNEQUAL, epochs=1 if mobile(name) else 2)  # these are slow
        assert both.agree(FLOAT64), both.errors()
        counters = [n for n in both.alone[0] if n.endswith("num_batches_tracked")]
        assert len(counters) > 0 or not name.endswith("batch")
        for mine, theirs in zip(both.together, both.alone, strict=True):
            assert all(mine[n] == theirs[n] for n in counters)


# --- every number of `train` ---


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["mlp", "lenet5", "resnet8-batch"])
@pytest.mark.parametrize(
    ("sizes", "changes"),
    [
        ([17, 12, 9, 2], {"optimizer": ADAM}),
        ([3, 20, 9], {"optimizer": partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1)}),
        ([9, 4], {"optimizer": partial(torch.optim.RMSprop, lr=1e-4)}),  # through its object
        ([2, 20, 9, 1, 17], {}),  # the longest in the middle: others stand still on both sides
        ([20, 9, 2], {"optimizer": partial(torch.optim.SGD, lr=0.05)}),  # stepped on the first few
        ([20, 9, 2], {"optimizer": partial(torch.optim.SGD, lr=0.05, weight_decay=0.1)}),
        ([9], {}),
        ([17, 5], {"max_grad_norm": 0.1}),
        ([17, 5], {"max_grad_norm": float("inf")}),
        ([12, 12, 12], {"batch_size": 6, "epochs": 1}),  # nothing is padded
        ([5, 3], {"batch_size": 100, "epochs": 3}),
        ([5, 3], {"epochs": 0}),
    ],
    ids=str,
)
@pytest.mark.usefixtures("in_double")
def test_every_number_of_train(
    name: str, way: Way, sizes: list[int], changes: dict[str, Any]
) -> None:
    both = Both(built(name).double(), way, sizes, **changes)
    assert both.agree(1e-8), both.errors()  # Adam divides by gradients that may be tiny


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["mlp", "lenet5", "resnet8-batch"])
def test_half_precision_is_that_of_one_by_one(name: str, way: Way) -> None:
    both = Both(built(name), way, [16, 9], autocast="bfloat16", epochs=1)
    assert both.agree(0.1), both.errors()  # bfloat16 rounds at 4e-3, and in another order
    full = Both(built(name), way, [16, 9], epochs=1)
    assert distance(full.together[0], both.together[0]) > 0


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    batch_size=st.integers(1, 9),
    epochs=st.integers(0, 3),
    way=st.sampled_from(WAYS),
)
def test_masks_leave_no_trace(sizes: list[int], batch_size: int, epochs: int, way: Way) -> None:
    numbers: Any = {"batch_size": batch_size, "epochs": epochs, "dataset": GREY}
    both = Both(built("mlp", (1, 4, 4)), way, sizes, **numbers)
    assert both.agree(FLOAT32), both.errors()


@pytest.mark.parametrize("way", WAYS)
def test_soft_labels(way: Way) -> None:
    rng = np.random.default_rng(3)
    targets = [torch.from_numpy(rng.dirichlet(np.ones(CLASSES), n)).float() for n in (17, 6)]
    loss = partial(kl, temperature=2.0)
    both = Both(built("lenet5"), way, [17, 6], targets=targets, loss=loss)
    assert both.agree(FLOAT32), both.errors()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["mlp", "resnet8-batch"])
def test_permuted_members_give_permuted_results(name: str, way: Way) -> None:
    model = built(name)
    parts, order = parts_of([17, 12, 9, 2]), [2, 0, 3, 1]
    ends = []
    for members in (range(4), order):
        stack = Stack(model, 4, way)
        for place, k in enumerate(members):
            stack.load(place, as_tensors(parameters_of(built(name, seed=k))))
        mine = [parts[k] for k in members]
        rngs = [np.random.default_rng(k) for k in members]
        train_together(
            stack,
            NOISE,
            mine,
            labels_of(NOISE, mine),
            cross_entropy,
            rngs,
            epochs=2,
            batch_size=8,
            optimizer=SGD,
        )
        ends.append([stack.parameters_of(place) for place in range(4)])
    for place, k in enumerate(order):
        moved = distance(ends[0][k], parameters_of(built(name, seed=k)))
        assert distance(ends[1][place], ends[0][k]) < FLOAT32 * moved


# --- trouble of one client ---


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "factor"), [("mlp", 1e30), ("resnet8-batch", np.nan)])
def test_a_client_that_diverges_harms_nobody(name: str, factor: float, way: Way) -> None:
    model = built(name)
    start = parameters_of(model)
    bad = {n: v * np.float32(factor) if v.dtype == np.float32 else v for n, v in start.items()}
    both = Both(model, way, [17, 12, 9], starts=[start, bad, start])
    assert isinstance(both.losses[1], FloatingPointError)
    assert str(both.losses[1]) == str(both.losses_alone[1])
    assert "epoch 1 of 2" in str(both.losses[1])
    for k in (0, 2):
        np.testing.assert_allclose(both.losses[k], both.losses_alone[k], rtol=FLOAT32)
        assert both.errors()[k] < FLOAT32


def test_a_last_step_that_overflows_is_reported() -> None:
    # The loss is finite, the step of rate 3e38 along a gradient of about a thousand is not.
    def thousandfold(logits: Tensor, labels: Tensor) -> Tensor:
        return 1e3 * cross_entropy(logits, labels)

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    sgd = partial(torch.optim.SGD, lr=3e38)
    for way in WAYS:
        both = Both(model, way, [4, 4], dataset=GREY, loss=thousandfold, epochs=1, optimizer=sgd)
        for mine, theirs in zip(both.losses, both.losses_alone, strict=True):
            assert isinstance(theirs, FloatingPointError)
            assert str(mine) == str(theirs)
            assert "last step" in str(mine)


def test_huge_parameters_are_finite() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    stack = Stack(model, 2, "wide")
    huge = {n: np.full_like(v, 3e38) for n, v in parameters_of(model).items()}
    stack.load(0, as_tensors(huge))
    broken = huge | {"1.bias": np.full(CLASSES, np.nan, np.float32)}
    stack.load(1, as_tensors(broken))
    assert stack.finite(2).tolist() == [True, False]


@pytest.mark.parametrize("way", WAYS)
def test_a_single_value_per_channel_is_refused_as_alone(way: Way) -> None:
    layers = [nn.Conv2d(1, 4, 4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, CLASSES)]
    both = Both(nn.Sequential(*layers), way, [8, 1, 5], dataset=GREY)
    assert isinstance(both.losses_alone[1], ValueError)
    assert isinstance(both.losses[1], ValueError)
    assert both.errors()[0] < FLOAT32
    assert both.errors()[2] < FLOAT32
    alone = Both(nn.Sequential(*layers), way, [1, 1], dataset=GREY)
    assert all(isinstance(outcome, ValueError) for outcome in alone.losses)


def test_bad_input_is_refused_by_name() -> None:
    stack = Stack(built("mlp"), 1, "wide")
    parts = parts_of([4, 4])
    numbers: Any = {"epochs": 1, "batch_size": 2, "optimizer": SGD}
    rngs = [np.random.default_rng(0)]
    with pytest.raises(ValueError, match="2 clients for a stack of 1"):
        train_together(
            stack, NOISE, parts, labels_of(NOISE, parts), cross_entropy, rngs * 2, **numbers
        )
    labels = labels_of(NOISE, [parts[0][:0]])
    with pytest.raises(ValueError, match="no examples"):
        train_together(stack, NOISE, [parts[0][:0]], labels, cross_entropy, rngs, **numbers)
    with pytest.raises(ValueError, match=r"do not fit.*'features.1.weight'"):
        stack.load_all(as_tensors(parameters_of(built("logistic_regression"))))
    with pytest.raises(ValueError, match="size=0"):
        Stack(built("mlp"), 0, "wide")
    with pytest.raises(ValueError, match="no inputs"):
        predict_together(stack, 1, NOISE, parts[0][:0])
