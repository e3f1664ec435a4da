"""Confidence: how far a client knows each input, in the place of a discriminator's probability.

A function of the client's network, in eval mode, and inputs [N, ...] as networks get them and the
client sees them; it gives [N] in [0, 1], large where the input is known, and gets what it names of
`own`, the client's examples [n, ...], `negatives`, proxy examples that are never distilled
[m, ...], and `rng`. It is asked anew of each chunk and of the test set. What it does to the network
is undone.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.seeding import torch_seed
from clients.signatures import unoffered
from clients.training.taps import PENULTIMATE, Taps

Confidence = Callable[..., Any]
"""(network, inputs [N, ...], what it names of OFFERED) -> [N] in [0, 1]."""

NEGATIVES = "negatives"
OFFERED = ("own", NEGATIVES, "rng")

BATCH_SIZE = 256

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
BY_CHANNEL = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def mc_dropout(
    network: nn.Module,
    inputs: Tensor,
    *,
    rng: np.random.Generator,
    draws: Annotated[int, ">= 2"] = 8,
    rate: Annotated[float, "in (0, 1)"] = 0.1,
) -> Tensor:
    """Confidence that is large where answers hardly depend on which units are dropped.

    1 - mean_t |p_t - p|_1 / 2, p_t the softmax of draw t and p their mean: one less how far draws
    are from their mean in total variation.

    Args:
        network: Its own dropout layers draw, those with p > 0; without any, one of `rate` before
            each linear and convolutional layer does.
        inputs: [N, ...].
        rng: Says which units.
        draws: T >= 2.
        rate: In (0, 1).

    Returns:
        [N] in (0, 1].

    Raises:
        ValueError: A number is out of range.

    Reference: Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016
    (arXiv:1506.02142), of which the spread of the softmax is one reading.
    """
    if draws < 2 or not 0 < rate < 1:
        raise ValueError(
            f"strategy.discriminator.draws={draws}, rate={rate}: expected >= 2, in (0, 1)"
        )
    generator = torch.Generator().manual_seed(torch_seed(rng))
    own = [each for each in network.modules() if isinstance(each, DROPOUT) and each.p > 0]
    others = [] if own else [each for each in network.modules() if isinstance(each, WEIGHTED)]
    with ExitStack() as hooks:
        for layer in own:
            drop = partial(_dropped, generator, layer.p, isinstance(layer, BY_CHANNEL))
            hooks.callback(layer.register_forward_hook(partial(_after, drop)).remove)
        drop = partial(_dropped, generator, rate, False)
        for other in others:
            hooks.callback(other.register_forward_pre_hook(partial(_before, drop)).remove)
        probs = torch.stack([outputs_of(network, inputs).softmax(1) for _ in range(draws)])
    spread = (probs - probs.mean(0)).abs().sum(2).mean(0) / 2
    return 1 - spread.flatten(1).mean(1) if spread.dim() > 1 else 1 - spread


def energy(
    network: nn.Module, inputs: Tensor, *, own: Tensor, temperature: Annotated[float, "> 0"] = 1.0
) -> Tensor:
    """Confidence by energy E = -T logsumexp(logits / T): the share of own examples with a larger.

    Args:
        network: From inputs to logits.
        inputs: [N, ...].
        own: The client's [n, ...].
        temperature: T > 0.

    Returns:
        [N] in (0, 1].

    Raises:
        ValueError: The temperature is out of range.

    Reference: Liu, Wang, Owens, Li, "Energy-based out-of-distribution detection", NeurIPS 2020
    (arXiv:2010.03759), eq. 4; squashed by `share_below`.
    """
    if not temperature > 0:
        raise ValueError(f"strategy.discriminator.temperature={temperature}: expected > 0")

    def known(these: Tensor) -> Tensor:
        scores = temperature * (outputs_of(network, these) / temperature).logsumexp(1)
        return scores.flatten(1).mean(1) if scores.dim() > 1 else scores

    return share_below(known(inputs), known(own))


def nearest_own(
    network: nn.Module, inputs: Tensor, *, own: Tensor, neighbours: Annotated[int, ">= 1"] = 10
) -> Tensor:
    """Confidence by the density of own examples, in features: how near the k-th nearest one is.

    Penultimate features are brought to length 1; nearness is the cosine. The nearness of an own
    example is that of the others to it.

    Args:
        network: With a linear classifier.
        inputs: [N, ...].
        own: The client's [n, ...].
        neighbours: k >= 1; at most n - 1.

    Returns:
        [N] in (0, 1]; 1 where the client has one example.

    Raises:
        ValueError: The number is out of range.

    Reference: Sun, Ming, Zhu, Li, "Out-of-distribution detection with deep nearest neighbors", ICML
    2022 (arXiv:2204.06507), eq. 1; squashed by `share_below`.
    """
    if neighbours < 1:
        raise ValueError(f"strategy.discriminator.neighbours={neighbours}: expected >= 1")
    there, asked = _unit_features(network, own), _unit_features(network, inputs)
    if len(there) < 2:
        return torch.ones(len(asked))
    k = min(neighbours, len(there) - 1)
    return share_below(_nearness(asked, there, k), _nearness(there, there, k + 1))


def share_below(values: Tensor, own: Tensor) -> Tensor:
    """Squash values by those of a client's own examples: (1 + |{j: own_j <= v}|) / (n + 1).

    Args:
        values: [N], large where an input is known.
        own: Of the client's own examples [n].

    Returns:
        [N] in (0, 1]: for examples such as its own even in [0, 1], for others near 0; the least for
        a value that is none.

    Reference: conformal p-values, Bates et al., Annals of Statistics 51 (2023); own examples were
    learned here, and look more known than others of their kind.
    """
    values = values.nan_to_num(-torch.inf, torch.inf, -torch.inf)  # else a NaN is above all
    below = torch.searchsorted(own.sort().values, values.contiguous(), right=True)
    return (1 + below).double() / (len(own) + 1)


for _function in (mc_dropout, energy):
    _function.__dict__["of_probabilities"] = True  # of no use where answers are numbers


def outputs_of(network: nn.Module, inputs: Tensor) -> Tensor:
    """Run a network on inputs, batch by batch: outputs [N, ...] as they come, float32."""
    with torch.inference_mode():
        return torch.cat([network(batch).float() for batch in torch.split(inputs, BATCH_SIZE)])


def require_confidence(function: Confidence) -> None:
    """Refuse what is no function, or needs what nobody gives it; ValueError names the key."""
    if not callable(function) or isinstance(function, type):
        raise ValueError(
            f"strategy.discriminator: {function!r}, expected a DiscriminatorRecipe or a function "
            "of network and inputs"
        )
    if (name := unoffered(function, 2, OFFERED)) is not None:
        raise ValueError(
            f"strategy.discriminator.{name} is not set, and strategy.discriminator needs it: "
            "expected a number of yours, or one of what is given by name: " + ", ".join(OFFERED)
        )


def _after(drop: Callable[[Tensor], Tensor], layer: Any, inputs: Any, output: Tensor) -> Tensor:
    return drop(output)


def _before(drop: Callable[[Tensor], Tensor], layer: Any, inputs: tuple[Tensor]) -> Tensor:
    return drop(inputs[0])


def _dropped(generator: torch.Generator, rate: float, channels: bool, values: Tensor) -> Tensor:
    """Drop units, or whole channels, on any device alike."""
    shape = (*values.shape[:2], *(1 for _ in values.shape[2:])) if channels else values.shape
    kept = torch.rand(shape, generator=generator) >= rate
    if rate == 1:  # as torch does; nothing is kept that could be scaled
        return torch.zeros_like(values)
    return values * kept.to(values.device) / (1 - rate)


def _unit_features(network: nn.Module, inputs: Tensor) -> Tensor:
    """Return penultimate features of length 1 [N, D], on the CPU."""
    found = []
    with torch.inference_mode(), Taps(network, [PENULTIMATE]) as taps:
        for batch in torch.split(inputs, BATCH_SIZE):
            network(batch)
            found.append(taps.take()[PENULTIMATE].flatten(1).float().cpu())
    return nn.functional.normalize(torch.cat(found))


def _nearness(features: Tensor, own: Tensor, k: int) -> Tensor:
    """Return the cosine of each to the k-th nearest own one [N]; its own is an own one's first."""
    batches = torch.split(features, BATCH_SIZE)
    return torch.cat([(batch @ own.T).topk(k).values[:, -1] for batch in batches])
