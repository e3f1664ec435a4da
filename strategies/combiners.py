"""Combiners: the teachers' answers and their weights become targets, soft labels [N, C].

A combiner is a function `(logits [K, N, C], weights [K, N], temperature) -> targets [N, C]`. Sums
over teachers run in the order of client ids, one teacher at a time: the same bits for any number
of threads, and no [K, N, C] copy.
"""

import torch
from torch import Tensor


def mean_of_probs(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Weighted mean of softmax(logits / T).

    Args:
        logits: Answers [K, N, C].
        weights: Trust [K, N], summing to 1 over K.
        temperature: T > 0.

    Returns:
        Rows on the simplex [N, C]; zero where nobody covers the example.
    """
    total = torch.zeros_like(logits[0])
    for answers, weight in zip(logits, weights, strict=True):
        total += weight[:, None] * (answers / temperature).softmax(-1)
    return total


def mean_of_logits(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Softmax of the weighted mean of logits / T: FedDF's and FedAUX's ensemble.

    Args:
        logits: Answers [K, N, C].
        weights: Trust [K, N], summing to 1 over K.
        temperature: T > 0.

    Returns:
        Rows on the simplex [N, C]; uniform where nobody covers the example.
    """
    total = torch.zeros_like(logits[0])
    for answers, weight in zip(logits, weights, strict=True):
        total += weight[:, None] * answers
    return (total / temperature).softmax(-1)
