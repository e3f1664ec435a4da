"""Drift in representation space: how alike two networks see the same inputs."""

import torch
from torch import Tensor


def linear_cka(one: Tensor, other: Tensor, unbiased: bool = False) -> float:
    """Linear centred kernel alignment of two sets of features.

    ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F) of centred X and Y; `unbiased` puts the U-statistic of
    HSIC in the place of each of the three. The plain one is near 1 for any features that are not
    far fewer than the examples, which the unbiased one corrects.

    Args:
        one: X [N, D], N >= 2, N >= 4 if unbiased.
        other: Y [N, E], of the same inputs in the same order; D and E may differ.
        unbiased: Whether to correct for few examples.

    Returns:
        In [0, 1]; 1 iff one is the other but for rotation, isotropic scale and shift. Unbiased at
        most 1, and around 0, also below, for unrelated features. NaN where features do not vary.

    Raises:
        ValueError: Too few examples, or not as many of one as of the other.

    Reference:
        Kornblith et al., "Similarity of Neural Network Representations Revisited", 2019, eq. 6;
        unbiased: Song et al., "Feature Selection via Dependence Maximization", 2012, eq. 5.
    """
    least = 4 if unbiased else 2
    if len(one) != len(other) or len(one) < least:
        raise ValueError(
            f"CKA of {len(one)} and {len(other)} examples: expected as many of both, >= {least}"
        )
    x, y = one.double() - one.double().mean(0), other.double() - other.double().mean(0)
    if unbiased:
        k, linear = (x @ x.T).fill_diagonal_(0), (y @ y.T).fill_diagonal_(0)
        cross, own, others = _hsic(k, linear), _hsic(k, k), _hsic(linear, linear)
    else:
        cross, own, others = (_squared(a.T @ b) for a, b in ((y, x), (x, x), (y, y)))
    scale = (own * others).clamp_min(0).sqrt()
    return float(cross / scale) if scale > 0 else float("nan")


def _squared(matrix: Tensor) -> Tensor:
    return matrix.square().sum()


def _hsic(k: Tensor, other: Tensor) -> Tensor:
    """Unbiased HSIC of two kernel matrices [N, N] whose diagonals are 0."""
    n = len(k)
    rows, columns = k.sum(1), other.sum(1)
    product = torch.sum(k * other) + rows.sum() * columns.sum() / ((n - 1) * (n - 2))
    return (product - 2 / (n - 2) * (rows @ columns)) / (n * (n - 3))
