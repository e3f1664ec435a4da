"""Widths: which units of a chain are left, by hand; what was pruned must not be missed."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clients.data import classification
from clients.execution.model_cache import work_of
from clients.models import cnn, lenet5, mlp, resnet8, vgg9
from clients.models.factory import build, parameters_of
from clients.population.widths import first_units, of_largest_norm, share_of_units

TASK = classification((1, 8, 8), 4)
ZOO = {
    "mlp": partial(mlp, hidden=(6, 4)),
    "lenet5": lenet5,
    "cnn": partial(cnn, channels=(4, 6), hidden=8),
    "vgg9": partial(vgg9, channels=(4,) * 6, hidden=(8, 8)),
}


def two_units() -> nn.Sequential:
    """An MLP of two units, whose incoming weights have the norms 1 and 5."""
    network = mlp((2,), 2, hidden=(2,))
    first, last = network.features[1], network.classifier  # type: ignore[index,union-attr]
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
        first.bias.copy_(torch.tensor([5.0, 6.0]))
        last.weight.copy_(torch.tensor([[7.0, 8.0], [9.0, 10.0]]))
        last.bias.copy_(torch.tensor([11.0, 12.0]))
    return network  # type: ignore[return-value]


@pytest.mark.parametrize("apply", [first_units, of_largest_norm])
def test_what_is_frozen_stays_frozen(apply: Any) -> None:
    """Random features became trainable once they were cut."""
    network = two_units()
    first: Any = network.features[1]
    first.weight.requires_grad_(False)
    first.bias.requires_grad_(False)
    frozen = {name: p.requires_grad for name, p in network.named_parameters()}
    cut = apply(network, plan_of(network, 0.5))
    assert {name: p.requires_grad for name, p in cut.named_parameters()} == frozen
    assert cut.features[1].weight.shape == (1, 2)


def plan_of(network: nn.Module, *keep: float, plan: Any = None, **changes: Any) -> Any:
    what = {"plan": plan or {}, "client_id": 0, "server_round": 1, "keep": keep} | changes
    nothing = torch.empty(0)
    return share_of_units(network, nothing, nothing, **what)


@pytest.mark.parametrize(
    ("apply", "weight", "bias", "after"),
    [
        (of_largest_norm, [[3.0, 4.0]], [6.0], [[8.0], [10.0]]),
        (first_units, [[1.0, 0.0]], [5.0], [[7.0], [9.0]]),
    ],
    ids=["pruned", "sliced"],
)
def test_of_two_units_one_is_left_by_hand(apply: Any, weight: Any, bias: Any, after: Any) -> None:
    found = apply(two_units(), {"features.1": np.array(1)})
    arrays = {name: value.tolist() for name, value in parameters_of(found).items()}
    assert arrays == {
        "features.1.weight": weight, "features.1.bias": bias,
        "classifier.weight": after, "classifier.bias": [11.0, 12.0],
    }  # fmt: skip
    # One input by hand: (1, 1) -> relu of 7 + 6 = 13 or 1 + 5 = 6, and on.
    unit = max(0.0, sum(weight[0]) + bias[0])
    expected = [after[0][0] * unit + 11, after[1][0] * unit + 12]
    assert found(torch.ones(1, 2)).tolist() == [expected]
    assert (found.features[1].out_features, found.classifier.in_features) == (1, 1)


@pytest.mark.parametrize("name", ZOO)
def test_units_of_no_weight_are_pruned_and_nobody_misses_them(name: str) -> None:
    network = build(ZOO[name], TASK, np.random.default_rng(0)).eval()
    layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for layer in layers[:-1]:  # every other one says nothing
            layer.weight[::2] = 0
            layer.bias[::2] = 0  # type: ignore[index]
    images = TASK.made_up(np.random.default_rng(1), 5).float()
    before, size = network(images), sum(p.numel() for p in network.parameters())
    plan = plan_of(network, 0.5)
    found = of_largest_norm(network, plan)
    torch.testing.assert_close(found(images), before, rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in found.parameters()) < 0.6 * size
    pruned = partial(pruned_model, ZOO[name], plan)
    assert work_of(name, pruned, TASK) < 0.6 * work_of(name, ZOO[name], TASK)


def pruned_model(model: Any, plan: Any, task: Any) -> nn.Module:
    return of_largest_norm(build(model, task, np.random.default_rng(0)), plan)


@pytest.mark.parametrize("apply", [of_largest_norm, first_units])
@pytest.mark.parametrize("name", ZOO)
def test_the_full_plan_is_the_identity(name: str, apply: Any) -> None:
    network = build(ZOO[name], TASK, np.random.default_rng(0))
    before = parameters_of(network)
    layers = [n for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    full = {n: np.array(len(before[f"{n}.weight"])) for n in layers[:-1]}
    after = parameters_of(apply(network, full))
    assert after.keys() == before.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)


def test_what_is_chosen_stays_and_goes_by_client_and_round() -> None:
    network = build(ZOO["mlp"], TASK, np.random.default_rng(0))
    plan = plan_of(network, 0.5)
    assert {name: int(number) for name, number in plan.items()} == {
        "features.1": 3,
        "features.3": 2,
    }
    assert plan_of(of_largest_norm(network, plan), 0.5, plan=plan) is plan
    network = build(ZOO["mlp"], TASK, np.random.default_rng(0))
    tiers = {k: plan_of(network, 1.0, 0.4, client_id=k) for k in range(4)}
    assert tiers[0] == tiers[2] == {}
    assert tiers[1] == tiers[3] == {"features.1": 3, "features.3": 2}  # 2.4 and 1.6, rounded up
    assert plan_of(network, 0.5, from_round=2) == {}
    assert plan_of(network, 0.5, from_round=2, server_round=2) == plan
    assert plan_of(build(mlp, TASK, np.random.default_rng(0)), 0.01)["features.1"] == 2


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: plan_of(two_units(), 0.0), r"keep=0.0: expected in \(0, 1\]"),
        (lambda: plan_of(two_units(), 1.5), "keep=1.5"),
        (lambda: first_units(two_units(), {"features.1": np.array(3)}), "has 2 units.*wants 3"),
        (lambda: first_units(two_units(), {"classifier": np.array(1)}), "'classifier' of the plan"),
        (lambda: plan_of(resnet8((1, 8, 8), 4), 0.5), r"'\S+' is a \w+: expected a chain"),
    ],
    ids=["none", "more", "grown", "answers", "residual"],
)  # fmt: skip
def test_what_cannot_be_narrowed_says_so(call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
