"""Groups of peers, and one network, over several processes; lost ones."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from torch import Tensor, nn

from clients.data import classification
from clients.models import resnet8
from clients.models.factory import build, parameters_of
from clients.mutual import group_heads, rules
from clients.mutual.group import Head
from clients.mutual.group_process import exchanged_bytes
from clients.mutual.lockstep import train_peers
from clients.mutual.terms import Shared, Terms
from clients.training.loop import train
from clients.training.losses import cross_entropy
from sim.workers import ray_together
from sim.workers.ray_pool import RayPool
from sim.workers.ray_together import WorkersLost
from tests.federations import open_pool, simulated, tiny_clients
from tests.peer_lessons import (
    DATA,
    LENET,
    LINEAR,
    MLP,
    SGD,
    SMALL_CNN,
    fusing,
    lesson,
    one_hot,
    same,
    start,
)

# --- several processes ---


@pytest.fixture(scope="module")
def pool(request: pytest.FixtureRequest) -> Iterator[Any]:
    with open_pool("ray", simulated(tiny_clients()), request.param) as opened:
        yield opened


@pytest.fixture
def spread(pool: RayPool) -> Iterator[RayPool]:
    """A pool of so many workers, which wait no longer than 20 s for each other."""
    before, pool._peer_timeout_s = pool._peer_timeout_s, 20.0
    yield pool
    pool._peer_timeout_s = before


def silent(message: str) -> None:
    raise AssertionError(message)


TASKS = {
    "dml": lesson(LENET, MLP, SMALL_CNN, LINEAR, epochs=7),  # 8 steps an epoch: 56
    "dml-sequential": lesson(LENET, MLP, SMALL_CNN, update="sequential", epochs=2),
    "ffl": fusing(LENET, SMALL_CNN, LENET, partial(resnet8, norm="batch"), epochs=2),
    "ffl-on-flat-features": fusing(LENET, MLP, LINEAR, epochs=2),
    "one": lesson(LENET, SMALL_CNN, rule=rules.one, head=Head(group_heads.Gate, SGD), epochs=2),
    "codistillation": lesson(
        MLP, LINEAR, LENET, rule=rules.codistillation, refresh_epochs=2, epochs=4
    ),
}


QUICK = ("one", "ffl-on-flat-features", "codistillation")


@pytest.mark.parametrize("pool", [2, pytest.param(4, marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in TASKS]
)
def test_peers_spread_over_workers_learn_what_they_learn_together(
    spread: RayPool, name: str
) -> None:
    torch.set_num_threads(1)
    task = TASKS[name]
    here = train_peers(task, start(task), DATA)
    there = spread.train_peers(silent)(task, start(task), DATA)
    np.testing.assert_allclose(there.losses, here.losses, rtol=1e-5)
    assert same(here, there)  # on one machine even the bits
    places = [k % min(spread.size(), len(task.peers)) for k in range(len(task.peers))]
    assert there.sent_bytes == exchanged_bytes(task, DATA, places)
    assert here.sent_bytes == 0


class Deadly(nn.Module):
    """A network that kills its process in one forward pass, once for each line of a file."""

    def __init__(self, image_shape: Any, num_classes: int, *, file: Path, call: int) -> None:
        super().__init__()
        self.inner = build(MLP, classification(image_shape, num_classes), np.random.default_rng(0))
        self._file, self._left = file, call

    def forward(self, images: Tensor) -> Tensor:
        self._left -= self.training
        if self._left == 0 and (lives := int(self._file.read_text())) > 0:
            self._file.write_text(str(lives - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        logits: Tensor = self.inner(images)
        return logits


@pytest.mark.parametrize("pool", [2], indirect=True)
@pytest.mark.parametrize(("place", "retries"), [pytest.param(0, 1, marks=pytest.mark.slow), (1, 0)])
def test_a_peer_killed_in_mid_step_is_told_and_its_epoch_run_again(
    spread: RayPool, place: int, retries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the host, and away from it."""
    file = tmp_path / "lives"
    deadly = partial(Deadly, file=file, call=5)
    models = [LENET, LENET]
    models[place] = deadly
    task = lesson(*models, epochs=2)
    file.write_text("0")
    undisturbed = train_peers(task, start(task), DATA)
    file.write_text("1")
    told: list[str] = []
    state = spread.train_peers(told.append)(task, start(task), DATA)
    assert same(state, undisturbed)
    np.testing.assert_array_equal(state.losses, undisturbed.losses)
    assert len(told) == 1
    assert f"peers p{place} lost in epoch 1 of 2" in told[0]
    assert "died" in told[0]
    file.write_text("99")
    monkeypatch.setattr(ray_together, "RETRIES", retries)
    with pytest.raises(
        WorkersLost,
        match=f"peers .*p{place}.* lost in epoch 1 of 2.*, {retries + 1} times.*_timeout_s=20 s",
    ):
        spread.train_peers(told.append)(task, start(task), DATA)
    file.write_text("0")
    assert same(spread.train_peers(silent)(task, start(task), DATA), undisturbed)


@pytest.mark.slow  # above one is killed while it works
@pytest.mark.parametrize("pool", [2], indirect=True)
@pytest.mark.parametrize("place", [0, 1])
def test_a_worker_lost_while_idle_costs_one_meeting(spread: RayPool, place: int) -> None:
    """The other one waited in vain for it: it must be able to meet the new one."""
    task = lesson(MLP, LINEAR, epochs=1)
    spread._peer_timeout_s = 4.0
    train_ = spread.train_peers(lambda message: None)
    ray.kill(spread._there().actors[place])
    assert same(train_(task, start(task), DATA), train_peers(task, start(task), DATA))


@pytest.mark.parametrize("pool", [2], indirect=True)
def test_what_a_rule_raises_is_not_taken_for_a_lost_peer(spread: RayPool) -> None:
    task = lesson(MLP, LINEAR, rule=_raising)
    spread._peer_timeout_s = 2.0  # which the other peer waits in vain
    with pytest.raises(KeyError, match="no such teacher"):
        spread.train_peers(silent)(task, start(task), DATA)


def _raising(shared: Shared, targets: Tensor, epoch: int, head: Any) -> Terms:
    raise KeyError("no such teacher")


class Hanging(Deadly):
    """A network that stops for ever instead."""

    def forward(self, images: Tensor) -> Tensor:
        self._left -= self.training
        if self._left == 0 and int(self._file.read_text()) > 0:
            self._file.write_text("0")
            time.sleep(3600)
        logits: Tensor = self.inner(images)
        return logits


@pytest.mark.slow  # waits for time to pass
@pytest.mark.parametrize("pool", [2], indirect=True)
def test_a_peer_that_hangs_does_not_hang_the_others(spread: RayPool, tmp_path: Path) -> None:
    file = tmp_path / "lives"
    file.write_text("1")
    task = lesson(LENET, partial(Hanging, file=file, call=3), epochs=1)
    spread._peer_timeout_s = 3.0
    told: list[str] = []
    state = spread.train_peers(told.append)(task, start(task), DATA)
    assert "its worker hangs" in told[0]
    assert "p1" in told[0]
    assert same(state, train_peers(task, start(task), DATA))


# --- one network, several processes ---


def shared_and_alone(spread: RayPool, model: Any, **numbers: Any) -> tuple[Any, Any, Any, Any]:
    """Train a network with several workers, and in this process; return both ways of both."""
    parts: dict[str, Any] = {"epochs": 5, "batch_size": 24, "optimizer": SGD} | numbers
    ids, found = np.arange(130), []
    for trainer in (
        partial(train, **parts),
        spread.share_training(partial(train, **parts), spread.size(), silent),
    ):
        network = build(model, DATA.task, np.random.default_rng(1))
        rng = np.random.default_rng(2)
        losses = trainer(network, DATA, ids, one_hot(ids), cross_entropy, rng)
        found.append((parameters_of(network), losses, rng.integers(1 << 30)))
    start_ = parameters_of(build(model, DATA.task, np.random.default_rng(1)))
    return found[0], found[1], start_, ids


@pytest.mark.parametrize("pool", [2, pytest.param(4, marks=pytest.mark.slow)], indirect=True)
def test_a_student_taught_by_several_workers_is_that_of_one(spread: RayPool) -> None:
    """Within 1e-5 of the distance moved: sums are rounded in another order."""
    for model, numbers in [(LENET, {}), (MLP, {"max_grad_norm": 0.5}), (LINEAR, {"epochs": 1})]:
        one, several, begun, _ = shared_and_alone(spread, model, **numbers)
        moved = np.sqrt(sum(((one[0][n] - begun[n]) ** 2).sum() for n in begun))
        apart = np.sqrt(sum(((one[0][n] - several[0][n]) ** 2).sum() for n in begun))
        assert 0 <= apart < 1e-5 * moved
        np.testing.assert_allclose(several[1], one[1], rtol=1e-5)
        assert several[2] == one[2]  # whoever draws next draws the same
        again = shared_and_alone(spread, model, **numbers)[1]
        assert all(np.array_equal(several[0][n], again[0][n]) for n in begun)


@pytest.mark.parametrize("pool", [2], indirect=True)
def test_a_student_that_cannot_be_shared_is_refused(spread: RayPool) -> None:
    with pytest.raises(ValueError, match="batch norm"):
        shared_and_alone(spread, partial(resnet8, norm="batch"))
    trainer = partial(train, epochs=1, batch_size=8, optimizer=SGD)
    too_many = spread.share_training(trainer, 3, silent)
    few, y, rng = np.arange(9), one_hot(np.arange(9)), np.random.default_rng(2)
    student = build(LINEAR, DATA.task, rng)
    with pytest.raises(ValueError, match=r"student_workers=3: there are only sim\.workers=2"):
        too_many(student, DATA, few, y, cross_entropy, rng)
    with pytest.raises(ValueError, match=r"expected distil to be clients\.training\.loop\.train"):
        spread.share_training(lambda *a, **k: [0.0], 2, silent)
    numbers = {"epochs": 1, "batch_size": 24, "optimizer": partial(torch.optim.SGD, lr=3e38)}
    shared = spread.share_training(partial(train, **numbers), 2, silent)
    network = build(MLP, DATA.task, np.random.default_rng(1))
    ids = np.arange(48)
    with pytest.raises(FloatingPointError, match="epoch 1"):
        shared(network, DATA, ids, one_hot(ids), cross_entropy, np.random.default_rng(2))
