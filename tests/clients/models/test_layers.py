"""Layers of our own: norms of groups, strides that fit, shuffled channels."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clients.models.layers import fit_strides, norm_layer
from clients.models.mobile import ShuffleUnit


@given(channels=st.integers(1, 2048))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_group_norm_groups(channels: int) -> None:
    norm = norm_layer("group", channels)
    assert isinstance(norm, nn.GroupNorm)
    assert channels % norm.num_groups == 0
    assert norm.num_groups <= 32
    assert norm.num_groups == 1 or channels // norm.num_groups >= 8


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (12, 1), (16, 2), (24, 3), (512, 32)])
def test_group_norm_groups_by_hand(channels: int, groups: int) -> None:
    norm = norm_layer("group", channels)
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    wanted=st.lists(st.sampled_from([1, 2]), max_size=12),
)
@settings(deadline=None, derandomize=True)
def test_fit_strides(size: tuple[int, int], wanted: list[int]) -> None:
    strides = fit_strides(size, wanted)
    assert len(strides) == len(wanted)
    for axis in (0, 1):
        left = size[axis]
        for stride, want in zip(strides, wanted, strict=True):
            assert stride[axis] == (want if left > 2 else 1)
            left = math.ceil(left / stride[axis])
        assert left >= min(2, size[axis])


def test_shuffle_interleaves_the_two_branches() -> None:
    x = torch.arange(4.0).reshape(1, 4, 1, 1)
    split = ShuffleUnit(nn.Identity(), nn.Identity(), split=True)(x)
    whole = ShuffleUnit(nn.Identity(), nn.Identity(), split=False)(x)
    assert split.flatten().tolist() == [0, 2, 1, 3]
    assert whole.flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
