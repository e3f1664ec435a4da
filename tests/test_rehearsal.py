"""Networks that cannot work are refused before anybody trains."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from clients.corruption import permuted_labels
from clients.data import blobs
from clients.models import cnn, logistic_regression, mlp
from clients.rehearsal import rehearse, rehearse_networks, require_like
from tests.federations import tiny_clients

PRIVATE, _ = blobs(num_examples=40, num_classes=4)


def seven() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 7))


def wrong_size() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(99, 4))


def not_a_number() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    nn.init.constant_(network[1].weight, float("nan"))
    return network


def raising(num_classes: int) -> nn.Module:
    raise KeyError("width")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (seven, r"architecture 'mine' answers two examples .* \(2, 7\): expected \(2, 4\)"),
        (wrong_size, r"architecture 'mine' cannot answer .* \(1, 4, 4\): RuntimeError"),
        (not_a_number, r"architecture 'mine' .* finite"),
        (raising, r"architecture 'mine' cannot answer .* KeyError: 'width'"),
    ],
)
def test_a_network_that_cannot_answer_is_named(
    model: Callable[..., nn.Module], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rehearse_networks({"good": mlp, "mine": model}, PRIVATE)


def test_networks_that_can_are_let_through_and_leave_the_generator_alone() -> None:
    before = torch.get_rng_state()
    rehearse_networks({"a": mlp, "b": logistic_regression, "c": cnn}, PRIVATE)
    assert torch.equal(torch.get_rng_state(), before)


def test_averaging_needs_the_students_architecture() -> None:
    student = partial(mlp, hidden=(8,))
    require_like(student, {"same": partial(mlp, hidden=(8,))}, PRIVATE, "FedAvg")
    with pytest.raises(ValueError, match=r"FedAvg averages .* clients=same\. Architecture 'wide'"):
        require_like(student, {"wide": partial(mlp, hidden=(9,))}, PRIVATE, "FedAvg")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"clients": 3}, r"clients\.corruption\.clients=3: expected a list of ids, as in \[3\]"),
        ({"clients": []}, r"clients\.corruption\.clients=\[\]"),
        ({"clients": [0, 99]}, r"there is no client 99, expected 0\.\.4"),
        ({"clients": ["a"]}, "there is no client a"),
        ({"clients": [0], "shift": 4}, r"clients\.corruption\.shift=4: leaves 4 classes"),
    ],
)
def test_a_fault_that_would_befall_nobody_is_refused(fault: Any, message: str) -> None:
    clients = tiny_clients(corrupt=partial(permuted_labels, **fault))
    with pytest.raises(ValueError, match=message):
        rehearse(clients)
    rehearse(tiny_clients(corrupt=partial(permuted_labels, clients=[4], shift=-1)))
