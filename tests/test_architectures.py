"""Building networks from seeds, moving them through arrays, and sharing them out to clients."""

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clients.architectures import ModelFunction, build, load_parameters, parameters_of, unlike
from clients.models import logistic_regression, mlp, resnet8
from clients.population import assign_architectures

SHAPE = (1, 4, 4)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def made(function: ModelFunction = mlp, seed: int = 0, num_classes: int = 4) -> nn.Module:
    return build(function, SHAPE, num_classes, rng(seed))


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in parameters_of(model).items()}


class Own(nn.Module):
    """A user's class that takes the number of classes only."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.last = nn.LazyLinear(num_classes)


# --- build ---


def test_initial_parameters_depend_on_the_generator_only() -> None:
    torch.manual_seed(1)
    one = bits(made(seed=3))
    torch.manual_seed(2)
    assert bits(made(seed=3)) == one
    assert bits(made(seed=4)) != one


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    made()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_is_given_only_the_arguments_it_takes() -> None:
    seen: dict[str, Any] = {}

    def nothing() -> nn.Module:
        return nn.Linear(2, 2)

    def one(num_classes: int, *, depth: int = 1) -> nn.Module:
        seen.update(num_classes=num_classes, depth=depth)
        return nn.Linear(2, num_classes)

    def anything(**given: Any) -> nn.Module:
        seen.update(given)
        return nn.Linear(2, 2)

    assert isinstance(made(nothing), nn.Linear)
    made(one, num_classes=7)
    assert seen == {"num_classes": 7, "depth": 1}
    made(anything, num_classes=5)
    assert seen == {"num_classes": 5, "depth": 1, "image_shape": SHAPE}


def test_a_class_and_a_partial_are_model_functions() -> None:
    assert isinstance(made(Own), Own)
    assert made(partial(mlp, hidden=[5])).features[1].out_features == 5


def test_a_new_model_is_float32_in_train_mode() -> None:
    model = made(resnet8)
    assert model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}


# --- parameters ---


def test_parameters_make_a_round_trip_buffers_included() -> None:
    one, other = made(resnet8, 0), made(resnet8, 1)
    one(torch.randn(8, *SHAPE))  # moves the running statistics
    assert bits(one) != bits(other)
    load_parameters(other, parameters_of(one))
    assert bits(other) == bits(one)
    assert any(name.endswith("num_batches_tracked") for name in parameters_of(one))


def test_parameters_are_copies_in_both_directions() -> None:
    model = made()
    before = bits(model)
    arrays = parameters_of(model)
    for array in arrays.values():
        array += 1
    assert bits(model) == before
    load_parameters(model, arrays)
    after = bits(model)
    assert after != before
    for array in arrays.values():
        array += 1
    assert bits(model) == after


def test_read_only_arrays_can_be_loaded() -> None:
    # Ray hands out arrays in shared memory; torch warns when it wraps one, and warnings are errors.
    arrays = parameters_of(made(seed=1))
    for array in arrays.values():
        array.flags.writeable = False
    load_parameters(model := made(), arrays)
    assert bits(model) == bits(made(seed=1))


def test_parameters_of_the_same_architecture_are_not_unlike() -> None:
    assert unlike(made(seed=0), parameters_of(made(seed=1))) is None


def test_the_first_difference_is_named() -> None:
    mine, theirs = made(partial(mlp, hidden=[3])), made(partial(mlp, hidden=[5]))
    reason = unlike(mine, parameters_of(theirs))
    assert reason is not None
    assert "'features.1.weight' is (3, 16) in the model and (5, 16) in the parameters" in reason


@pytest.mark.parametrize(("change", "word"), [("drop", "absent"), ("add", "absent")])
def test_a_missing_and_an_extra_array_are_named(change: str, word: str) -> None:
    arrays = parameters_of(made())
    if change == "drop":
        del arrays["classifier.bias"]
    else:
        arrays["classifier.bias2"] = np.zeros(4, dtype=np.float32)
    with pytest.raises(ValueError, match=rf"parameters do not fit Sequential: .*{word}"):
        load_parameters(made(), arrays)


def test_a_refused_load_changes_nothing() -> None:
    model = made()
    before = bits(model)
    with pytest.raises(ValueError, match="do not fit"):
        load_parameters(model, parameters_of(made(logistic_regression)))
    assert bits(model) == before


# --- population ---


@pytest.mark.parametrize(
    ("shares", "num_clients", "expected"),
    [
        ({"a": 1}, 3, {"a": 3}),
        ({"a": 0.3, "b": 0.3, "c": 0.4}, 10, {"a": 3, "b": 3, "c": 4}),
        ({"a": 3, "b": 1}, 8, {"a": 6, "b": 2}),  # shares need not sum to one
        # 5 * (.5, .3, .2) = 2.5, 1.5, 1: one is left over, equal remainders, the first named
        ({"a": 0.5, "b": 0.3, "c": 0.2}, 5, {"a": 3, "b": 1, "c": 1}),
        # 10 / 3 each: one left over
        ({"a": 1, "b": 1, "c": 1}, 10, {"a": 4, "b": 3, "c": 3}),
        # 4 * (.7, .2, .1) = 2.8, .8, .4: floors 2, 0, 0; the two largest remainders get one
        ({"a": 7, "b": 2, "c": 1}, 4, {"a": 3, "b": 1}),
    ],
)
def test_shares_are_rounded_by_largest_remainder(
    shares: dict[str, float], num_clients: int, expected: dict[str, int]
) -> None:
    assert Counter(assign_architectures(shares, num_clients, rng())) == expected


@settings(max_examples=100, deadline=None)
@given(
    shares=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8),
    num_clients=st.integers(1, 200),
)
def test_counts_add_up_and_are_within_one_of_the_exact_share(
    shares: list[float], num_clients: int
) -> None:
    names = {f"m{i}": share for i, share in enumerate(shares)}
    assigned = assign_architectures(names, num_clients, rng())
    assert len(assigned) == num_clients
    counts = Counter(assigned)
    for name, share in names.items():
        assert abs(counts[name] - num_clients * share / sum(shares)) < 1 + 1e-9


def test_who_gets_what_is_shuffled_by_the_generator() -> None:
    shares = {"a": 1, "b": 1}
    one = assign_architectures(shares, 40, rng(0))
    assert one == assign_architectures(shares, 40, rng(0))
    assert one != assign_architectures(shares, 40, rng(1))
    assert one != sorted(one)
    assert {type(name) for name in one} == {str}


@pytest.mark.parametrize(
    ("shares", "num_clients", "message"),
    [
        ({}, 3, "0 architectures"),
        ({"a": 1}, 0, "num_clients=0"),
        ({"a": 1, "b": 0}, 3, "share=0 of architecture 'b'"),
        ({"a": -1.0}, 3, "share=-1.0 of architecture 'a'"),
        ({"a": 1.0, "b": float("nan")}, 3, "share=nan of architecture 'b'"),
    ],
    ids=str,
)
def test_impossible_populations_are_refused(
    shares: dict[str, float], num_clients: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        assign_architectures(shares, num_clients, rng())
