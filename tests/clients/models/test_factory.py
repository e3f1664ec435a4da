"""Building networks from seeds and moving them through arrays."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.data import classification
from clients.models import logistic_regression, mlp, resnet8
from clients.models.factory import ModelFunction, build, load_parameters, parameters_of, unlike

SHAPE = (1, 4, 4)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def made(function: ModelFunction = mlp, seed: int = 0, num_classes: int = 4) -> nn.Module:
    return build(function, classification(SHAPE, num_classes), rng(seed))


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in parameters_of(model).items()}


class Own(nn.Module):
    """A user's class that takes the number of classes only."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.last = nn.LazyLinear(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1:] == SHAPE
        logits: Tensor = self.last(images.flatten(1))
        return logits


# --- build ---


def test_initial_parameters_depend_on_the_generator_only() -> None:
    torch.manual_seed(1)
    one = bits(made(seed=3))
    torch.manual_seed(2)
    assert bits(made(seed=3)) == one
    assert bits(made(seed=4)) != one


def test_lazy_modules_get_their_shapes_and_numbers_from_the_generator_too() -> None:
    one = made(Own, seed=3)
    assert one.training
    assert parameters_of(one)["last.weight"].shape == (4, np.prod(SHAPE))
    assert bits(made(Own, seed=3)) == bits(one)
    assert bits(made(Own, seed=4)) != bits(one)


def test_a_lazy_module_that_no_image_reaches_is_named() -> None:
    class Hidden(Own):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) if self.training else images

    with pytest.raises(ValueError, match=r"lazy 'last\.weight' is not reached by an input in eval"):
        made(Hidden)


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    made()
    made(Own)
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
