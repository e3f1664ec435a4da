"""Objectives: each part by hand, what they are given, and what is said of those that are odd."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg
from torch import Tensor, nn

from clients.data import normalised
from clients.models.factory import parameters_of
from clients.population.clients import SimulatedClients
from clients.training.evaluation import predict_with_features
from clients.training.loop import train
from clients.training.losses import cross_entropy, kl
from clients.training.objective import (
    START,
    Objective,
    OnLogits,
    Outputs,
    not_true,
    proximal,
    with_temperature,
)
from sim.engine.grid import PoolGrid
from sim.workers.pools import Pool
from tests.federations import ALONE, inline, open_pool, run_ours, simulated, tiny_clients, trainer
from tests.meddling import fit as fit_clients
from tests.meddling import place_of
from tests.small_problems import BLOBS, fit, half_square, same_bits, scalar_problem, small_mlp

CE = OnLogits(cross_entropy)


def scalar_fit(objective: Objective, anchors: dict[str, Any] | None = None) -> float:
    """Fit w = 1 by two steps of rate .1 on the loss (2w - 3)^2 / 2 and more; return w."""
    model, dataset = scalar_problem()
    sgd = partial(torch.optim.SGD, lr=0.1)
    numbers = {"epochs": 2, "batch_size": 1, "optimizer": sgd, "anchors": anchors}
    what = np.array([0]), torch.tensor([3.0]), objective, np.random.default_rng(0)
    train(model, dataset, *what, **numbers)
    return float(model[1].weight.item())


def test_a_penalty_by_hand() -> None:
    # 2 w^2 adds 4 w to the gradient 2 (2w - 3): -2 + 4 = 2, w = .8; -2.8 + 3.2 = .4, w = .76.
    def penalty(parameters: Any, anchors: Any) -> Tensor:
        return 2 * parameters["1.weight"].square().sum()

    assert scalar_fit(Objective(OnLogits(half_square), penalty)) == pytest.approx(0.76, abs=1e-6)


def test_a_correction_by_hand() -> None:
    # The gradient and 1: -1, w = 1.1; 2 (2.2 - 3) + 1 = -.6, w = 1.16.
    def correct(gradients: Any, parameters: Any, anchors: Any) -> Any:
        return {name: g + anchors["control"] for name, g in gradients.items()}

    objective = Objective(OnLogits(half_square), correct=correct, anchors=("control",))
    assert scalar_fit(objective, {"control": torch.tensor(1.0)}) == pytest.approx(1.16, abs=1e-6)


def test_the_losses_told_leave_the_penalty_out() -> None:
    def penalty(parameters: Any, anchors: Any) -> Tensor:
        return torch.tensor(7.0)

    first, second = small_mlp(), small_mlp()
    assert fit(first, loss=Objective(CE, penalty)) == fit(second)
    assert same_bits(first, second)


def test_a_loss_of_logits_is_the_same_with_all_the_apparatus() -> None:
    def loss(outputs: Outputs, labels: Tensor, anchors: Any) -> Tensor:
        assert outputs.features().shape == (len(labels), 8)
        assert outputs.of(START).features("features").shape == (len(labels), 8)
        return cross_entropy(outputs.logits, labels)

    taps = ("penultimate", "features")
    plain, full = small_mlp(), small_mlp()
    objective = Objective(loss, taps=taps, networks=(START,))
    assert fit(plain, max_grad_norm=0.5) == fit(full, loss=objective, max_grad_norm=0.5)
    assert same_bits(plain, full)
    assert not any(module._forward_hooks for module in full.modules())


def test_an_anchors_network_answers_in_eval_mode_as_it_was_and_without_a_trace() -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 4)
    )
    before = predict_with_features(model, BLOBS, np.arange(60))
    rows = torch.from_numpy(normalised(BLOBS, np.arange(60)))
    seen = 0

    def loss(outputs: Outputs, labels: Tensor, anchors: Any) -> Tensor:
        nonlocal seen
        said = outputs.of(START)
        places = [int((rows == each).flatten(1).all(1).nonzero()[0]) for each in outputs.inputs]
        torch.testing.assert_close(said.logits, before[0][places], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(said.features(), before[1][places], atol=1e-5, rtol=1e-5)
        assert not said.logits.requires_grad
        assert model[2].training  # again, for the student's own
        seen += 1
        return cross_entropy(outputs.logits, labels)

    statistics = model[2].running_mean.clone()
    fit(model, loss=Objective(loss, taps=("penultimate",), networks=(START,)))
    assert seen == 8
    assert not torch.equal(model[2].running_mean, statistics)


def test_features_carry_gradients_and_nothing_else_is_moved() -> None:
    def loss(outputs: Outputs, labels: Tensor, anchors: Any) -> Tensor:
        return outputs.features().square().sum(1)

    model = small_mlp()
    first = parameters_of(model)
    fit(model, loss=Objective(loss, taps=("penultimate",)))
    moved = {name for name, old in first.items() if (parameters_of(model)[name] != old).any()}
    assert moved == {name for name in first if name.startswith("features")}


def test_half_precision_reaches_the_loss_as_float32() -> None:
    def loss(outputs: Outputs, labels: Tensor, anchors: Any) -> Tensor:
        each = outputs, outputs.of(START)
        assert {t.dtype for o in each for t in (o.logits, o.features())} == {torch.float32}
        return cross_entropy(outputs.logits, labels)

    objective = Objective(loss, taps=("penultimate",), networks=(START,))
    fit(small_mlp(), loss=objective, autocast="bfloat16")


# --- what is odd ---


def asking(what: str) -> Any:
    def loss(outputs: Outputs, labels: Tensor, anchors: Any) -> Tensor:
        return outputs.features(what) if "/" not in what else outputs.of(what[1:]).logits

    return loss


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (Objective(CE, anchors=("control",)), "objective: no anchor 'control', expected control"),
        (Objective(CE, networks=("last",)), "objective: no anchor 'last'"),
        (Objective(CE, taps=("nose",)), "tap 'nose': Sequential has only penultimate, "),
        (Objective(asking("nose")), r"tap 'nose': not in the objective's taps, \[\]"),
        (Objective(asking("/last")), r"anchor 'last': not in the objective's networks, \[\]"),
        (
            Objective(lambda o, y, a: cross_entropy(o.logits, y).mean()),
            r"loss of shape \(\), expecte",
        ),
        (Objective(lambda o, y, a: o.logits), r"loss of shape \(16, 4\), expected \(16,\)"),
        (lambda z, y: cross_entropy(z, y).sum(), r"loss of shape \(\), expected \(16,\)"),
        (Objective(CE, correct=lambda g, p, a: {}), r"objective\.correct gave gradients of \[\]"),
    ],
)
def test_what_is_not_there_is_named(objective: Objective, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit(small_mlp(), loss=objective)


def test_a_trainer_that_knows_losses_only_says_so() -> None:
    def plain_loop(
        model: Any, data: Any, ids: Any, targets: Any, loss: Any, rng: Any
    ) -> list[float]:
        return []

    place = place_of(None)
    place._train = plain_loop
    (said,) = fit_clients(place, 1, loss=proximal(1.0))
    assert str(said).startswith("clients.training: plain_loop takes no objectives, only losses")
    assert not isinstance(fit_clients(place, 1)[0], Exception)


def test_a_messenger_does_not_read_the_clients_objective() -> None:
    with pytest.raises(ValueError, match=r"clients\.objective: not with clients\.messenger"):
        tiny_clients(messenger=object(), objective=not_true())


def test_the_temperature_of_distillation_reaches_an_objectives_loss() -> None:
    def loss(outputs: Outputs, targets: Tensor, anchors: Any, temperature: float) -> Tensor:
        return kl(outputs.logits, targets, temperature)

    logits, targets = torch.randn(3, 4), torch.randn(3, 4).softmax(-1)
    bound = with_temperature(Objective(loss), 3.0)
    found = bound.loss(Outputs(logits, logits), targets, {})
    assert torch.equal(found, with_temperature(kl, 3.0)(logits, targets))


# --- in a federation ---


def of_the_batch(outputs: Outputs, labels: Tensor, anchors: Any) -> Tensor:
    """A loss whose examples depend on each other."""
    return cross_entropy(outputs.logits - outputs.logits.mean(0), labels)


def alike(objective: Any, together: bool = True) -> SimulatedClients:
    linear = ["linear"] * 4
    return tiny_clients(4, architectures=linear, objective=objective, together=together)


@pytest.fixture(scope="module")
def pool(pool_kind: str) -> Iterator[Pool]:
    with open_pool(pool_kind, simulated(tiny_clients())) as opened:
        yield opened


@pytest.mark.parametrize("objective", [of_the_batch, not_true()], ids=["not", "together"])
def test_whoever_cannot_train_together_says_so_once(pool: Pool, objective: Any) -> None:
    objective = objective if isinstance(objective, Objective) else Objective(objective)
    notes: list[str] = []

    def end(together: bool) -> dict[str, Any]:
        clients = alike(objective, together)
        pool.load(simulated(clients))
        about = {"group_size": 2, "on_note": notes.append}
        grid = PoolGrid(pool, clients.architectures, **about)
        return run_ours(pool, clients, FedAvg(**ALONE), rounds=2, grid=grid).parameters

    alone, together = end(False), end(True)
    same = all(np.array_equal(alone[name], together[name]) for name in alone)
    for name in alone:
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-4, atol=1e-6)
    if objective.loss is of_the_batch:
        assert same
        assert notes == [
            "architecture 'linear' trains client by client: its objective makes an example's loss "
            "depend on the others of the batch"
        ]
    else:
        assert not notes


def test_the_clients_objective_is_what_they_minimise() -> None:
    def end(**changes: Any) -> dict[str, Any]:
        clients = tiny_clients(1, **changes)
        return run_ours(inline(simulated(clients)), clients, FedAvg(**ALONE), rounds=2).parameters

    plain, kept = end(), end(objective=not_true(weight=5.0))
    assert any((plain[name] != kept[name]).any() for name in plain)
    assert all((plain[n] == v).all() for n, v in end(objective=Objective(CE)).items())
    assert trainer().keywords["epochs"] == 2  # else nothing is kept in one step
