"""Shapes: what is none is refused before anybody trains, by name."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from torch import nn

from clients.models import logistic_regression, mlp
from clients.population.rehearsal import rehearse
from clients.population.shape_plans import Shape
from clients.population.widths import first_units, of_largest_norm, share_of_units
from strategies.server.requirements import require_fitting
from tests.federations import distillation, tiny_clients

MLPS: Any = {"architectures": ["mlp"] * 2, "models": {"mlp": partial(mlp, hidden=(8,))}}
PRUNED = Shape(partial(share_of_units, keep=[0.5]), of_largest_norm)


def wants(network: Any, inputs: Any, labels: Any, *, memory: int) -> Any:
    return {}


class Hoarder:
    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, network: Any, inputs: Any, labels: Any) -> Any:
        self.seen += 1


def always(plan: Any) -> Any:
    return lambda network, inputs, labels: plan


def other_outputs(network: Any, plan: Any) -> Any:
    network.classifier = nn.Linear(network.classifier.in_features, 7)
    return network


ONE: Any = {"units": np.array(1)}


@pytest.mark.parametrize(
    ("choose", "apply", "said"),
    [
        (wants, first_units, "choose.memory is not set.*rng, client_id, server_round, note, plan"),
        (always(ONE), partial(first_units, plan=ONE), None),
        (always([1]), first_units, "choose gives list, expected a dict of arrays"),
        (always({"a": "words"}), first_units, "'a' of its plan is of str: expected an array"),
        (always(ONE), lambda network, plan, size: 0, "apply.size is not set"),
        (always(ONE), lambda network, plan: 3, "apply gives int, expected a torch.nn.Module"),
        (always(ONE), other_outputs, r"answers an input by \(1, 7\), expected \(1, 4\)"),
        (always(ONE), lambda network, plan: plan["b"], "apply: KeyError: 'b'"),
        (always(ONE), first_units, "'units' of the plan is no hidden layer.*'mlp'"),
        (Hoarder(), first_units, "choose: ValueError: choose: Hoarder changed its 'seen'"),
    ],
    ids=["needy", "bound", "list", "words", "needy-apply", "number", "outputs", "error", "unknown",
         "hoarder"],
)  # fmt: skip
def test_what_is_no_shape_is_refused_before_anybody_trains(
    choose: Any, apply: Any, said: str | None
) -> None:
    clients = tiny_clients(2, **MLPS, shape=Shape(choose, apply))
    if said is None:  # its plan is bound, and given again by position
        said = "apply: TypeError"
    with pytest.raises(ValueError, match=r"clients\.shape\..*" + said):
        rehearse(clients)


def test_strategies_that_go_by_parameters_are_refused_by_name() -> None:
    clients = tiny_clients(2, architectures=["linear"] * 2, shape=PRUNED,
                           models={"linear": logistic_regression})  # fmt: skip
    about: Any = {"student_workers": 1, "topology": False, "availability": {}}
    require_fitting(distillation(clients), clients, **about)
    with pytest.raises(ValueError, match=r"clients\.shape: FedAvg goes by clients' parameters"):
        require_fitting(FedAvg(), clients, **about)
    with pytest.raises(ValueError, match=r"clients\.shape: not with clients\.messenger"):
        tiny_clients(2, shape=PRUNED, messenger=object())
