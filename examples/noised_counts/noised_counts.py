"""Trust by class: a teacher is believed a class as far as it has seen it, and says so with noise.

A codec of one's own on a field that is shipped, `class_counts`, and a scorer that reads it: weights
are n_k(c) of the classes c that client k says, with the counts n_k sent under Laplace noise. The
rule is ours, an example. Counts are cut at what the client says that it has in all; a cap on
weights, `strategy.ensemble.weight_cap`, is another bound.

    python run.py --config-dir examples/noised_counts strategy=noised_counts
"""

import torch


class Laplace:
    """The codec that adds Laplace noise of scale 1 / epsilon to each number.

    One example more or less changes one count by 1, so that the counts sent are epsilon-
    differentially private. They are sent once in each round, and the epsilons add up; beside them a
    reply says how many examples there are in all, and logits, without any noise.
    """

    def __init__(self, epsilon):
        if not 0 < epsilon < float("inf"):
            raise ValueError(f"epsilon={epsilon}: expected > 0 and finite")
        self.epsilon = epsilon

    def encode(self, arrays, *, rng):
        """Add noise of the client's own stream of this round and message."""

        def noised(array):
            return (array + rng.laplace(scale=1 / self.epsilon, size=array.shape)).astype("float32")

        return {name: noised(array) for name, array in arrays.items()}

    def decode(self, arrays):
        """Take what came for counts."""
        return {name: array.clip(0) for name, array in arrays.items()}


def by_class(answers, *, smoothing):
    """Score a teacher by the expected count of the class that it says, plus smoothing [K, N]."""
    counts = torch.minimum(answers["class_counts"], answers.num_examples[:, None])  # [K, C]
    return (answers.logits.softmax(-1) * counts[:, None]).sum(-1) + smoothing
