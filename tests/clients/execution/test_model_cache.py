"""Networks that stay in a process let nothing of one client reach the next."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.data import classification
from clients.execution.model_cache import Networks, as_tensors, work_of
from clients.models import cnn, logistic_regression, mlp, resnet8
from clients.models.factory import build, parameters_of

SHAPE = (1, 8, 8)
TASK = classification(SHAPE, 4)


class Hidden(nn.Module):
    """Keeps a buffer that no state dict holds."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64, num_classes)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x.flatten(1)) + self.calls


def networks() -> Networks:
    return Networks(
        {"resnet8": resnet8, "hidden": Hidden, "mlp": mlp},
        TASK,
        "cpu",
    )


@pytest.mark.parametrize("name", ["resnet8", "hidden", "mlp"])
def test_a_loaded_network_is_a_built_one_whatever_was_done_with_it_before(name: str) -> None:
    place = networks()
    model = {"resnet8": resnet8, "hidden": Hidden, "mlp": mlp}[name]
    wanted = build(model, TASK, np.random.default_rng(5))
    parameters = as_tensors(parameters_of(wanted))
    other = as_tensors(parameters_of(build(model, TASK, np.random.default_rng(6))))
    inputs = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(0))
    used = place.loaded(name, other)
    used(inputs).sum().backward()  # moves BatchNorm's statistics, counts a call, leaves gradients
    used.eval()
    model_again = place.loaded(name, parameters)
    assert model_again is used
    assert model_again.training
    assert torch.equal(model_again(inputs), wanted(inputs))
    after = place.parameters_of(name)
    for key, value in parameters_of(wanted).items():  # one step in train mode later
        np.testing.assert_array_equal(after[key], value)


def test_what_is_loaded_is_a_copy() -> None:
    place = networks()
    start = as_tensors(parameters_of(build(mlp, TASK, np.random.default_rng(5))))
    before = {name: value.clone() for name, value in start.items()}
    with torch.no_grad():
        for parameter in place.loaded("mlp", start).parameters():
            parameter.add_(1)
    assert all(torch.equal(start[name], before[name]) for name in before)


def test_parameters_of_another_architecture_are_refused_by_name() -> None:
    wrong = as_tensors(
        parameters_of(
            build(
                logistic_regression,
                TASK,
                np.random.default_rng(),
            )
        )
    )
    with pytest.raises(ValueError, match=r"do not fit Sequential: 'features.1.weight' is"):
        networks().loaded("mlp", wrong)


def test_work_is_that_of_layers_counted_by_hand() -> None:
    assert work_of("linear", logistic_regression, TASK) == 1 + 64 * 4 + 4
    # One 5x5 convolution to 3 channels over 8x8, pooled to 4x4, 48 -> 7 -> 4.
    model = lambda image_shape, num_classes: cnn(  # noqa: E731
        image_shape, num_classes, channels=(3,), hidden=7
    )
    assert work_of("cnn", model, TASK) == 1 + (75 + 3) * 64 + (48 * 7 + 7) + (7 * 4 + 4)


def test_a_network_that_looks_at_whole_batches_only_is_named() -> None:
    def normed() -> nn.Module:
        norm = nn.BatchNorm1d(64, track_running_stats=False)
        return nn.Sequential(nn.Flatten(), norm, nn.Linear(64, 4))

    with pytest.raises(ValueError, match=r"architecture 'x' cannot answer one input alone: Value"):
        work_of("x", normed, TASK)
