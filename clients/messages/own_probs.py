"""Own probabilities: the field of how far an input is of a client's kind, or known to it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

from clients.data import Dataset
from clients.messages.arrays import read_arrays
from clients.messages.field import Field
from clients.messages.field_source import Asked
from clients.models.confidence import NEGATIVES, Confidence
from clients.models.discriminator import (
    Discriminator,
    DiscriminatorRecipe,
    fit_discriminator,
    own_probability,
    privatised,
)
from clients.signatures import named_of, names
from clients.training.evaluation import inputs_of, predict_and_tap
from clients.training.taps import PENULTIMATE, evaluating

TOLERANCE = 1e-6
"""How far rounding may bring a probability out of [0, 1]."""

DISCRIMINATOR = "discriminator"
"""Record of a client's state."""


def own_probs(recipe: DiscriminatorRecipe) -> Field:
    """How probably each input is of the client's own kind [N], by a discriminator of its own.

    It is fitted where there are negatives, after training, and stays in the client's state.
    """
    on_features = recipe.inputs == "features"
    return Field(
        partial(_own_probs, recipe=recipe),
        fault=_beyond_0_to_1,
        taps=(PENULTIMATE,) if on_features else (),
        more_examples=_own_and_negatives if on_features else None,
    )


def confidence(of: Confidence) -> Field:
    """How far a client knows each input, in [0, 1], by a function of its network [N].

    Args:
        of: The function; see `clients.models.confidence`.

    Returns:
        The field.
    """
    more = partial(_named_examples, own=names(of, "own"), others=names(of, NEGATIVES))
    return Field(partial(_confidence, of=of), fault=_beyond_0_to_1, more_examples=more)


def _own_probs(asked: Asked, *, recipe: DiscriminatorRecipe) -> npt.NDArray[np.float32]:
    on_features = recipe.inputs == "features"
    if asked.negative_ids is not None:
        asked.state[DISCRIMINATOR] = write_discriminator(_fitted(asked, recipe))
    fitted = read_discriminator(asked.state.array_records.get(DISCRIMINATOR))
    if fitted is None:
        raise ValueError("it has fitted no discriminator yet")
    seen = asked.features().flatten(1).numpy() if on_features else _pixels(asked.dataset, asked.ids)
    return own_probability(fitted, seen)


def _fitted(asked: Asked, recipe: DiscriminatorRecipe) -> Discriminator:
    assert asked.negative_ids is not None, "there is something to fit against"
    sets = ((asked.private, asked.indices), (asked.proxy, asked.negative_ids))
    if recipe.inputs == "pixels":
        own, negatives = (_pixels(*each) for each in sets)
    else:
        network = asked.network()
        seen = (predict_and_tap(network, *each, (PENULTIMATE,))[1] for each in sets)
        own, negatives = (each[PENULTIMATE].flatten(1).numpy() for each in seen)
    fitted = fit_discriminator(own, negatives, balanced=recipe.balanced, l2=recipe.l2)
    if recipe.epsilon is None:
        return fitted
    return privatised(fitted, len(own) + len(negatives), recipe, asked.rng("noise"))


def _confidence(asked: Asked, *, of: Confidence) -> npt.NDArray[np.float64]:
    network = asked.network()
    device = next(network.parameters()).device

    def seen(dataset: Dataset, ids: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(inputs_of(dataset, ids)).to(device)

    def negatives() -> Tensor:
        if asked.negative_ids is None:
            raise ValueError("it names 'negatives', and was sent none")
        return seen(asked.proxy, asked.negative_ids)

    offered: dict[str, Callable[[], Any]] = {
        "own": partial(seen, asked.private, asked.indices),
        NEGATIVES: negatives,
        "rng": lambda: asked.rng("draws"),
    }
    with evaluating(network):
        found: Any = of(network, seen(asked.dataset, asked.ids), **named_of(of, offered))
    found = found.detach().cpu() if isinstance(found, Tensor) else found
    values = np.asarray(found, dtype=np.float64)
    if values.size and not -TOLERANCE <= values.min() <= values.max() <= 1 + TOLERANCE:
        raise ValueError(
            f"strategy.discriminator gave values from {values.min():.4g} to {values.max():.4g}: "
            "expected in [0, 1], of which scorers take odds"
        )
    return values.clip(0, 1)


def write_discriminator(fitted: Discriminator) -> ArrayRecord:
    """Turn a discriminator into a record of a client's state."""
    return ArrayRecord({name: Array(value) for name, value in vars(fitted).items()})


def read_discriminator(record: ArrayRecord | None) -> Discriminator | None:
    """Read what `write_discriminator` wrote; None if there is none."""
    return None if record is None else Discriminator(**read_arrays(record))


def _pixels(dataset: Dataset, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    if dataset.task.num_tokens is not None:
        raise ValueError("tokens are no pixels: take strategy/discriminator=features")
    return inputs_of(dataset, ids).reshape(len(ids), -1)


def _beyond_0_to_1(array: npt.NDArray[np.float32]) -> str | None:
    return None if ((array >= 0) & (array <= 1)).all() else "leaves [0, 1]"


def _own_and_negatives(private: int, negatives: int) -> int:
    return private + negatives if negatives else 0


def _named_examples(private: int, negatives: int, *, own: bool, others: bool) -> int:
    return own * private + others * negatives
