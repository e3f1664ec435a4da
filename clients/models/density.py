"""Confidence by density: how much likelier an input is among a client's own than in noise."""

from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from clients.models.confidence import BATCH_SIZE, share_below

Ratio = Callable[[Tensor], Tensor]
"""Inputs [N, D] -> how much likelier each is [N]."""


def kulsif(
    network: nn.Module,
    inputs: Tensor,
    *,
    own: Tensor,
    rng: np.random.Generator,
    sigma: Annotated[float, "> 0"] = 5.0,
    points: Annotated[int, ">= 1"] = 250,
) -> Tensor:
    """Confidence by density of own inputs against uniform noise: the share of own ones below it.

    Noise is uniform from the least to the largest number of the client's inputs. Scorer
    own_selection with threshold q keeps what is above the client's own quantile q.

    Args:
        network: Not asked.
        inputs: [N, ...], numbers.
        own: The client's [n, ...].
        rng: Draws the noise.
        sigma: Width of the Gaussian kernel, > 0, in the units of inputs; 5 is of MNIST's pixels.
        points: Of noise, >= 1.

    Returns:
        [N] in (0, 1].

    Raises:
        ValueError: A number is out of range, or inputs are tokens.

    Reference: Shao, Wu, Zhang, "Selective knowledge sharing for privacy-preserving federated
    distillation without a good teacher", Nature Communications 2024 (arXiv:2304.01731), whose code
    forgets to invert the matrix; squashed by `share_below`.
    """
    if not sigma > 0 or points < 1:
        raise ValueError(
            f"strategy.discriminator.sigma={sigma}, points={points}: expected > 0, >= 1"
        )
    if not inputs.is_floating_point():
        raise ValueError("strategy.discriminator: kulsif goes by numbers, and inputs are tokens")
    here, asked = (each.flatten(1).double().cpu() for each in (own, inputs))
    low, high = float(here.min()), float(here.max())
    noise = torch.from_numpy(rng.uniform(low, high, (points, here.shape[1])))
    ratio = density_ratio(here, noise, sigma, points**-0.5)
    return share_below(ratio(asked), ratio(here))


def density_ratio(own: Tensor, noise: Tensor, sigma: float, ridge: float) -> Ratio:
    """Fit p_own / p_noise by kernel unconstrained least squares (KuLSIF).

    w(x) = sum_i a_i k(x, u_i) + sum_j k(x, x_j) / (n ridge), of m points of noise u and n own x,
    with (K_uu / m + ridge I) a = -K_ux 1 / (m n ridge) and k(x, y) = exp(-|x - y|^2 / 2 sigma^2).

    Args:
        own: [n, D] float64.
        noise: [m, D] float64.
        sigma: Width of the kernel, > 0.
        ridge: > 0.

    Returns:
        The ratio; it may be below 0 where there is neither.

    Reference: Kanamori, Suzuki, Sugiyama, "Statistical analysis of kernel-based least-squares
    density-ratio estimation", Machine Learning 86 (2012), eq. 7.
    """
    m, n = len(noise), len(own)

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        return torch.cdist(one, other).square_().div_(-2 * sigma**2).exp_()

    matrix = kernel(noise, noise) / m + ridge * torch.eye(m, dtype=noise.dtype)
    right = -kernel(noise, own).sum(1) / (m * n * ridge)
    factors = torch.linalg.solve(matrix, right)

    def ratio(inputs: Tensor) -> Tensor:
        found = [
            kernel(batch, noise) @ factors + kernel(batch, own).sum(1) / (n * ridge)
            for batch in torch.split(inputs, BATCH_SIZE)
        ]
        return torch.cat(found)

    return ratio
