"""How long clients will compute, estimated from what is bound before anything is run."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from clients.handlers.compute_cost import forward
from clients.population.clients import STUDENT, SimulatedClients
from clients.training.batches import examples_learned, local_steps
from clients.training.loop import PASSES
from strategies.argument_injection import wants

MULTIPLICATIONS_PER_S = 1e10
"""Of one core, in convolutions: 8 to 22 were measured of the small networks here."""
STEP_S = 3e-4
"""What a training step costs beside its arithmetic, on a CPU."""


def estimated_work_s(strategy: Any, clients: SimulatedClients, rounds: Sequence[int]) -> float:
    """Estimate how long one core computes what clients, and peers, do in some rounds.

    Each client of a cohort trains; where answers teach, it answers the proxy set, and what it is
    measured on; peers train on the proxy set too. It is to tell a second from a minute, not more.

    Args:
        strategy: Complete, or with some of its arguments bound.
        clients: All of the federation's.
        rounds: Those to come, of 1..R.

    Returns:
        Seconds.
    """
    bound = strategy.keywords if isinstance(strategy, partial) else vars(strategy)
    share = bound.get("fraction") or bound.get("fraction_train")
    proxy = len(clients.splits.proxy) if wants(strategy, "proxy") else 0
    together = wants(strategy, "train_peers") or wants(strategy, "mixing")
    passes = len(rounds) * proxy * (1 + PASSES * _epochs(strategy) * together)
    if proxy or together:
        passes += sum(len(clients.splits.tested(server_round)) for server_round in rounds)
    trained = len(rounds) * bool(bound.get("local_training", True))
    works = [_seconds(clients, k, passes, trained) for k in range(len(clients.partitions))]
    return sum(works) * (float(share) if isinstance(share, int | float) else 1.0)


def student_work_s(strategy: Any, clients: SimulatedClients, rounds: int) -> float:
    """Estimate how long one core teaches the student in R rounds; as rough as that of clients.

    Args:
        strategy: With some of its arguments bound; or a sequence of such.
        clients: All of the federation's.
        rounds: R.

    Returns:
        Seconds; 0 where no student is distilled into, or its trainer does not tell its epochs.
    """
    bound = strategy.keywords if isinstance(strategy, partial) else {}
    stages = [v for v in bound.values() if hasattr(getattr(v, "func", None), "configure_train")]
    work_s: float = sum(student_work_s(stage, clients, rounds) for stage in stages)
    distil, examples = bound.get("distil"), max(1, len(clients.splits.proxy))
    if distil is None or not (learned := examples_learned(distil, examples)):
        return work_s
    passes = PASSES * learned * clients.forward[STUDENT] / MULTIPLICATIONS_PER_S
    return work_s + rounds * (passes + local_steps(distil, examples) * STEP_S)


def _seconds(clients: SimulatedClients, client_id: int, passes: int, trained: int) -> float:
    """Estimate a client that trains so many times and answers so many inputs beside it."""
    train, own = clients.local_training, len(clients.partitions[client_id])
    try:
        steps = local_steps(train, own)
    except ValueError:  # another's trainer does not tell
        steps = own
    passes += trained * PASSES * (examples_learned(train, own) or own)
    return passes * forward(clients, client_id) / MULTIPLICATIONS_PER_S + trained * steps * STEP_S


def _epochs(strategy: Any) -> int:
    """Add up the epochs of all trainers that are bound in a strategy."""
    if not isinstance(strategy, partial):
        return 0
    own = strategy.keywords.get("epochs", 0)
    epochs = own if isinstance(own, int) else 0
    return epochs + sum(map(_epochs, strategy.keywords.values()))
