"""Networks that cannot work are refused before anybody trains."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from clients.data import blobs
from clients.models import cnn, logistic_regression, mlp
from clients.population.label_conditions import permuted_labels
from clients.population.rehearsal import rehearse, rehearse_learning, rehearse_network, require_like
from clients.population.views import low_resolution, occluded
from clients.training.loop import train
from clients.training.losses import cross_entropy
from clients.training.optimizer_steps import Optimizer, require_steps
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.ensemble import EnsembleRule
from strategies.aggregation.scorers import uniform
from strategies.teaching.rehearsal import rehearse_student
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


class Both(nn.Module):
    """Gives features beside logits, always or as it trains only, as some of torchvision's do."""

    def __init__(self, always: bool = True) -> None:
        super().__init__()
        self.linear, self.always = nn.Linear(16, 4), always

    def forward(self, images: torch.Tensor) -> Any:
        features = images.flatten(1)
        logits = self.linear(features)
        return (logits, features) if self.always or self.training else logits


def of_a_batch() -> nn.Module:
    norm = nn.BatchNorm1d(16, track_running_stats=False)
    return nn.Sequential(nn.Flatten(), norm, nn.Linear(16, 4))


def raising(num_classes: int) -> nn.Module:
    raise KeyError("width")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (seven, r"architecture 'mine' answers two examples .* \(2, 7\): expected \(2, 4\)"),
        (wrong_size, r"architecture 'mine' cannot answer .* \(1, 4, 4\): RuntimeError"),
        (not_a_number, r"architecture 'mine' .* finite"),
        (raising, r"architecture 'mine' cannot answer .* KeyError: 'width'"),
        (Both, r"architecture 'mine' cannot answer .* gave tuple, expected a single tensor of out"),
        (nn.Flatten, r"architecture 'mine' cannot answer .*: it has no parameters, expected at le"),
    ],
)
def test_a_network_that_cannot_answer_is_named(
    model: Callable[..., nn.Module], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rehearse_network("mine", model, PRIVATE)


class Counted(nn.Linear):
    """Keeps what no array can hold."""

    def get_extra_state(self) -> dict[str, int]:
        return {"seen": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


class Brief(nn.Linear):
    """Computes in bfloat16, which numpy does not know."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.bfloat16())


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (Counted(16, 4), r"'1\._extra_state' of its state is a dict \(of get_extra_state\)"),
        (Brief(16, 4).bfloat16(), r"'1\.weight' of its state is of bfloat16"),
    ],
)
def test_a_network_that_cannot_be_sent_is_named(last: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=f"architecture 'mine': {message}, which cannot be sent"):
        rehearse_network("mine", lambda: nn.Sequential(nn.Flatten(), last), PRIVATE)


SGD = partial(torch.optim.SGD, lr=0.1)
RULE = EnsembleRule(uniform, mean_of_probs)
LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))


def frozen() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).requires_grad_(False)


def learn(network: nn.Module = LINEAR, optimizer: Optimizer = SGD, **numbers: Any) -> None:
    numbers = {"epochs": 7, "batch_size": 32} | numbers
    how = partial(train, optimizer=optimizer, **numbers)
    rehearse_learning(
        how, network, PRIVATE, torch.tensor([0, 3]), cross_entropy, "clients.training: 'mine'"
    )


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"network": frozen()}, "no parameter requires"),
        ({"network": Both(always=False)}, "gave tuple, expected a single tensor of outputs"),
        ({"network": nn.Sequential(LINEAR, nn.BatchNorm1d(4)), "batch_size": 1}, "more than 1 val"),
        ({"optimizer": partial(torch.optim.LBFGS, lr=0.1)}, "TypeError: .* 'closure'"),
        ({"optimizer": partial(torch.optim.Muon, lr=0.1)}, "only supports 2D parameters"),
        ({"optimizer": torch.optim.SparseAdam}, "does not support dense gradients"),
        ({"optimizer": partial(SGD, weight_decay=-1)}, "weight_decay=-1: expected >= 0"),
        ({"autocast": "float16"}, "autocast=float16: expected one of"),
    ],
)
def test_what_no_client_can_learn_with_is_refused(numbers: Any, message: str) -> None:
    expected = f"clients.training: 'mine' cannot learn from two examples: .*{message}"
    with pytest.raises(ValueError, match=expected):
        learn(**numbers)


def test_where_nobody_learns_a_frozen_network_does_and_a_wrong_number_does_not() -> None:
    learn(frozen(), epochs=0)
    rehearse(tiny_clients(models=dict.fromkeys(("linear", "mlp"), frozen)), local_training=False)
    rehearse(tiny_clients(models=dict.fromkeys(("linear", "mlp"), frozen)), device="cuda")
    with pytest.raises(ValueError, match=r"architecture 'linear' cannot learn"):
        rehearse(tiny_clients(models=dict.fromkeys(("linear", "mlp"), frozen)))
    with pytest.raises(ValueError, match="autocast=float16"):
        learn(autocast="float16", epochs=0)


def test_each_network_answers_one_input_alone() -> None:
    """Told before anybody trains: clients are scheduled by what that takes."""
    with pytest.raises(ValueError, match="'linear' cannot answer one input alone: ValueError: Exp"):
        rehearse(tiny_clients(models=dict.fromkeys(("linear", "mlp"), of_a_batch)))


def test_divergence_is_left_to_the_run() -> None:
    before = torch.get_rng_state()
    learn()
    learn(optimizer=partial(SGD, lr=float("inf")))
    assert torch.equal(torch.get_rng_state(), before)


class Counting:
    """An optimiser's maker, or a loss, that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, first: Any, *rest: Any, **numbers: Any) -> Any:
        self.calls += 1
        return cross_entropy(first, *rest) if rest else SGD(first)


def test_a_state_sees_no_try() -> None:
    maker, loss, student = Counting(), Counting(), nn.Sequential(LINEAR)
    state = [p.clone() for p in student.parameters()]
    how = partial(train, epochs=1, batch_size=2, optimizer=maker)
    rehearse_student(how, student, PRIVATE, loss, RULE)
    require_steps(maker, [torch.zeros(2, 2)], "strategy.optimizer")
    assert (maker.calls, loss.calls) == (0, 0)
    assert all(map(torch.equal, student.parameters(), state))


def test_a_student_that_cannot_be_copied_is_left_to_the_run() -> None:
    held = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    held.register_buffer("sum", held[1].weight * 2)  # no leaf: torch does not copy it
    how = partial(train, optimizer=SGD, epochs=1)
    rehearse_student(how, held, PRIVATE, cross_entropy, RULE)


def test_architectures_are_tried_with_the_clients_trainer() -> None:
    how = partial(train, epochs=1, batch_size=4, optimizer=partial(torch.optim.Muon, lr=0.1))
    with pytest.raises(ValueError, match=r"clients\.training: architecture '.*' cannot learn"):
        rehearse(tiny_clients(train=how))


def test_an_optimiser_is_tried_with_the_parameters_it_will_have() -> None:
    require_steps(SGD, [*LINEAR.parameters()], "strategy.optimizer")
    require_steps(partial(torch.optim.Muon, lr=0.1), [LINEAR[1].weight], "strategy.optimizer")
    require_steps(partial(torch.optim.Adam, capturable=True), [LINEAR[1].bias], "on a GPU")
    with pytest.raises(ValueError, match=r"strategy\.optimizer: TypeError: .* 'closure'"):
        require_steps(torch.optim.LBFGS, [*LINEAR.parameters()], "strategy.optimizer")
    with pytest.raises(ValueError, match=r"strategy\.optimizer: no parameter requires"):
        require_steps(SGD, [], "strategy.optimizer")


def test_networks_that_can_are_let_through_and_leave_the_generator_alone() -> None:
    before = torch.get_rng_state()
    for model in (mlp, logistic_regression, cnn):
        assert not isinstance(rehearse_network("a", model, PRIVATE), nn.Identity)
    assert torch.equal(torch.get_rng_state(), before)


def test_averaging_needs_the_students_architecture() -> None:
    student = partial(mlp, hidden=(8,))
    require_like(student, {"same": partial(mlp, hidden=(8,))}, PRIVATE, "FedAvg")
    with pytest.raises(ValueError, match=r"FedAvg averages .* clients=same\. Architecture 'wide'"):
        require_like(student, {"wide": partial(mlp, hidden=(9,))}, PRIVATE, "FedAvg")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"clients": 3}, r"clients\.condition\.clients=3: expected a list of ids, as in \[3\]"),
        ({"clients": []}, r"clients\.condition\.clients=\[\]"),
        ({"clients": [0, 99]}, r"there is no client 99, expected 0\.\.4"),
        ({"clients": ["a"]}, "there is no client a"),
        ({"clients": [0], "shift": 4}, r"clients\.condition\.shift=4: leaves 4 classes"),
    ],
)
def test_a_fault_that_would_befall_nobody_is_refused(fault: Any, message: str) -> None:
    clients = tiny_clients(condition=partial(permuted_labels, **fault))
    with pytest.raises(ValueError, match=message):
        rehearse(clients)
    rehearse(tiny_clients(condition=partial(permuted_labels, clients=[4], shift=-1)))


@pytest.mark.parametrize("view", [occluded, low_resolution])
def test_a_view_of_nobody_is_refused(view: Any) -> None:
    """It had the bits of a run without one."""
    with pytest.raises(ValueError, match=r"clients\.view\.clients=\[99\]: there is no client 99"):
        rehearse(tiny_clients(view=partial(view, clients=[99])))
