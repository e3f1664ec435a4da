"""Trust by class: a teacher is believed a class as far as it has seen it, and says so with noise.

A payload of one's own, its codec, and a scorer that reads it: weights are n_k(c) of the classes c
that client k says, with the counts n_k sent under Laplace noise. The rule is ours, an example.

    python run.py --config-dir examples/noised_counts strategy=noised_counts
"""

import numpy as np
import torch

from clients.messages.field import Field


class Laplace:
    """The codec that adds Laplace noise of scale 1 / epsilon to each number.

    One example more or less changes one count by 1, so that a message is epsilon-differentially
    private; a run sends two in each round, and their epsilons add up.
    """

    def __init__(self, epsilon):
        if not 0 < epsilon < float("inf"):
            raise ValueError(f"epsilon={epsilon}: expected > 0 and finite")
        self.epsilon = epsilon

    def encode(self, array, rng):
        """Add noise of the client's own stream of this round and message."""
        noise = rng.laplace(scale=1 / self.epsilon, size=array.shape)
        return {"": (array + noise).astype(np.float32)}

    def decode(self, parts, rows=...):
        """Take what came for counts."""
        return torch.from_numpy(parts[""].copy())[rows].clamp_min(0)


def counts(epsilon):
    """Make what clients are asked for: how many examples of each class they have [C]."""
    return Field(own_counts, ("C",), codec=Laplace(epsilon))


def own_counts(asked):
    """Count the labels that the client learns."""
    return np.bincount(asked.labels(), minlength=asked.logits.shape[1])


def by_class(answers, *, smoothing):
    """Score a teacher by the expected count of the class that it says, plus smoothing [K, N]."""
    probs = answers.logits.softmax(-1)
    return (probs * answers["counts"][:, None]).sum(-1) + smoothing
