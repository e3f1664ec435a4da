"""Clients that learn something wrong: faults to be put into a federation on purpose."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Corruption = Callable[[Labels, int, int, int], Labels]
"""(labels [n], number of classes, client id, round 1..R) -> the labels it learns in that round."""


def permuted_labels(
    labels: Labels,
    num_classes: int,
    client_id: int,
    server_round: int,
    *,
    clients: Sequence[int],
    from_round: int = 1,
    shift: int = 1,
) -> Labels:
    """Let some clients take every class for another one: y -> (y + shift) mod C.

    Args:
        labels: True classes [n].
        num_classes: C.
        client_id: Whose they are.
        server_round: 1..R.
        clients: Ids of the clients that do.
        from_round: In which round they begin to.
        shift: How far; a multiple of C changes nothing.

    Returns:
        The classes that the client learns [n].

    Raises:
        ValueError: The labels are no classes.

    Reference:
        The label flipping of Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust
        Federated Learning", 2020, sec. 5.1, with a permutation that leaves no class as it is.
    """
    if client_id not in clients or server_round < from_round:
        return labels
    if labels.dtype.kind == "f":
        raise ValueError("permuted_labels takes classes for others, and these labels are numbers")
    return np.where(labels < 0, labels, (labels + shift) % num_classes)  # below 0: not labelled
