"""The cohort: who takes part in a round."""

from collections.abc import Iterable

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from clients.seeding import Purpose, generator


def to_cohort(
    grid: Grid, kind: str, content: RecordDict, *, fraction: float, seed: int, server_round: int
) -> list[Message]:
    """Write a round's cohort one message each, all of one content.

    Args:
        grid: Knows the clients.
        kind: Type of message: a handler's `kind`, or Flower's "train" or "evaluate".
        content: Of all; sent as one object, so that it is stored once.
        fraction: Share of the clients in (0, 1], at least one.
        seed: The run's; with equal shares, all phases of a round go to the same clients.
        server_round: 1..R.

    Returns:
        The messages, by node id.

    Raises:
        ValueError: As `draw`.
    """
    cohort = cohort_of(grid, fraction=fraction, seed=seed, server_round=server_round)
    return [Message(content, node_id, kind) for node_id in cohort]


def cohort_of(grid: Grid, *, fraction: float, seed: int, server_round: int) -> list[int]:
    """Draw a round's cohort by the one stream that there is for it.

    Args:
        grid: Knows the clients.
        fraction: Share of them in (0, 1], at least one.
        seed: The run's.
        server_round: 1..R.

    Returns:
        Node ids, ascending.

    Raises:
        ValueError: As `draw`.
    """
    return draw(grid.get_node_ids(), fraction, generator(seed, Purpose.COHORT, server_round))


def draw(node_ids: Iterable[int], fraction: float, rng: np.random.Generator) -> list[int]:
    """Draw a round's cohort: a share of the clients, each as likely as any other.

    A range, as our grid gives it, is never listed: 100 clients of a million cost what 100 of a
    thousand do. Other ids are sorted first, so that the order in which a grid lists them does not
    matter.

    Args:
        node_ids: Different ids, at least one; of any size, Flower's have 64 bits.
        fraction: Share of them in (0, 1]; the size is rounded, and at least one.
        rng: Draws the cohort.

    Returns:
        The ids drawn, ascending.

    Raises:
        ValueError: There are no ids, or `fraction` is out of range.
    """
    ascending = isinstance(node_ids, range) and node_ids.step > 0
    ids = node_ids if isinstance(node_ids, range) and ascending else sorted(node_ids)
    if not ids or not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction} of {len(ids)} clients: expected in (0, 1] of >= 1")
    size = max(1, round(fraction * len(ids)))
    # Positions are drawn, not ids: numpy would round Flower's 64-bit ids to float64.
    positions = np.sort(rng.choice(len(ids), size, replace=False))
    return [ids[position] for position in positions.tolist()]
