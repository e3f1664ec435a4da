"""The builders of clients.models: any image size, nothing shared, impossible requests."""

import inspect
import math
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clients import models
from clients.data import classification
from clients.models.layers import MaxPool, Norm
from clients.training.taps import last_map
from tests.trained_together import IMAGES

Builder = Callable[..., nn.Module]
Shape = tuple[int, int, int]
BUILDERS: dict[str, Builder] = {name: getattr(models, name) for name in IMAGES}
# Every builder once, those that take a norm once for each.
CASES = [
    pytest.param(build, numbers, id="-".join([name, *numbers.values()]))
    for name, build in BUILDERS.items()
    for numbers in (
        [{"norm": norm} for norm in get_args(Norm)]
        if "norm" in inspect.signature(build).parameters
        else [{}]
    )
]
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 17, 23)]
DIGITS = (1, 8, 8)


def images(shape: Shape, batch: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def seeded(build: Builder, *args: Any, seed: int = 0, **numbers: Any) -> nn.Module:
    torch.manual_seed(seed)
    return build(*args, **numbers)


def other_streams() -> tuple[Any, ...]:
    """Where the generators stand that no builder may touch."""
    state = np.random.get_state(legacy=False)["state"]
    return random.getstate(), state["key"].tobytes(), state["pos"]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def last_linear(model: nn.Module) -> nn.Linear:
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def test_all_names_are_covered() -> None:
    assert len(BUILDERS) == 12
    assert len(CASES) == 12 + 7  # seven builders take a norm, of which there are two
    assert all(inspect.isfunction(build) for build in BUILDERS.values())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("build", "numbers"), CASES)
def test_logits_are_finite_and_every_parameter_learns(
    build: Builder, numbers: dict[str, Any], shape: Shape
) -> None:
    model = seeded(build, shape, 7, **numbers)
    logits = model(images(shape))
    assert (logits.shape, logits.dtype) == ((4, 7), torch.float32)
    assert logits.isfinite().all()
    (logits * images((1, 1, 7))[:, 0, 0]).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("shape", [(1, 2, 2), DIGITS, (2, 2, 9)], ids=str)
@pytest.mark.parametrize(("build", "numbers"), CASES)
def test_a_batch_of_one_can_be_trained_on(
    build: Builder, numbers: dict[str, Any], shape: Shape
) -> None:
    assert build(shape, 2, **numbers).train()(images(shape, batch=1)).isfinite().all()


@given(
    name=st.sampled_from(["logistic_regression", "mlp", "lenet5", "cnn", "resnet8"]),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 30), st.integers(1, 30)),
    num_classes=st.integers(2, 12),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_image_shape(name: str, shape: Shape, num_classes: int) -> None:
    assert BUILDERS[name](shape, num_classes)(images(shape)).shape == (4, num_classes)


@pytest.mark.parametrize(("build", "numbers"), CASES)
def test_last_linear_is_the_classifier(build: Builder, numbers: dict[str, Any]) -> None:
    model = build(DIGITS, 7, **numbers).eval()
    classifier = last_linear(model)
    taps: list[Tensor] = []
    classifier.register_forward_pre_hook(lambda _, inputs: taps.append(inputs[0]))
    logits = model(images(DIGITS))
    assert classifier.out_features == 7
    assert classifier is dict(model.named_children())["classifier"]
    assert taps[0].shape == (4, classifier.in_features)
    torch.testing.assert_close(classifier(taps[0]), logits, rtol=0, atol=0)


@pytest.mark.parametrize(("build", "numbers"), CASES)
def test_two_instances_share_nothing(build: Builder, numbers: dict[str, Any]) -> None:
    one, two = seeded(build, DIGITS, 4, **numbers), seeded(build, DIGITS, 4, seed=1, **numbers)
    assert not {id(m) for m in one.modules()} & {id(m) for m in two.modules()}
    pointers = [{t.data_ptr() for t in model.state_dict().values()} for model in (one, two)]
    assert not pointers[0] & pointers[1]
    before = {name: tensor.clone() for name, tensor in two.state_dict().items()}
    one.train()(images(DIGITS)).sum().backward()  # moves running statistics and gradients
    assert all(torch.equal(before[name], tensor) for name, tensor in two.state_dict().items())
    assert all(parameter.grad is None for parameter in two.parameters())


@pytest.mark.parametrize(("build", "numbers"), CASES)
def test_state_dict_round_trip(build: Builder, numbers: dict[str, Any]) -> None:
    one, two = seeded(build, DIGITS, 4, **numbers), seeded(build, DIGITS, 4, seed=1, **numbers)
    one(images(DIGITS))  # running statistics away from their start
    two.load_state_dict(one.state_dict())
    x = images(DIGITS, seed=5)
    assert torch.equal(one.eval()(x), two.eval()(x))


@pytest.mark.parametrize(("build", "numbers"), CASES)
def test_same_torch_seed_same_bits(build: Builder, numbers: dict[str, Any]) -> None:
    before = other_streams()
    one, two, third = (seeded(build, DIGITS, 4, seed=s, **numbers) for s in (3, 3, 4))
    assert other_streams() == before
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(last_linear(one).weight, last_linear(third).weight)


@pytest.mark.parametrize(("build", "numbers"), [c for c in CASES if c.values[1]])
def test_group_norm_does_not_look_at_other_examples(
    build: Builder, numbers: dict[str, Any]
) -> None:
    model = seeded(build, DIGITS, 4, **numbers).train()
    x = images(DIGITS)
    together, alone = model(x)[:1], model(x[:1])
    independent = numbers["norm"] == "group"
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-4) is independent
    assert (len(list(model.buffers())) == 0) is independent


@pytest.mark.parametrize(
    ("name", "numbers", "smaller"),
    [
        ("mlp", {"hidden": [5]}, 64 * 5 + 5 + 5 * 3 + 3),
        ("cnn", {"channels": [2], "hidden": 4}, 52 + (2 * 16 * 4 + 4) + 15),
        ("vgg9", {"channels": [1] * 6, "hidden": [2, 2]}, 6 * 10 + 4 + 6 + 9),
        ("resnet8", {"width": 1}, 11 + 22 + (62 + 6) + (232 + 16) + 15),
    ],
)
def test_widths_change_the_network(name: str, numbers: dict[str, Any], smaller: int) -> None:
    assert count(BUILDERS[name](DIGITS, 3, **numbers)) == smaller


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
@pytest.mark.parametrize(
    ("shape", "num_classes", "message"),
    [
        ((3, 8, 8), 0, r"num_classes must be an integer in \[1, inf\), got 0$"),
        ((3, 8, 8), 2.0, r"num_classes must be an integer in \[1, inf\), got 2.0$"),
        ((0, 8, 8), 10, r"image_shape channels must be an integer in \[1, inf\), got 0$"),
        ((3, -4, 8), 10, r"image_shape height must be an integer in \[1, inf\), got -4$"),
        ((3, 8, True), 10, r"image_shape width must be an integer in \[1, inf\), got True$"),
        ((8, 8), 10, r"image_shape must be 3 integers .*, got \(8, 8\)$"),
        (64, 10, r"image_shape must be 3 integers .*, got 64$"),
    ],
)
def test_impossible_task(build: Builder, shape: Any, num_classes: Any, message: str) -> None:
    if build in (models.mlp, models.logistic_regression) and shape == (8, 8):
        assert build(shape, num_classes)(torch.zeros(3, *shape)).shape == (3, num_classes)
        return
    with pytest.raises(ValueError, match=message):
        build(shape, num_classes)


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("mlp", {"hidden": []}, r"hidden must be a list of 1 or more integers, got \[\]$"),
        ("mlp", {"hidden": 200}, r"hidden must be a list of 1 or more integers, got 200$"),
        ("mlp", {"hidden": [8, 0]}, r"hidden\[1\] must be an integer in \[1, inf\), got 0$"),
        ("cnn", {"channels": []}, r"channels must be a list of 1 or more integers, got \[\]$"),
        ("cnn", {"channels": [-1, 2]}, r"channels\[0\] must be an integer in \[1, inf\), got -1$"),
        ("cnn", {"hidden": 0}, r"hidden must be an integer in \[1, inf\), got 0$"),
        ("vgg9", {"channels": [8]}, r"channels must be a list of 6 integers, got \[8\]$"),
        ("vgg9", {"hidden": [8]}, r"hidden must be a list of 2 integers, got \[8\]$"),
        ("resnet8", {"width": 0}, r"width must be an integer in \[1, inf\), got 0$"),
        ("resnet20", {"width": 1.5}, r"width must be an integer in \[1, inf\), got 1.5$"),
        ("cifar_resnet", {"depth": 30}, r"depth=30: expected 6 n \+ 2, such as 20, 32 or 56"),
        ("resnet18", {"width": "64"}, r"width must be an integer in \[1, inf\), got '64'$"),
        ("mobilenet_v2_small", {"width": 0.0}, r"width must be a number in \(0, inf\), got 0.0$"),
        ("mobilenet_v2_small", {"width": math.nan}, r"width must be .*, got nan$"),
        ("mobilenet_v2_small", {"width": "1"}, r"width must be .*, got '1'$"),
    ],
)
def test_impossible_numbers(name: str, numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BUILDERS[name](DIGITS, 10, **numbers)


@pytest.mark.parametrize("build", dict.fromkeys(c.values[0] for c in CASES if c.values[1]))
def test_unknown_norm(build: Builder) -> None:
    with pytest.raises(ValueError, match=r"norm must be one of \('batch', 'group'\), got 'layer'$"):
        build(DIGITS, 10, norm="layer")


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("mlp", {"hidden": (32,)}),
        ("lenet5", {}),
        ("cnn", {"channels": (8, 16), "hidden": 32}),
        ("vgg9", {"channels": (8, 8, 16, 16, 32, 32), "hidden": (32, 32)}),
        ("resnet8", {"norm": "batch"}),
        ("resnet8", {"norm": "group"}),
        pytest.param("shufflenet_v2_05", {"norm": "group"}, marks=pytest.mark.slow),
        pytest.param("mobilenet_v2_small", {"norm": "batch"}, marks=pytest.mark.slow),
    ],
)
def test_a_small_net_learns_16_examples_by_heart(name: str, numbers: dict[str, Any]) -> None:
    model = seeded(BUILDERS[name], DIGITS, 4, **numbers)
    x, labels = images(DIGITS, batch=16), torch.arange(16) % 4
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        torch.autograd.backward(loss)
        optimizer.step()
    assert (model(x).argmax(dim=1) == labels).all()
    assert loss.item() < 0.2


def swapped(network: nn.Module) -> nn.Module:
    """Put ReLU and max-pool next to each other the other way round."""
    for parent in list(network.modules()):
        if isinstance(parent, nn.Sequential):
            for i, (one, other) in enumerate(pairwise(list(parent))):
                if {type(one), type(other)} == {nn.ReLU, MaxPool}:
                    parent[i], parent[i + 1] = other, one
    return network


@pytest.mark.parametrize("build", [models.cnn, models.lenet5, models.vgg9])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_pooling_before_relu_changes_no_bit_of_answers_and_gradients(
    build: Builder, shape: Shape
) -> None:
    found = []
    for change in (lambda network: network, swapped):
        torch.manual_seed(0)
        network = change(build(shape, 10))
        logits = network(images(shape, 8))
        loss = nn.functional.cross_entropy(logits, torch.arange(8))
        found.append([logits, *torch.autograd.grad(loss, list(network.parameters()))])
    kinds = [[*map(type, each.modules())] for each in (network, build(shape, 10))]
    assert kinds[0] != kinds[1]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*found, strict=True))


def test_the_last_map_is_the_one_before_a_single_pixel() -> None:
    """What FFL and FedKD compare of LeNet-5 on digits, 16 maps of 2x2, is what ReLU gives."""
    network = models.lenet5(DIGITS, 10)
    name = last_map(network, classification(DIGITS, 10))
    assert isinstance(network.get_submodule(name), nn.ReLU)
