"""Drift in output space: how far clients are from each other in what they answer.

Parameters of unlike networks cannot be compared; answers on the same inputs can. Every function is
linear in the number of clients.
"""

import torch
from torch import Tensor


def entropy(probs: Tensor, dim: int) -> Tensor:
    """Shannon entropy along `dim`, in nats; 0 log 0 = 0."""
    return -torch.xlogy(probs, probs).sum(dim)


def jensen_shannon(probs: Tensor) -> Tensor:
    """Generalised Jensen-Shannon divergence of K distributions: H(mean p_k) - mean H(p_k).

    Args:
        probs: Answers [K, N, C], rows on the simplex.

    Returns:
        Divergence per example [N] in [0, log K] nats; 0 iff all agree.

    Reference:
        Lin, "Divergence Measures Based on the Shannon Entropy", 1991, eq. 5.1.
    """
    return entropy(probs.mean(0), -1) - entropy(probs, -1).mean(0)


def disagreement(probs: Tensor) -> Tensor:
    """Share of pairs of clients whose most likely classes differ.

    Counted per class instead of per pair: with n_c votes for class c, sum n_c (n_c - 1) of the
    K (K - 1) ordered pairs agree.

    Args:
        probs: Answers or logits [K, N, C], K >= 2; for K = 1 there is no pair, and none differs.

    Returns:
        Disagreement per example [N] in [0, 1].
    """
    num_clients, _, num_classes = probs.shape
    if num_clients < 2:
        return torch.zeros(probs.shape[1], dtype=torch.float64)
    votes = torch.nn.functional.one_hot(probs.argmax(-1), num_classes).sum(0).double()
    return 1 - (votes * (votes - 1)).sum(-1) / (num_clients * (num_clients - 1))
