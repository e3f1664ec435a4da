"""How long clients will compute, estimated from what is bound before anything is run."""

from functools import partial
from typing import Any

from clients.handlers.compute_cost import forward
from clients.population.clients import SimulatedClients
from clients.training.loop import PASSES, local_epochs, local_steps
from strategies.argument_injection import wants

MULTIPLICATIONS_PER_S = 1e10
"""Of one core, in convolutions: 8 to 22 were measured of the small networks here."""
STEP_S = 3e-4
"""What a training step costs beside its arithmetic, on a CPU."""


def estimated_work_s(strategy: Any, clients: SimulatedClients, rounds: int) -> float:
    """Estimate how long one core computes what clients, and peers, do in all rounds.

    Each client of a cohort trains and answers the proxy and the test set; peers train on the proxy
    set too. It is to tell a second from a minute, not more.

    Args:
        strategy: Complete, or with some of its arguments bound.
        clients: All of the federation's.
        rounds: R.

    Returns:
        Seconds.
    """
    bound = strategy.keywords if isinstance(strategy, partial) else {}
    share = bound.get("fraction", bound.get("fraction_train", 1.0))
    proxy, test = len(clients.splits.proxy), len(clients.splits.test)
    together = wants(strategy, "train_peers") or wants(strategy, "mixing")
    on_proxy = PASSES * _epochs(strategy) * proxy if together else 0
    train = clients.local_training
    total = 0.0
    for client_id, own in enumerate(clients.partitions):
        passes = PASSES * (local_epochs(train) or 1) * len(own) + on_proxy + proxy + test
        total += passes * forward(clients, client_id) / MULTIPLICATIONS_PER_S
        try:
            total += STEP_S * local_steps(train, len(own))
        except ValueError:  # another's trainer does not tell
            total += STEP_S * len(own)
    return rounds * float(share) * total


def _epochs(strategy: Any) -> int:
    """Add up the epochs of all trainers that are bound in a strategy."""
    if not isinstance(strategy, partial):
        return 0
    own = strategy.keywords.get("epochs", 0)
    epochs = own if isinstance(own, int) else 0
    return epochs + sum(map(_epochs, strategy.keywords.values()))
