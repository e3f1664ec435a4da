"""Runs of distillation strategies that ask for fields, and a field."""

from typing import Any

from torch import Tensor

from clients.messages.field_source import Asked
from clients.messages.round_views import RoundView
from tests.federations import Run, distillation, open_pool, run_ours, simulated
from tests.federations import tiny_clients as clients_of


def said_energy(asked: Asked) -> Tensor:
    return asked.logits.logsumexp(-1).exp()


def run(strategy: Any, clients: Any, kind: str = "inline", **options: Any) -> Run:
    with open_pool(kind, simulated(clients, strategy)) as pool:
        return run_ours(pool, clients, strategy, **options)


def round_of(**changes: Any) -> tuple[Run, RoundView]:
    views: list[RoundView] = []
    clients = clients_of()
    run_ = run(distillation(clients, report=views.append, **changes), clients)
    assert not [e for report in run_.reports for e in report.exchanges if e.failure]
    return run_, views[-1]
