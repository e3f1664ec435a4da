"""Conditions of the proxy set: by hand; a run says how many test inputs it has."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clients.data import Dataset, blobs, classification, digits, draw_splits, normalised
from clients.data.proxy_conditions import contaminated, noisy_inputs, only_classes
from tests.datasets import make


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def cut(condition: Any = None, source: Any = None) -> Any:
    about = {"proxy_share": 0.4, "limit": None, "proxy_limit": None}
    return draw_splits(3, source or digits(), None, None, condition, **about)


def test_only_some_classes_are_left() -> None:
    found = only_classes(make(), classes=[0, 2])
    assert found.labels.tolist() == [0, 2, 0, 2]
    assert found.inputs[1].tolist() == make().inputs[2].tolist()
    with pytest.raises(ValueError, match=r"classes=\[7\]: the proxy set has no example"):
        only_classes(make(), classes=[7])


def test_noise_is_of_the_deviation_as_networks_see_it() -> None:
    data = replace(make(), inputs=np.zeros((4000, 2, 3, 2), np.uint8), labels=np.zeros(4000, int))
    found = noisy_inputs(data, rng=rng(), deviation=0.5)
    ids = np.arange(4000)
    away = normalised(found, ids) - normalised(data, ids)
    assert abs(away.std() - 0.5) < 0.01
    assert abs(away.mean()) < 0.01
    same = noisy_inputs(data, rng=rng(), deviation=0.0)
    np.testing.assert_allclose(normalised(same, ids), normalised(data, ids), atol=1e-6)
    with pytest.raises(ValueError, match="deviation=-1: expected >= 0"):
        noisy_inputs(data, rng=rng(), deviation=-1)
    words = classification((3,), 2, num_tokens=5)
    tokens = Dataset("words", np.zeros((2, 3), np.uint8), np.array([0, 1]), words)
    with pytest.raises(ValueError, match="these inputs are tokens"):
        noisy_inputs(tokens, rng=rng())


def test_as_many_test_inputs_as_the_share_says_and_a_run_counts_them() -> None:
    plain = cut()
    assert plain.proxy_in_test == 0
    leaky = cut(contaminated)
    expected = round(0.1 * len(plain.proxy))
    changed = (leaky.proxy.inputs != plain.proxy.inputs).reshape(len(plain.proxy), -1).any(1)
    assert leaky.proxy_in_test == expected == changed.sum()
    assert (leaky.private.inputs == plain.private.inputs).all()  # nobody else's draws move
    again = cut(contaminated)
    assert (again.proxy.inputs == leaky.proxy.inputs).all()
    with pytest.raises(ValueError, match="share=2: expected in"):
        contaminated(plain.proxy, test=plain.test, rng=rng(), share=2)
    floats = blobs(num_examples=40)
    with pytest.raises(ValueError, match="stored in unlike ways"):
        contaminated(plain.proxy, test=floats[1], rng=rng())


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (lambda proxy, *, labels: proxy, r"data\.proxy_condition\.labels is not set.*rng, test"),
        (lambda proxy: proxy.inputs, r"data\.proxy_condition gave ndarray, expected a data set"),
        (lambda proxy: make(), r"data\.proxy_condition gave Dataset, expected a data set of the"),
    ],
    ids=["needy", "array", "task"],
)
def test_what_is_no_proxy_set_is_refused_by_the_key(condition: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cut(condition)
