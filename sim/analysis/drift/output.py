"""Drift in output space: how far clients are from each other in what they answer.

Parameters of unlike networks cannot be compared; answers on the same inputs can. Every function but
the two matrices is linear in the number of clients.
"""

import math

import torch
from torch import Tensor


def entropy(probs: Tensor, dim: int) -> Tensor:
    """Shannon entropy of probs [..., C, ...] along `dim`, in nats; 0 log 0 = 0."""
    return -torch.xlogy(probs, probs).sum(dim)


def jensen_shannon(probs: Tensor, answered: Tensor | None = None) -> Tensor:
    """Generalised Jensen-Shannon divergence of K distributions: H(mean p_k) - mean H(p_k).

    Args:
        probs: Answers [K, N, C], rows on the simplex.
        answered: Who answered what [K, N] bool: means are over those who did; None = all.

    Returns:
        Divergence per example [N] in [0, log K] nats; 0 iff all agree, NaN where nobody answered.

    Reference:
        Lin, "Divergence Measures Based on the Shannon Entropy", 1991, eq. 5.1.
    """
    shares = _shares(probs, answered)
    mean = torch.einsum("kn,knc->nc", shares, probs)
    # Rounding may leave -1e-16 where all agree.
    return (entropy(mean, -1) - (shares * entropy(probs, -1)).sum(0)).clamp_min(0.0)


def kl_from_ensemble(log_probs: Tensor, answered: Tensor | None = None) -> Tensor:
    """KL(p_k || mean p): each client's part of the generalised Jensen-Shannon divergence.

    Args:
        log_probs: Answers [K, N, C] as finite logarithms of probabilities.
        answered: As in `jensen_shannon`.

    Returns:
        Divergence [K, N] in [0, log K] nats, NaN where the client did not answer; its mean over
        those who did is `jensen_shannon`.

    Reference:
        Lin 1991, as in `jensen_shannon`.
    """
    probs, log_mean = log_probs.exp(), _log_mean(log_probs, answered)
    parts = (probs * log_probs).sum(-1) - torch.einsum("knc,nc->kn", probs, log_mean)
    return _where(answered, parts)


def kl_to_ensemble(log_probs: Tensor, answered: Tensor | None = None) -> Tensor:
    """KL(mean p || p_k): what a client gives no chance although the others do.

    Args:
        log_probs: Answers [K, N, C] as finite logarithms of probabilities.
        answered: As in `jensen_shannon`.

    Returns:
        Divergence [K, N] in nats, >= 0 and without bound; 0 where the client says what all say
        together, NaN where it did not answer.

    Reference:
        Kullback and Leibler, "On Information and Sufficiency", 1951.
    """
    log_mean = _log_mean(log_probs, answered)
    mean = log_mean.exp()
    parts = (mean * log_mean).sum(-1) - torch.einsum("knc,nc->kn", log_probs, mean)
    return _where(answered, parts)


def squared_distances(outputs: Tensor, answered: Tensor | None = None) -> Tensor:
    """Squared distance of each client's numbers from the mean of those who answered.

    Args:
        outputs: Answers [K, N, D], finite numbers.
        answered: As in `jensen_shannon`.

    Returns:
        [K, N], >= 0, mean over the D numbers; NaN where the client did not answer.
    """
    mean = torch.einsum("kn,knd->nd", _shares(outputs, answered), outputs)
    return _where(answered, (outputs - mean).square().mean(-1))


def disagreement(probs: Tensor, answered: Tensor | None = None) -> Tensor:
    """Share of pairs of clients whose most likely classes differ.

    Counted per class instead of per pair: with n_c votes for class c, sum n_c (n_c - 1) of the
    K (K - 1) ordered pairs agree.

    Args:
        probs: Answers or logits [K, N, C], K >= 2; for K = 1 there is no pair, and none differs.
        answered: As in `jensen_shannon`; pairs are of clients that did.

    Returns:
        Disagreement per example [N] in [0, 1], NaN where nobody answered.

    Reference:
        Kuncheva and Whitaker, "Measures of Diversity in Classifier Ensembles", 2003, sec. 2.1.
    """
    return disagreement_by_client(probs, answered).nanmean(0)


def disagreement_by_client(probs: Tensor, answered: Tensor | None = None) -> Tensor:
    """Share of the other clients whose most likely class is not this client's.

    Args:
        probs: Answers or logits [K, N, C].
        answered: As in `jensen_shannon`; others are those that did.

    Returns:
        [K, N] in [0, 1]; 0 for a client without others, NaN where it did not answer.

    Reference:
        As for `disagreement`, which is its mean over K.
    """
    there = _all_if_none(answered, probs)
    votes = probs.argmax(-1)  # [K, N]
    hot = torch.nn.functional.one_hot(votes, probs.shape[-1]) * there[..., None]
    same = hot.sum(0).double().gather(1, votes.T).T - 1  # of the others
    others = (there.sum(0) - 1).clamp_min(1)  # 0 of 1 differ where there are none
    return _where(answered, torch.where(there.sum(0) > 1, 1 - same / others, 0.0))


def disagreement_matrix(probs: Tensor, answered: Tensor | None = None) -> Tensor:
    """Share of examples on which the most likely classes of two clients differ.

    Args:
        probs: Answers or logits [K, N, C], N >= 1.
        answered: As in `jensen_shannon`; examples are those that both answered.

    Returns:
        [K, K] in [0, 1], symmetric, 0 on the diagonal; NaN where there is no such example.

    Reference:
        As for `disagreement`.
    """
    there = _all_if_none(answered, probs).double()
    votes = torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]) * there[..., None]
    return 1 - votes.flatten(1) @ votes.flatten(1).T / (there @ there.T)


def jensen_shannon_matrix(probs: Tensor, answered: Tensor | None = None) -> Tensor:
    """Jensen-Shannon divergence of each two clients, mean over examples.

    Args:
        probs: Answers [K, N, C], rows on the simplex, N >= 1.
        answered: As in `jensen_shannon`; examples are those that both answered.

    Returns:
        [K, K] in [0, log 2] nats, symmetric, 0 on the diagonal and wherever two clients agree; NaN
        where there is no such example.

    Reference:
        Lin 1991, eq. 4.1.
    """
    there, own = _all_if_none(answered, probs), entropy(probs, -1)  # [K, N]
    matrix = probs.new_zeros(len(probs), len(probs))
    for k, row in enumerate(probs):  # a row at a time: [K, N, C] in memory and not K times it
        apart = entropy((probs[k:] + row) / 2, -1) - (own[k:] + own[k]) / 2
        both = there[k:] & there[k]
        matrix[k, k:] = (apart * both).sum(1) / both.sum(1)
    whole = matrix.triu() + matrix.triu(1).T
    return whole.clamp_min(0)


def _all_if_none(answered: Tensor | None, probs: Tensor) -> Tensor:
    return torch.ones(probs.shape[:2], dtype=torch.bool) if answered is None else answered


def _shares(probs: Tensor, answered: Tensor | None) -> Tensor:
    """Return what each counts in a mean over those who answered [K, N]; NaN where nobody did."""
    there = _all_if_none(answered, probs).to(probs.dtype)
    return there / there.sum(0)


def _log_mean(log_probs: Tensor, answered: Tensor | None) -> Tensor:
    # Not the logarithm of a mean of exponentials: where all underflow it would be minus infinity.
    if answered is None:
        return log_probs.logsumexp(0) - math.log(len(log_probs))
    some = log_probs.masked_fill(~answered[..., None], -math.inf)
    return some.logsumexp(0) - answered.sum(0).log()[:, None]


def _where(answered: Tensor | None, values: Tensor) -> Tensor:
    return values if answered is None else values.masked_fill(~answered, math.nan)
