"""Drift in output space: how far clients are from each other in what they answer.

Parameters of unlike networks cannot be compared; answers on the same inputs can. Every function but
the two matrices is linear in the number of clients.
"""

import math

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
    # Rounding may leave -1e-16 where all agree.
    return (entropy(probs.mean(0), -1) - entropy(probs, -1).mean(0)).clamp_min(0.0)


def kl_from_ensemble(log_probs: Tensor) -> Tensor:
    """KL(p_k || mean p): each client's part of the generalised Jensen-Shannon divergence.

    Args:
        log_probs: Answers [K, N, C] as finite logarithms of probabilities.

    Returns:
        Divergence [K, N] in [0, log K] nats; its mean over K is `jensen_shannon`.

    Reference:
        Lin 1991, as in `jensen_shannon`.
    """
    probs = log_probs.exp()
    return (probs * log_probs).sum(-1) - torch.einsum("knc,nc->kn", probs, _log_mean(log_probs))


def kl_to_ensemble(log_probs: Tensor) -> Tensor:
    """KL(mean p || p_k): what a client gives no chance although the others do.

    Args:
        log_probs: Answers [K, N, C] as finite logarithms of probabilities.

    Returns:
        Divergence [K, N] in nats, >= 0 and without bound; 0 where the client says what all say
        together.

    Reference:
        Kullback and Leibler, "On Information and Sufficiency", 1951.
    """
    log_mean = _log_mean(log_probs)
    mean = log_mean.exp()
    return (mean * log_mean).sum(-1) - torch.einsum("knc,nc->kn", log_probs, mean)


def _log_mean(log_probs: Tensor) -> Tensor:
    # Not the logarithm of a mean of exponentials: where all underflow it would be minus infinity.
    return log_probs.logsumexp(0) - math.log(len(log_probs))


def disagreement(probs: Tensor) -> Tensor:
    """Share of pairs of clients whose most likely classes differ.

    Counted per class instead of per pair: with n_c votes for class c, sum n_c (n_c - 1) of the
    K (K - 1) ordered pairs agree.

    Args:
        probs: Answers or logits [K, N, C], K >= 2; for K = 1 there is no pair, and none differs.

    Returns:
        Disagreement per example [N] in [0, 1].

    Reference:
        Kuncheva and Whitaker, "Measures of Diversity in Classifier Ensembles", 2003, sec. 2.1.
    """
    return disagreement_by_client(probs).mean(0)


def disagreement_by_client(probs: Tensor) -> Tensor:
    """Share of the other clients whose most likely class is not this client's.

    Args:
        probs: Answers or logits [K, N, C].

    Returns:
        [K, N] in [0, 1]; 0 for a client without others.

    Reference:
        As for `disagreement`, which is its mean over K.
    """
    num_clients, _, num_classes = probs.shape
    votes = probs.argmax(-1)  # [K, N]
    counts = torch.nn.functional.one_hot(votes, num_classes).sum(0).double()  # [N, C]
    same = counts.gather(1, votes.T).T - 1  # of the others
    return 1 - same / (num_clients - 1) if num_clients > 1 else torch.zeros_like(same)


def disagreement_matrix(probs: Tensor) -> Tensor:
    """Share of examples on which the most likely classes of two clients differ.

    Args:
        probs: Answers or logits [K, N, C], N >= 1.

    Returns:
        [K, K] in [0, 1], symmetric, 0 on the diagonal.

    Reference:
        As for `disagreement`.
    """
    votes = torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]).double().flatten(1)
    return 1 - votes @ votes.T / probs.shape[1]


def jensen_shannon_matrix(probs: Tensor) -> Tensor:
    """Jensen-Shannon divergence of each two clients, mean over examples.

    Args:
        probs: Answers [K, N, C], rows on the simplex, N >= 1.

    Returns:
        [K, K] in [0, log 2] nats, symmetric, 0 on the diagonal and wherever two clients agree.

    Reference:
        Lin 1991, eq. 4.1.
    """
    own = entropy(probs, -1).mean(1)  # [K]
    matrix = probs.new_zeros(len(probs), len(probs))
    for k, row in enumerate(probs[:-1]):  # a row at a time: [K, N, C] in memory and not K times it
        both = entropy((probs[k + 1 :] + row) / 2, -1).mean(1)
        matrix[k, k + 1 :] = (both - (own[k] + own[k + 1 :]) / 2).clamp_min(0)
    return matrix + matrix.T
