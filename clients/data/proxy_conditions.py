"""Conditions of the proxy set: what is done to the shared inputs, on purpose, once for a run.

One is a function of the proxy set that gets what it names of `OFFERED`, and gives a data set of the
same task. How large the set is, and which other data set it is taken from, `data.proxy_limit` and
`proxy=` say; here is what cannot be said so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from clients.data.dataset import Dataset, subset
from clients.signatures import named_of, require_given

ProxyCondition = Callable[..., Dataset]

OFFERED = ("rng", "test")
"""A generator of the run, and the test set."""


def only_classes(proxy: Dataset, *, classes: Sequence[Annotated[int, ">= 0"]]) -> Dataset:
    """Class overlap of the proxy set: inputs of some classes only are left.

    Args:
        proxy: It; by its labels, which nobody else looks at.
        classes: Of those that it has.

    Returns:
        What is left.

    Raises:
        ValueError: Nothing is.
    """
    kept = np.flatnonzero(np.isin(proxy.labels, list(classes)))
    if not len(kept):
        raise ValueError(f"classes={list(classes)}: the proxy set has no example of these")
    return subset(proxy, kept)


def noisy_inputs(
    proxy: Dataset, *, rng: np.random.Generator, deviation: Annotated[float, ">= 0"] = 0.5
) -> Dataset:
    """Noise of the proxy set: each number of an input is off by a normal one.

    Args:
        proxy: It, of images or tables.
        rng: Draws the noise, the same for all clients and rounds.
        deviation: Of the noise, >= 0, in deviations of the channel: as networks see inputs.

    Returns:
        The noisy set, in float32.

    Raises:
        ValueError: The inputs are tokens, or the number is out of range.
    """
    if proxy.task.num_tokens is not None:
        raise ValueError("noisy_inputs adds numbers, and these inputs are tokens")
    if not 0 <= deviation < np.inf:
        raise ValueError(f"deviation={deviation}: expected >= 0 and finite")
    channels = (-1, *(1 for _ in proxy.inputs.shape[2:]))
    size = np.asarray(proxy.std, np.float32).reshape(channels) * np.float32(deviation)
    noise = rng.standard_normal(proxy.inputs.shape, dtype=np.float32) * size
    inputs = proxy.inputs * np.float32(proxy.scale) + noise
    return replace(proxy, inputs=inputs.astype(np.float32), scale=1.0)


def contaminated(
    proxy: Dataset,
    *,
    test: Dataset,
    rng: np.random.Generator,
    share: Annotated[float, "in [0, 1]"] = 0.1,
) -> Dataset:
    """Contamination of the proxy set by the test set: some of its inputs are test inputs.

    A run says so: what is distilled on test inputs is measured on them too.

    Args:
        proxy: It.
        test: Where the inputs are taken from.
        rng: Draws which are replaced, and by which.
        share: Of the proxy set, in [0, 1]; as many as the test set has at most.

    Returns:
        The set, of its size.

    Raises:
        ValueError: The share is out of range, or the sets are stored in unlike ways.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}: expected in [0, 1]")
    if (proxy.inputs.dtype, proxy.scale) != (test.inputs.dtype, test.scale):
        raise ValueError(f"contaminated: {proxy.name} and {test.name} are stored in unlike ways")
    number = min(round(share * len(proxy)), len(test))
    inputs, labels = proxy.inputs.copy(), proxy.labels.copy()
    places = rng.permutation(len(proxy))[:number]
    taken = rng.permutation(len(test))[:number]
    inputs[places], labels[places] = test.inputs[taken], test.labels[taken]
    return replace(proxy, inputs=inputs, labels=labels)


def conditioned(
    condition: ProxyCondition, proxy: Dataset, test: Dataset, rng: Callable[[], Any]
) -> Dataset:
    """Do to a proxy set what a condition says.

    Args:
        condition: Anyone's.
        proxy: The proxy set.
        test: The test set.
        rng: Makes the generator.

    Returns:
        What came of it.

    Raises:
        ValueError: It needs what nobody gives it, or gives no data set of the task; names the key.
    """
    key = "data.proxy_condition"
    require_given(condition, 1, OFFERED, key)
    try:
        found = condition(proxy, **named_of(condition, {"rng": rng, "test": lambda: test}))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if not isinstance(found, Dataset) or found.task != proxy.task or not len(found):
        raise ValueError(
            f"{key} gave {type(found).__name__}, expected a data set of the proxy set's task with "
            "at least one example"
        )
    return found
