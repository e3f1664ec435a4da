"""How private, proxy and test set are cut, and what is kept apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import data
from clients.data import Dataset, split
from tests.datasets import make


def numbered(count: int, name: str = "numbered") -> data.Dataset:
    """Images that are their own number, so that an example can be recognised."""
    images = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1)
    return data.Dataset(
        name,
        images,
        np.zeros(count, np.int64),
        data.classification(images.shape[1:], 2),
        1.0,
        (7.0,),
        (3.0,),
    )


def numbers(dataset: data.Dataset) -> list[int]:
    return [int(value) for value in dataset.inputs.ravel()]


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(10, 60),
    share=st.floats(0.1, 0.9),
    limited=st.booleans(),
    proxy_limit=st.none() | st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_private_and_proxy_are_disjoint(
    count: int, share: float, limited: bool, proxy_limit: int | None, seed: int
) -> None:
    limit = max(8, count // 2) if limited else None
    used = limit or count
    splits = data.split(
        numbered(count),
        numbered(3),
        proxy_share=share,
        proxy_source=None,
        limit=limit,
        proxy_limit=proxy_limit,
        rng=np.random.default_rng(seed),
    )
    private, proxy = numbers(splits.private), numbers(splits.proxy)
    assert len(set(private + proxy)) == len(private) + len(proxy)
    assert set(private + proxy) <= set(range(count))
    num_proxy = round(share * used)
    assert len(private) == used - num_proxy  # whatever proxy_limit says
    assert len(proxy) == min(num_proxy, proxy_limit or num_proxy)
    assert len(splits.test) == 3


def cut(train: data.Dataset, **changes: Any) -> data.Splits:
    options: dict[str, Any] = {
        "proxy_share": 0.25,
        "proxy_source": None,
        "limit": None,
        "proxy_limit": None,
        "rng": np.random.default_rng(0),
    }
    return data.split(train, train, **(options | changes))


def test_a_split_is_shuffled_and_repeatable() -> None:
    first, again = cut(numbered(40)), cut(numbered(40))
    assert numbers(first.private) == numbers(again.private)
    assert numbers(first.proxy) != sorted(numbers(first.proxy))
    other = cut(numbered(40), rng=np.random.default_rng(1))
    assert numbers(first.private) != numbers(other.private)


def test_another_data_set_as_proxy_is_normalised_like_the_private_set() -> None:
    train = make()
    source = make(name="foreign", mean=(0.0, 0.0), std=(1.0, 1.0), num_classes=9, scale=0.5)
    source = replace(source, inputs=255 - source.inputs)
    splits = cut(train, proxy_source=source, proxy_limit=4)
    assert (len(splits.private), len(splits.proxy)) == (6, 4)
    assert (splits.proxy.mean, splits.proxy.std) == (train.mean, train.std)
    assert (splits.proxy.name, splits.proxy.scale) == ("foreign", 0.5)
    assert source.mean == (0.0, 0.0)


def test_images_that_clients_or_the_test_have_are_left_out_of_a_foreign_proxy_set() -> None:
    train, test = numbered(10), numbered(4)
    test = replace(test, inputs=test.inputs + 100)
    images = np.concatenate([train.inputs[:3], test.inputs[1:], train.inputs + 50])
    source = Dataset(
        "foreign",
        images,
        np.zeros(16, np.int64),
        data.classification(images.shape[1:], 1),
        1.0,
        train.mean,
        train.std,
    )
    splits = split(
        train, test, proxy_share=0.5, proxy_source=source, limit=None, proxy_limit=None,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    found = {image.tobytes() for image in splits.proxy.inputs}
    assert found == {image.tobytes() for image in train.inputs + 50}
    with pytest.raises(ValueError, match="every image of it is in"):
        cut(train, proxy_source=train)


@pytest.mark.parametrize("told", ["bytes as floats", "floats as bytes", "floats of half precision"])
def test_a_foreign_proxy_set_is_compared_by_what_networks_see(told: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 1, 4, 4), dtype=np.uint8)
    stored = Dataset(
        "stored",
        pixels,
        np.zeros(40, np.int64),
        data.classification(pixels.shape[1:], 2),
        1 / 255,
        (0.5,),
        (0.3,),
    )
    floats = (pixels / 255).astype(np.float32)
    if "half" in told:
        stored = replace(stored, inputs=floats - 0.001, scale=1.0)
        floats = (floats - 0.001).astype(np.float16).astype(np.float32)
    copies = replace(stored, name="copies", inputs=floats, scale=1.0)
    ours, theirs = (copies, stored) if told == "floats as bytes" else (stored, copies)
    train, test = data.subset(ours, np.arange(25)), data.subset(ours, np.arange(25, 30))
    splits = split(
        train, test, proxy_share=0.2, proxy_source=theirs, limit=None, proxy_limit=None, rng=rng,
    )  # fmt: skip
    kept = {image.tobytes() for image in splits.proxy.inputs}
    assert kept == {image.tobytes() for image in theirs.inputs[30:]}


def test_no_proxy_set_on_request() -> None:
    splits = cut(numbered(10), proxy_share=0.0)
    assert (len(splits.private), len(splits.proxy)) == (10, 0)


def test_a_limit_beyond_what_there_is_leaves_all() -> None:
    """`debug=fast` takes at most 400 examples of any data, 300 too."""
    for limit in (9, 10, 11, 400):
        splits = cut(numbered(10), limit=limit)
        assert len(splits.private) + len(splits.proxy) == min(limit, 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proxy_share": 1.0}, r"proxy_share=1\.0, expected a number in \[0, 1\)"),
        ({"proxy_share": -0.1}, r"proxy_share=-0\.1, expected a number in \[0, 1\)"),
        ({"proxy_share": 0.001}, r"proxy_share=0\.001 of 10 examples leaves 0 for the proxy"),
        ({"proxy_share": 0.999}, r"proxy_share=0\.999 of 10 .* and 0 for the private"),
        ({"limit": 0}, r"limit=0, expected at least 1"),
        ({"proxy_limit": 0}, "proxy_limit=0, expected at least 1"),
        ({"proxy_source": make()}, r"toy has inputs of shape \(2, 3, 2\), expected \(1, 1, 1\)"),
        ({"proxy_source": numbered(0, "none")}, "proxy_source=none is empty"),
    ],
)
def test_split_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cut(numbered(10), **changes)
