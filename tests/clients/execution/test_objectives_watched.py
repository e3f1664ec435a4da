"""Objectives that would make what clients learn depend on who came first, or go unnoticed."""

from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg, FedProx
from torch import Tensor

from clients.data import classification
from clients.execution import executor
from clients.models.factory import build
from clients.training.losses import cross_entropy
from clients.training.objective import START, Objective, OnLogits, Outputs, not_true, proximal
from clients.training.taps import Taps
from tests.federations import ALONE, inline, run_ours, simulated, tiny_clients, trainer
from tests.meddling import fit, place_of
from tests.small_problems import fit as fit_alone
from tests.small_problems import small_mlp

CE = OnLogits(cross_entropy)


class Lazy:
    """Takes its scale from the first batch that it sees."""

    def __init__(self) -> None:
        self.scale: float | None = None

    def __call__(self, outputs: Outputs, labels: Tensor, anchors: Any) -> Tensor:
        if self.scale is None:
            self.scale = float(len(labels))
        return cross_entropy(outputs.logits, labels) / self.scale


@pytest.mark.parametrize("together", [False, True])
def test_a_loss_that_remembers_its_first_batch_is_named_whoever_shows_it(together: bool) -> None:
    place = place_of(trainer().func, together=together)
    for group in (3, 1, 2):
        for each in fit(place, group, loss=Objective(Lazy())):
            assert "loss: Lazy changed its 'scale'" in str(each)


def of_the_batch(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits - logits.mean(0), labels)


@pytest.mark.parametrize(
    "loss", [of_the_batch, Objective(OnLogits(of_the_batch))], ids=["bare", "whole"]
)
def test_a_loss_of_logits_whose_examples_depend_on_each_other_mixes_no_clients(loss: Any) -> None:
    alone, together = (place_of(trainer().func, together=both) for both in (False, True))
    for one, other in zip(fit(alone, 3, loss=loss), fit(together, 3, loss=loss), strict=True):
        assert one.losses == other.losses
    assert [*together.notes] == [
        "architecture 'own' trains client by client: its objective makes an example's loss depend "
        "on the others of the batch"
    ]


def test_anchors_that_cannot_be_stacked_are_told_of() -> None:
    def loss(outputs: Outputs, labels: Tensor, anchors: Any) -> Tensor:
        return cross_entropy(outputs.logits, labels) + anchors["a"].sum()

    place = place_of(trainer().func, together=True)
    objective = Objective(loss, anchors=("a",))
    clients = tiny_clients()
    start = dict(place.networks.fresh("own", np.random.default_rng(3)).state_dict())
    lessons = [
        executor.Lesson(
            start,
            np.arange(10),
            torch.tensor(clients.splits.private.labels[:10]),
            np.random.SeedSequence(k),
            {"a": torch.zeros(k + 1)},
        )
        for k in range(2)
    ]
    done = list(place.fit("own", clients.splits.private, lessons, objective))
    assert not any(isinstance(each, Exception) for each in done)
    (note,) = place.notes
    assert note.startswith("architecture 'own' trains client by client: RuntimeError")


@pytest.mark.parametrize("kind", ["fedprox", "not_true", "plain"])
def test_like_clients_are_trained_in_one_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    whole = executor.train_together

    def counted(stack: Any, dataset: Any, indices: Any, *rest: Any, **numbers: Any) -> Any:
        found = whole(stack, dataset, indices, *rest, **numbers)
        calls.append(len(indices))
        return found

    monkeypatch.setattr(executor, "train_together", counted)
    objective = not_true() if kind == "not_true" else None
    clients = tiny_clients(4, architectures=["linear"] * 4, objective=objective)
    strategy = FedProx(proximal_mu=0.1, **ALONE) if kind == "fedprox" else FedAvg(**ALONE)
    pool = inline(simulated(clients))
    from sim.engine.grid import PoolGrid

    grid = PoolGrid(pool, clients.architectures, group_size=4)
    run_ours(pool, clients, strategy, grid=grid)
    assert calls == [4]


def test_no_finite_numbers_is_another_reason() -> None:
    def loss(outputs: Outputs, labels: Tensor, anchors: Any) -> Tensor:
        return cross_entropy(outputs.logits, labels) + (outputs.logits - 1e9).log().sum(1)

    place = place_of(trainer().func, together=True)
    fit(place, 2, loss=Objective(loss))
    assert "gives no finite numbers on made-up clients" in next(iter(place.notes))


# --- anchors and taps ---


@pytest.mark.parametrize(
    ("anchors", "said"),
    [
        ({"last": {}}, "anchor 'last' is no network of this architecture"),
        ({START: {}, "last": {}}, "anchor 'start' is what training begins with"),
    ],
)
def test_an_anchor_that_is_no_network_is_refused(anchors: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit_alone(small_mlp(), loss=Objective(CE, networks=("last",)), anchors=anchors)


def test_a_correction_may_give_an_anchor_and_it_is_not_clipped() -> None:
    def correct(gradients: Any, parameters: Any, anchors: Any) -> Any:
        return {name: anchors["c"][name] for name in gradients}

    model = small_mlp()
    control = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    objective = Objective(CE, correct=correct, anchors=("c",))
    fit_alone(model, loss=objective, anchors={"c": control}, max_grad_norm=0.1)
    assert all(bool((each == 1).all()) for each in control.values())


def test_a_module_of_the_name_penultimate_is_itself() -> None:
    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.penultimate, self.last = torch.nn.Linear(16, 3), torch.nn.Linear(3, 4)

        def forward(self, images: Tensor) -> Tensor:
            return self.last(self.penultimate(images.flatten(1)).relu())

    model = build(lambda: Named(), classification((1, 4, 4), 4), np.random.default_rng(0))
    images = torch.randn(2, 1, 4, 4)
    with Taps(model, ["penultimate"]) as taps:
        model(images)
        seen = taps.take()["penultimate"]
    torch.testing.assert_close(seen, model.penultimate(images.flatten(1)))  # before the ReLU


# --- who minimises what ---


def test_a_method_with_an_objective_of_its_own_does_not_ignore_the_configs() -> None:
    clients = tiny_clients(1, objective=not_true())
    with pytest.raises(ValueError, match="clients.objective: this method has an objective of its"):
        clients.goal(proximal(0.1))
    assert clients.goal(None) is clients.objective
