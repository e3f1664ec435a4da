"""Conformance of probes that look at a round: what one of a user's own is held to."""

from copy import deepcopy
from typing import Any

import torch

from clients.messages.answers import Answers
from clients.messages.round_views import RoundView
from clients.points import Call, Point
from sim.analysis.probes.findings import Findings


def _view(server_round: int = 1, clients: int = 3, examples: int = 8, answered: bool = True) -> Any:
    """Make up a round of four classes; or one that averages parameters, where nobody answers."""
    examples = examples if answered else 0
    rng = torch.Generator().manual_seed(server_round)
    logits = torch.randn(clients, examples, 4, generator=rng)
    teachers = Answers(
        tuple(range(10, 10 + clients)),
        logits,
        torch.ones(clients, examples, dtype=torch.bool),
        None,
        torch.arange(1.0, 1 + clients),
    )
    student = torch.randn(2, examples, 4, generator=rng) if answered else (None, None)
    weights = torch.full((clients, examples), 1 / clients)
    what = server_round, tuple(range(examples)), teachers, weights, logits.softmax(-1).mean(0)
    labels = torch.arange(examples) % 4 if answered else None
    return RoundView(*what, [1.0, 0.5], student[0], student[1], labels)


def _finds(probe: Any) -> str | None:
    """Gives values by name, numbers or one for each client, and reads only."""
    for view in (_view(), _view(2), _view(clients=1, examples=1)):
        found = Findings()
        found.ask({"probe": deepcopy(probe)}, view)
        if not (found.numbers or found.clients or found.figures):
            return "finds nothing"
    return None


def _bears_averaging(probe: Any) -> str | None:
    """Bears a round in which nobody answers, as where parameters are averaged."""
    Findings().ask({"probe": deepcopy(probe)}, _view(answered=False))
    return None


def _finds_again(probe: Any) -> str | None:
    """Finds the same again in the same rounds."""
    told = []
    for _ in range(2):
        own, found = deepcopy(probe), [Findings(), Findings()]
        for server_round, each in enumerate(found, start=1):
            each.ask({"probe": own}, _view(server_round))
        told.append(repr([(each.numbers, each.clients) for each in found]))
    return None if told[0] == told[1] else "finds something else: another generator?"


ROUND_PROBE = Point(
    "round_probe", "probes.NAME", (Call("numbers, ByClient, Table, Curve by name", ("view",)),),
    (_finds, _bears_averaging, _finds_again),
)  # fmt: skip
