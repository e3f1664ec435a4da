"""What a run would take, told before anything of it is run: who takes part, seconds, bytes."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from clients.models.factory import build
from clients.population.clients import STUDENT, SimulatedClients
from strategies.argument_injection import wants
from strategies.server.averaging import Averaging
from strategies.server.distillation import DistillationStrategy
from strategies.server.ditto import Ditto
from strategies.server.estimated_work import estimated_work_s, student_work_s
from strategies.server.feddyn import FedDyn
from strategies.server.fednova import FedNova
from strategies.server.mutual import MutualStrategy

FLOAT_BYTES, ID_BYTES = 4, 8
FED_BACK = {True: "student", "student": "student", "targets": "targets", "answers": "targets"}
"""What `strategy.feed_back` may be, and what is as large as what is sent then."""

OF_PARAMETERS = (Averaging, Ditto, FedDyn, FedNova)
OF_ANSWERS = (DistillationStrategy, MutualStrategy)
"""Beside Flower's own and peers those whose messages hold one or the other, and nothing else."""


def estimate(strategy: Any, clients: SimulatedClients, rounds: int) -> str:
    """Tell what a run would take.

    Args:
        strategy: With some of its arguments bound.
        clients: All of the federation's.
        rounds: R.

    Returns:
        Lines: clients and their examples, parameters of each network, seconds of one core for what
        clients compute and the student learns, and bytes of what may be sent, before any codec.
    """
    sizes = [len(own) for own in clients.partitions]
    kinds = Counter(clients.architectures)
    who = ", ".join(f"{number} {name}" for name, number in sorted(kinds.items()))
    lines = [f"{len(sizes)} clients ({who}), {min(sizes)} to {max(sizes)} examples each"]
    parameters = {name: _parameters(clients, name) for name in (*sorted(kinds), STUDENT)}
    told = ", ".join(f"{name} {number:,}" for name, number in parameters.items())
    lines.append(f"parameters: {told}")
    seconds = estimated_work_s(strategy, clients, range(1, rounds + 1))
    student_s = student_work_s(strategy, clients, rounds)
    lines.append(
        f"seconds: about {seconds:,.2g} of one core for what clients compute in {rounds} "
        f"round{'s' * (rounds > 1)}, and {student_s:,.2g} for what a student is taught"
    )
    lines.append(_bytes(strategy, clients, rounds, parameters))
    return "\n".join(lines)


def _bytes(
    strategy: Any, clients: SimulatedClients, rounds: int, parameters: Mapping[str, int]
) -> str:
    """Tell what is sent up and down, as far as a strategy's arguments tell."""
    kind = strategy.func if isinstance(strategy, partial) else type(strategy)
    flowers = kind.__module__.startswith("flwr.")
    if not (flowers or wants(strategy, "mixing") or kind in (*OF_PARAMETERS, *OF_ANSWERS)):
        return f"bytes: {kind.__name__} sends messages of its own; docs/methods.md has formulas"
    number, splits = len(clients.architectures), clients.splits
    cohort = max(1, round(number * _share(strategy)))
    mean = sum(parameters[name] for name in clients.architectures) / number
    up = down = round(FLOAT_BYTES * mean)
    fed, what = 0, "parameters"
    if wants(strategy, "proxy"):
        bound = strategy.keywords if isinstance(strategy, partial) else {}
        up = FLOAT_BYTES * len(splits.proxy) * int(np.prod(splits.private.task.output_shape))
        down, back = ID_BYTES * len(splits.proxy), FED_BACK.get(bound.get("feed_back", False), "")
        fed = {"": 0, "student": FLOAT_BYTES * parameters[STUDENT], "targets": up}[back]
        what = "answers to the proxy set" + (back and f" and get {back} from round 2 on")
    told = f"about {up * cohort:,} a round of {cohort} peers to one neighbour each"
    if not wants(strategy, "mixing"):
        total = cohort * ((up + down) * rounds + fed * (rounds - 1))
        later = fed * (rounds > 1)
        told = f"about {up * cohort:,} up and {(down + later) * cohort:,} down a round of {cohort} "
        told += f"clients, and {total:,} in all"
    return f"bytes: {told}, if they send {what}, as float32"


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
