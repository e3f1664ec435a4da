"""The answers of a cohort: named arrays that clients say about shared inputs, [K, N, ...]."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a cohort, ordered by client id.

    Attributes:
        client_ids: Who answered, ascending (K of them).
        logits: [K, N, C] float32.
        mask: Who answered for what [K, N] bool.
        own_probs: Discriminators' probabilities [K, N] in [0, 1], or None if not asked for.
        num_examples: Size of each private set [K] float32, > 0.
    """

    client_ids: tuple[int, ...]
    logits: Tensor
    mask: Tensor
    own_probs: Tensor | None
    num_examples: Tensor
