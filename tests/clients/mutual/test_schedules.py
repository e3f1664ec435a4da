"""A group's learning rates follow a schedule, over epochs of all rounds and a resume."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from clients.models.factory import build, parameters_of
from clients.mutual.data_parallel import train_shard
from clients.mutual.group_process import learner
from clients.mutual.lockstep import NoLink, train_peers
from clients.training.loop import train
from clients.training.losses import cross_entropy
from tests.peer_lessons import DATA, LINEAR, MLP, SMALL_CNN, fusing, lesson, start

TENTH = partial(lr_scheduler.MultiStepLR, milestones=[2, 3], gamma=0.1)


def rate(what: Any, state: Any) -> float:
    with learner(what, 0, state, DATA, (), "cpu") as peer:
        return float(peer.optimizer.param_groups[0]["lr"])


def test_the_rate_of_each_epoch_by_hand() -> None:
    plain = partial(torch.optim.SGD, lr=0.5)
    what = lesson(LINEAR, LINEAR, scheduler=TENTH)
    what = replace(what, peers=tuple(replace(peer, optimizer=plain) for peer in what.peers))
    begun = start(what)
    rates = [rate(what, replace(begun, epoch=epoch)) for epoch in range(4)]
    np.testing.assert_allclose(rates, [0.5, 0.5, 0.05, 0.005])
    later = replace(what, first_epoch=2)
    np.testing.assert_allclose(rate(later, begun), 0.05)


def test_a_schedule_that_ends_at_0_ends_learning() -> None:
    ends = partial(lr_scheduler.StepLR, step_size=1, gamma=0.0)
    one, two = (
        train_peers(what, start(what), DATA)
        for what in (lesson(MLP, LINEAR, epochs=1), lesson(MLP, LINEAR, epochs=2, scheduler=ends))
    )
    for name, value in one.peers[0].parameters.items():
        np.testing.assert_array_equal(value, two.peers[0].parameters[name])


def test_the_heads_rate_follows_too() -> None:
    ends = partial(lr_scheduler.StepLR, step_size=1, gamma=0.0)
    one, two, moved = (
        train_peers(what, start(what), DATA).head
        for what in (
            fusing(SMALL_CNN, SMALL_CNN, epochs=1),
            fusing(SMALL_CNN, SMALL_CNN, epochs=2, scheduler=ends),
            fusing(SMALL_CNN, SMALL_CNN, epochs=2),
        )
    )
    assert one and two and moved  # noqa: PT018
    learned = [name for name in one.parameters if name.endswith(("weight", "bias"))]
    for name in learned:  # not running statistics, which go on
        np.testing.assert_array_equal(one.parameters[name], two.parameters[name])
        assert (one.parameters[name] != moved.parameters[name]).any()


@pytest.mark.parametrize("by", ["epoch", "step"])
def test_who_trains_a_share_of_each_batch_has_the_rates_of_who_trains_it_alone(by: Any) -> None:
    """Three steps an epoch, over two epochs; the rate falls in the second epoch, or third step."""
    falls = partial(lr_scheduler.MultiStepLR, milestones=[1 if by == "epoch" else 2], gamma=0.1)
    numbers: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 16,
        "optimizer": partial(torch.optim.SGD, lr=0.5),
        "scheduler_by": by,
    }
    ids, found = np.arange(48), []
    for scheduler in (falls, None):
        alone, shared = (build(LINEAR, DATA.task, np.random.default_rng(0)) for _ in range(2))
        what = DATA, ids, torch.tensor(DATA.labels[ids]), cross_entropy
        numbers["scheduler"] = scheduler
        train(alone, *what, np.random.default_rng(1), **numbers)
        train_shard(NoLink(), 1, shared, *what, np.random.default_rng(1), device="cpu", **numbers)
        for name, value in parameters_of(alone).items():
            np.testing.assert_allclose(parameters_of(shared)[name], value, atol=1e-5)
        found.append(parameters_of(shared)["classifier.weight"])
    assert np.abs(found[0] - found[1]).max() > 0.01
