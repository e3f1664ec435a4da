"""The builders of clients.models have the sizes and depths of the papers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clients import models

Builder = Callable[..., nn.Module]
Shape = tuple[int, int, int]
BUILDERS: dict[str, Builder] = {name: getattr(models, name) for name in models.__all__}
DIGITS = (1, 8, 8)
CIFAR = (3, 32, 32)
MNIST = (1, 28, 28)


def images(shape: Shape, batch: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "num_classes", "numbers", "expected"),
    [
        ("logistic_regression", MNIST, 10, {}, 7_850),
        ("mlp", MNIST, 10, {}, 199_210),
        ("lenet5", MNIST, 10, {}, 44_426),
        ("lenet5", (1, 32, 32), 10, {}, 61_706),
        ("cnn", MNIST, 10, {}, 1_663_370),
        ("vgg9", CIFAR, 10, {}, 3_491_530),
        ("resnet8", CIFAR, 10, {}, 78_042),
        ("resnet8", CIFAR, 100, {}, 83_892),
        ("resnet20", CIFAR, 10, {}, 272_474),
        ("resnet20", CIFAR, 100, {}, 278_324),
        ("resnet20", (3, 8, 8), 10, {"norm": "group"}, 272_474),
        ("cifar_resnet", CIFAR, 10, {"depth": 32}, 466_906),
        ("cifar_resnet", CIFAR, 10, {"depth": 56}, 855_770),
        ("resnet18", CIFAR, 10, {}, 11_173_962),
        ("strided_cnn", MNIST, 10, {}, 26_412),  # less 22 biases before the norms
        ("mobilenet_v2_small", CIFAR, 1000, {"width": 1.0}, 3_504_872),
        ("shufflenet_v2_05", CIFAR, 1000, {}, 1_366_792),
    ],
)
def test_number_of_parameters_is_the_published_one(
    name: str, shape: Shape, num_classes: int, numbers: dict[str, Any], expected: int
) -> None:
    assert count(BUILDERS[name](shape, num_classes, **numbers)) == expected


@pytest.mark.parametrize(
    ("name", "convolutions", "linears"),
    [("vgg9", 6, 3), ("resnet8", 7, 1), ("resnet20", 19, 1), ("resnet18", 17, 1)],
)
def test_depth_is_the_one_in_the_name(name: str, convolutions: int, linears: int) -> None:
    modules = list(BUILDERS[name](DIGITS, 10).modules())
    # 1x1 convolutions are shortcuts, which the name does not count.
    kernels = [m.kernel_size for m in modules if isinstance(m, nn.Conv2d)]
    assert kernels.count((3, 3)) == convolutions
    assert sum(isinstance(m, nn.Linear) for m in modules) == linears


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("resnet8", CIFAR, (8, 8)),
        ("resnet20", CIFAR, (8, 8)),
        ("resnet18", CIFAR, (4, 4)),
        ("mobilenet_v2_small", CIFAR, (4, 4)),
        ("shufflenet_v2_05", CIFAR, (4, 4)),
        ("resnet18", (3, 17, 23), (3, 3)),
        ("resnet18", DIGITS, (2, 2)),
        ("mobilenet_v2_small", DIGITS, (2, 2)),
        ("shufflenet_v2_05", (1, 3, 40), (2, 5)),
    ],
)
def test_last_map_before_the_average(name: str, shape: Shape, expected: tuple[int, int]) -> None:
    model = BUILDERS[name](shape, 10)
    maps: list[torch.Size] = []
    (average,) = [m for m in model.modules() if isinstance(m, nn.AdaptiveAvgPool2d)]
    average.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0].shape))
    model(images(shape))
    assert [tuple(size[2:]) for size in maps] == [expected]
