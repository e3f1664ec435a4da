"""A group's learning rates follow a schedule, over epochs of all rounds and a resume."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler

from clients.mutual.group_learner import learner
from clients.mutual.lockstep import train_peers
from tests.peer_lessons import DATA, LINEAR, MLP, lesson, start

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
