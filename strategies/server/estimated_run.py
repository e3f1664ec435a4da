"""What a run would take, told before anything of it is run: who takes part, seconds, bytes."""

from collections import Counter
from functools import partial
from typing import Any

import numpy as np

from clients.models.factory import build
from clients.population.clients import STUDENT, SimulatedClients
from strategies.argument_injection import wants
from strategies.server.estimated_work import estimated_work_s

FLOAT_BYTES = 4


def estimate(strategy: Any, clients: SimulatedClients, rounds: int) -> str:
    """Tell what a run would take.

    Args:
        strategy: With some of its arguments bound.
        clients: All of the federation's.
        rounds: R.

    Returns:
        Lines: clients and their examples, parameters of each network, seconds of one core for what
        clients compute, and bytes of what may be sent, before any codec.
    """
    splits, sizes = clients.splits, [len(own) for own in clients.partitions]
    kinds = Counter(clients.architectures)
    who = ", ".join(f"{number} {name}" for name, number in sorted(kinds.items()))
    lines = [f"{len(sizes)} clients ({who}), {min(sizes)} to {max(sizes)} examples each"]
    parameters = {name: _parameters(clients, name) for name in (*sorted(kinds), STUDENT)}
    told = ", ".join(f"{name} {number:,}" for name, number in parameters.items())
    lines.append(f"parameters: {told}")
    seconds = estimated_work_s(strategy, clients, range(1, rounds + 1))
    lines.append(
        f"seconds: about {seconds:,.2g} of one core for what clients compute in {rounds} "
        f"round{'s' * (rounds > 1)}; what the student learns is not counted"
    )
    cohort = max(1, round(len(sizes) * _share(strategy)))
    if wants(strategy, "proxy"):
        each = FLOAT_BYTES * len(splits.proxy) * int(np.prod(splits.private.task.output_shape))
        whose, all_of_them = "answers to the proxy set, up", each * cohort
    else:
        mean = sum(parameters[name] for name in clients.architectures) / len(sizes)
        whose, all_of_them = "parameters, down and up", round(2 * FLOAT_BYTES * mean * cohort)
    lines.append(
        f"bytes: about {all_of_them:,} a round of {cohort} clients, and {all_of_them * rounds:,} "
        f"in all, if they send {whose}, as float32"
    )
    return "\n".join(lines)


def _parameters(clients: SimulatedClients, name: str) -> int:
    """Count the numbers in a network of an architecture, buffers too."""
    model = clients.student if name == STUDENT else clients.models[name]
    network = build(model, clients.splits.private.task, np.random.default_rng(0))
    return sum(tensor.numel() for tensor in network.state_dict().values())


def _share(strategy: Any) -> float:
    """Return which share of the clients a round asks."""
    bound = strategy.keywords if isinstance(strategy, partial) else vars(strategy)
    share = bound.get("fraction") or bound.get("fraction_train")
    return float(share) if isinstance(share, int | float) else 1.0
