"""Max-pooling that compares whole maps: torch's bits, whatever the map and its memory format."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.data import classification
from clients.models import cnn, lenet5, vgg9
from clients.models.factory import build
from clients.models.layers import MaxPool


def assert_same_bits(one: Tensor, other: Tensor) -> None:
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(
        one.contiguous().numpy().view(np.uint8), other.contiguous().numpy().view(np.uint8)
    )


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("window", [(2, 2), (1, 2), (2, 1), (1, 1)])
@pytest.mark.parametrize("size", [(2, 2), (5, 4), (4, 5), (7, 7), (24, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_is_torchs(
    form: torch.memory_format, window: tuple[int, int], size: tuple[int, int], dtype: torch.dtype
) -> None:
    maps = torch.randn(3, 6, *size, generator=torch.Generator().manual_seed(0)).to(dtype)
    maps[0, 1] = 0.5  # all alike
    maps = maps.contiguous(memory_format=form)
    with torch.no_grad():
        ours, theirs = MaxPool(window)(maps), nn.MaxPool2d(window)(maps)
        assert_same_bits(ours.float(), theirs.float())
        maps[0, 0, 0, 0] = float("nan")
        ours, theirs = MaxPool(window)(maps), nn.MaxPool2d(window)(maps)
    np.testing.assert_array_equal(ours.float().numpy(), theirs.float().numpy())


@pytest.mark.parametrize(
    "model",
    [lenet5, cnn, vgg9, partial(cnn, channels=(4,), hidden=8)],
    ids=["lenet5", "cnn", "vgg9", "small"],
)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 17, 23)])
def test_answers_have_the_bits_of_a_network_with_torchs(
    model: object, shape: tuple[int, int, int]
) -> None:
    """The memory format of a map may choose the next convolution's order of sums."""
    network = build(model, classification(shape, 10), np.random.default_rng(0)).eval()
    inputs = torch.randn(33, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = network(inputs)
        for module in network.modules():
            if isinstance(module, nn.Sequential):
                for number, each in enumerate(module):
                    if isinstance(each, MaxPool):
                        module[number] = nn.MaxPool2d(each.kernel_size)
        assert_same_bits(ours, network(inputs))


@pytest.mark.parametrize("window", [(3, 3), (2, 3), (0, 2)])
def test_other_windows_are_refused(window: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected .height, width. of 1 or 2"):
        MaxPool(window)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_it_is_scripted_and_traced_as_torchs_is() -> None:
    network, maps = nn.Sequential(MaxPool((2, 2))), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        scripted = torch.jit.script(network)
        assert_same_bits(scripted(maps), network(maps))
        assert_same_bits(torch.fx.symbolic_trace(network)(maps), network(maps))


def test_where_gradients_are_wanted_it_is_torchs_whatever_is_alike() -> None:
    """Of equal neighbours the first gets the gradient, where a maximum of two would share it."""
    maps = torch.zeros(1, 1, 2, 4, requires_grad=True)
    torch.autograd.backward(MaxPool((2, 2))(maps).sum())
    assert maps.grad is not None
    assert maps.grad.tolist() == [[[[1, 0, 1, 0], [0, 0, 0, 0]]]]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_is_exported_has_one_node_of_it() -> None:
    network, example = nn.Sequential(MaxPool((2, 2))), torch.zeros(1, 1, 4, 4)
    with torch.no_grad():
        graphs = [
            str(torch.jit.trace(network, example).inlined_graph),  # type: ignore[no-untyped-call]
            str(torch.export.export(network, (example,)).graph),
        ]
    for graph in graphs:
        assert "max_pool2d" in graph
        assert "maximum" not in graph
