"""Objectives of every kind, minimised together and one by one, by every model of the zoo."""

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.data import classification
from clients.execution.objective_policy import objective_fault
from clients.execution.stack import Way
from clients.training.losses import cross_entropy
from clients.training.objective import Objective, OnLogits, Outputs
from tests.objectives import ALL, KINDS, anchors_for
from tests.trained_together import BUILDERS, CLASSES, FLOAT64, SHAPE, UNEQUAL, WAYS, Both, built

pytestmark = pytest.mark.usefixtures("one_thread", "in_double")


def both(
    name: str, way: Way, objective: Objective, sizes: list[int] = UNEQUAL, **changes: Any
) -> Both:
    model = built(name).double()
    known = [anchors_for(model, CLASSES, seed) for seed in range(len(sizes))]
    return Both(model, way, sizes, loss=objective, anchors=known, **changes)


SLOWLY = ("mobilenet", "shufflenet")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n.startswith(SLOWLY) else ()) for n in BUILDERS],
)
def test_all_kinds_at_once_together_and_one_by_one(name: str) -> None:
    pair = both(name, "wide", ALL, [6, 3], epochs=1, batch_size=4)
    assert pair.agree(FLOAT64), pair.errors()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "way"),
    # On a CPU, vmap is for networks without convolutions: no rule for pooling in eval mode.
    [("mlp", "wide"), ("mlp", "vmap"), ("lenet5", "vmap"), ("resnet8-batch", "wide")],
)
@pytest.mark.parametrize(
    "changes",
    [
        {"max_grad_norm": 0.5, "epochs": 1},
        {"optimizer": partial(torch.optim.SGD, lr=0.05)},  # stepped on the first few
    ],
    ids=str,
)
def test_each_kind_with_clipping_and_while_others_stand_still(
    name: str, kind: str, way: Way, changes: dict[str, Any]
) -> None:
    pair = both(name, way, KINDS[kind], **changes)
    assert pair.agree(FLOAT64), pair.errors()
    if kind != "logits":  # and it is another result than without
        plain = both(name, way, KINDS["logits"], **changes)
        apart = [
            max(np.abs(mine[key] - theirs[key]).max() for key in mine)
            for mine, theirs in zip(pair.together, plain.together, strict=True)
        ]
        assert max(apart) > 1e-8


# --- where it cannot be ---


def of_the_batch(outputs: Outputs, labels: Tensor, anchors: Any) -> Tensor:
    return cross_entropy(outputs.logits - outputs.logits.mean(0), labels)


def branching(outputs: Outputs, labels: Tensor, anchors: Any) -> Tensor:
    losses = cross_entropy(outputs.logits, labels)
    return losses * 2 if float(losses.sum()) > 1 else losses


def drawing(outputs: Outputs, labels: Tensor, anchors: Any) -> Tensor:
    return cross_entropy(nn.functional.dropout(outputs.logits), labels)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        (Objective(of_the_batch), "an example's loss depend on the others of the batch"),
        (Objective(branching), "cannot run stacked: RuntimeError"),
        (Objective(drawing), "cannot run stacked: RuntimeError"),
        (Objective(lambda o, y, a: cross_entropy(o.logits, y).mean()), "loss of shape"),
        (Objective(OnLogits(lambda z, y: cross_entropy(z, y).mean())), "loss of shape"),
        (Objective(OnLogits(cross_entropy), penalty=lambda p, a: a["no"]), "stacked: KeyError"),
        (Objective(OnLogits(cross_entropy), taps=("nose",)), "tap 'nose'"),
        (Objective(OnLogits(cross_entropy), correct=lambda g, p, a: {}), "gradients of \\[\\]"),
        *((objective, "") for objective in [*KINDS.values(), ALL]),
    ],
)
def test_the_policy_says_why(way: Way, objective: Objective, reason: str) -> None:
    model = built("mlp")
    known = anchors_for(model, CLASSES, 0)
    labels = torch.zeros(3, dtype=torch.int64)
    found = objective_fault(model, classification(SHAPE, CLASSES), way, objective, known, labels)
    assert (found is None) == (reason == ""), found
    if found is not None:
        assert re.search(reason, found), found
