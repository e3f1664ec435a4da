"""Groups of peers: one process, several, lost ones; taps; bytes."""

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

from clients.app import SimulatedApp
from clients.data import Dataset, blobs
from clients.models import (
    cnn,
    lenet5,
    logistic_regression,
    mlp,
    mobilenet_v2_small,
    resnet8,
    resnet20,
    shufflenet_v2_05,
    vgg9,
)
from clients.models.factory import build, load_parameters, parameters_of
from clients.models.taps import Tap, last_map
from clients.mutual import heads, rules
from clients.mutual.fused import fused_classifier
from clients.mutual.group import GroupLesson, GroupState, Head, Peer, Snapshot
from clients.mutual.learner import exchanged_bytes
from clients.mutual.lockstep import train_peers
from clients.mutual.terms import Shared, Terms
from clients.seeding import Purpose, generator
from clients.training.evaluation import predict
from clients.training.loop import train
from clients.training.losses import cross_entropy
from sim.workers.ray_pool import RayPool
from sim.workers.ray_together import WorkersLost
from tests.federations import open_pool, tiny_clients

DATA: Dataset = blobs(num_examples=200, seed=3)[0]
SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True)
LENET, MLP, LINEAR = lenet5, partial(mlp, hidden=(16,)), logistic_regression
IMAGES = torch.randn(40, *DATA.image_shape, generator=torch.Generator().manual_seed(1))
SMALL_CNN = partial(cnn, channels=(4, 8), hidden=16)
FFL = partial(rules.ffl, ramp_epochs=2)


def one_hot(ids: Any) -> Tensor:
    return nn.functional.one_hot(torch.from_numpy(DATA.labels[ids]), DATA.num_classes).float()


def lesson(*models: Any, **changes: Any) -> GroupLesson:
    ids = np.arange(120)
    parts: dict[str, Any] = {
        "peers": tuple(Peer(f"p{k}", model, SGD) for k, model in enumerate(models)),
        "rule": rules.dml,
        "head": None,
        "ids": ids,
        "targets": one_hot(ids),
        "epochs": 2,
        "batch_size": 16,
        "seed": 5,
        "key": (3, 0),
    }
    return GroupLesson(**(parts | changes))


def start(task: GroupLesson) -> GroupState:
    def fresh(k: int, peer: Peer) -> Snapshot:
        rng = np.random.default_rng(k)
        return Snapshot(parameters_of(build(peer.model, DATA.image_shape, DATA.num_classes, rng)))

    return GroupState(tuple(fresh(k, peer) for k, peer in enumerate(task.peers)))


def fusing(*models: Any, **changes: Any) -> GroupLesson:
    return lesson(*models, rule=FFL, head=Head(heads.Fusion, SGD), **changes)


def same(one: GroupState, other: GroupState) -> bool:
    """Tell whether two groups are equal in every bit: parameters, optimisers, head, stale."""
    assert (one.head is None) == (other.head is None)
    assert (one.stale is None) == (other.stale is None)
    alike = [*zip(one.peers, other.peers, strict=True)]
    if one.head is not None and other.head is not None:
        alike.append((one.head, other.head))
    if one.stale is not None and other.stale is not None and not (one.stale == other.stale).all():
        return False
    return all(a.parameters.keys() == b.parameters.keys() and _leaves_equal(a, b) for a, b in alike)


def _leaves_equal(one: Snapshot, other: Snapshot) -> bool:
    pairs = [
        *zip(_leaves(one.parameters), _leaves(other.parameters), strict=True),
        *zip(_leaves(one.optimizer), _leaves(other.optimizer), strict=True),
    ]
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree, key=str) for leaf in _leaves(tree[key])]
    if isinstance(tree, list | tuple):
        return [leaf for each in tree for leaf in _leaves(each)]
    return [] if tree is None else [tree]


# --- one process ---


@pytest.mark.parametrize("model", [LENET, MLP, partial(resnet8, norm="batch")])
def test_a_peer_without_the_others_learns_what_it_learns_alone(model: Any) -> None:
    """KD weight 0 and detached features: each peer's solo training, bit for bit."""
    rule = partial(rules.ffl, soft_loss_weight=0.0, detach_features=True)
    task = lesson(model, LENET, rule=rule, head=Head(heads.Fusion, SGD))
    begun = start(task)
    state = train_peers(task, begun, DATA)
    for k, peer in enumerate(task.peers):
        network = build(peer.model, DATA.image_shape, DATA.num_classes, np.random.default_rng(9))
        load_parameters(network, begun.peers[k].parameters)
        rng = generator(task.seed, Purpose.PEER_BATCHES, *task.key)
        train(
            network,
            DATA,
            task.ids,
            task.targets,
            cross_entropy,
            rng,
            epochs=2,
            batch_size=16,
            optimizer=SGD,
        )
        alone = parameters_of(network)
        for name, value in state.peers[k].parameters.items():
            np.testing.assert_array_equal(value, alone[name], err_msg=name)


def test_mutual_learning_changes_what_is_learnt() -> None:
    task = lesson(LENET, MLP)
    assert not same(
        train_peers(task, start(task), DATA),
        train_peers(lesson(LENET, MLP, rule=rules.alone), start(task), DATA),
    )


class Scalar(nn.Module):
    """Logits (w * x, 0): a network of one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)[:, :1]
        return torch.cat([self.w * x, torch.zeros_like(x)], dim=1)


def test_simultaneous_and_sequential_updates_by_hand() -> None:
    """Two peers of one parameter each, one example x = 1, no labels, plain SGD, one step.

    z_k = (w_k, 0), so p_k = sigmoid(w_k), and d KL(p_l || p_k) / d w_k = p_k - p_l.
    """
    image = np.ones((1, 1, 1, 1), dtype=np.float32)
    data = Dataset("one", image, np.zeros(1, dtype=np.int64), 2, 1.0, (0.0,), (1.0,))
    lr, w = 0.5, (2.0, -1.0)

    def sigmoid(x: float) -> float:
        return 1 / (1 + np.exp(-x))

    def run(update: Any) -> list[float]:
        task = GroupLesson(
            peers=tuple(Peer(n, Scalar, partial(torch.optim.SGD, lr=lr)) for n in "ab"),
            rule=rules.dml,
            head=None,
            ids=np.zeros(1, dtype=np.int64),
            targets=torch.zeros(1, 2),
            epochs=1,
            batch_size=1,
            update=update,
        )
        begun = GroupState(tuple(Snapshot({"w": np.array(v, dtype=np.float32)}) for v in w))
        after = train_peers(task, begun, data)
        return [float(peer.parameters["w"]) for peer in after.peers]

    p = [sigmoid(v) for v in w]
    together = [w[0] - lr * (p[0] - p[1]), w[1] - lr * (p[1] - p[0])]
    assert run("simultaneous") == pytest.approx(together, rel=1e-6)
    moved = sigmoid(together[0])  # the second one sees what the first has become
    assert run("sequential") == pytest.approx([together[0], w[1] - lr * (p[1] - moved)], rel=1e-6)
    assert together[1] != pytest.approx(w[1] - lr * (p[1] - moved), rel=1e-3)


def test_an_epoch_can_be_the_first_of_a_new_process() -> None:
    """Momentum, head, dropout and the order of batches go on where the last epoch ended."""
    dropping = partial(Dropping)
    task = fusing(LENET, dropping, epochs=3)
    commits: list[GroupState] = []
    whole = train_peers(task, start(task), DATA, commit=commits.append)
    assert same(whole, train_peers(task, commits[0], DATA))
    np.testing.assert_array_equal(whole.losses, train_peers(task, commits[1], DATA).losses)


class Dropping(nn.Module):
    """A network that draws."""

    def __init__(self, image_shape: Any, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(image_shape)), 8))
        self.drop = nn.Dropout(0.5)
        self.classifier = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.drop(self.features(images)))
        return logits


def test_a_group_leaves_the_global_generator_alone() -> None:
    task = lesson(partial(Dropping), MLP, epochs=1)
    torch.manual_seed(1)
    first = train_peers(task, start(task), DATA)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))
    torch.manual_seed(2)
    assert same(first, train_peers(task, start(task), DATA))


def test_stale_answers_are_those_of_the_last_refresh() -> None:
    seen: list[list[Tensor]] = []

    def watching(shared: Shared, targets: Tensor, epoch: int, head: Any) -> Terms:
        seen.append([epoch, *shared.stale])  # type: ignore[list-item]
        return rules.alone(shared, targets, epoch, head)

    task = lesson(LINEAR, MLP, rule=watching, refresh_epochs=2, epochs=4, batch_size=120)
    commits: list[GroupState] = [start(task)]
    train_peers(task, commits[0], DATA, commit=commits.append)
    order = [*np.argsort(np.arange(120))]
    for epoch, *stale in seen:
        frozen = commits[int(epoch) // 2 * 2]
        for k, peer in enumerate(task.peers):
            network = build(
                peer.model, DATA.image_shape, DATA.num_classes, np.random.default_rng(0)
            )
            load_parameters(network, frozen.peers[k].parameters)
            wanted = predict(network, DATA, task.ids[order])
            assert torch.allclose(
                stale[k].sort(0).values, wanted.sort(0).values, atol=1e-6
            )  # one batch, in some order
    assert len(seen) == 4


def test_a_loss_that_is_not_finite_names_peer_step_and_epoch() -> None:
    def broken(shared: Shared, targets: Tensor, epoch: int, head: Any) -> Terms:
        terms = rules.alone(shared, targets, epoch, head)
        return Terms([terms.peers[0], terms.peers[1] * (float("nan") if epoch else 1.0)])

    task = lesson(LINEAR, MLP, rule=broken)
    with pytest.raises(FloatingPointError, match=r"peer 'p1'.*step 1 of epoch 2"):
        train_peers(task, start(task), DATA)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peers": ()}, "at least one"),
        ({"peers": (Peer("a", MLP, SGD), Peer("a", MLP, SGD))}, "all different"),
        ({"ids": np.arange(0)}, "targets for 0 examples"),
        ({"epochs": -1}, "epochs=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"update": "random"}, "update=random"),
        ({"refresh_epochs": 0}, "refresh_epochs=0"),
    ],
)
def test_a_lesson_that_cannot_be_learnt_is_refused(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lesson(LINEAR, MLP, **changes)


def test_parameters_of_another_architecture_are_refused_by_name() -> None:
    task = lesson(LINEAR, MLP)
    begun = start(task)
    with pytest.raises(ValueError, match="peer 'p0'"):
        train_peers(task, GroupState(begun.peers[::-1]), DATA)


@pytest.mark.parametrize("rule", ["ffl", "one", "okddip"])
def test_the_fused_classifier_answers_as_the_rule_did(rule: str) -> None:
    build_head = {"ffl": heads.Fusion, "one": heads.Gate, "okddip": heads.Attention}[rule]
    task = lesson(
        LENET, MLP, LINEAR, rule=getattr(rules, rule), head=Head(build_head, SGD), epochs=1
    )
    state = train_peers(task, start(task), DATA)
    fused = fused_classifier(task, state, DATA)
    assert fused is not None
    with torch.no_grad():
        answers = fused(IMAGES)
        torch.testing.assert_close(answers, _fused_by_hand(rule, task, state))
    before = [len(m._forward_hooks) for m in fused.modules()]
    assert sum(before) == 0  # the taps are gone
    assert fused_classifier(lesson(LENET, MLP), state, DATA) is None


def _fused_by_hand(rule: str, task: GroupLesson, state: GroupState) -> Tensor:
    """Answer with networks and head one by one, in eval mode; here all maps are pooled to 1x1."""
    logits, features = [], []
    for peer, snapshot in zip(task.peers, state.peers, strict=True):
        network = build(peer.model, DATA.image_shape, DATA.num_classes, np.random.default_rng(0))
        load_parameters(network, snapshot.parameters)
        network.eval()
        with Tap(network, last_map(network, DATA.image_shape)) as tap:
            logits.append(network(IMAGES))
            features.append(tap.take().mean((2, 3), keepdim=True))
    if rule == "okddip":  # the leader's own
        return logits[-1]
    kind = {"ffl": heads.Fusion, "one": heads.Gate}[rule]
    head = kind([(m.shape[1], 1, 1) for m in features], DATA.num_classes).eval()
    assert state.head is not None
    load_parameters(head, state.head.parameters)
    if rule == "ffl":
        fused: Tensor = head(features)
        return fused
    gates = head(features)
    return sum(gates[:, [k]] * own for k, own in enumerate(logits))  # type: ignore[return-value]


def test_bytes_of_a_small_group_by_hand() -> None:
    """LeNet-5 and a perceptron of 16 units on 4x4 images, 120 examples, 2 epochs, 4 classes."""
    # The head pools all features to 1x1: 16 channels, and 16 units, beside 4 logits.
    both = 120 * 2 * (4 + 16) * 2 * 4
    assert exchanged_bytes(fusing(LENET, MLP), DATA, [0, 1]) == both
    assert exchanged_bytes(fusing(LENET, MLP), DATA, [0, 0]) == 0
    assert exchanged_bytes(lesson(LENET, MLP), DATA, [0, 1]) == 120 * 2 * 4 * 2 * 4
    turns = lesson(LENET, MLP, LINEAR, update="sequential")
    assert exchanged_bytes(turns, DATA, [0, 1, 2]) == 120 * 2 * 4 * (3 + 2) * 4
    stale = lesson(LENET, MLP, epochs=3, refresh_epochs=2)
    assert exchanged_bytes(stale, DATA, [0, 1]) == (120 * 3 * 4 * 2 + 2 * 120 * 4) * 4


# --- taps ---


def test_a_tap_keeps_the_output_with_its_gradient_and_leaves_nothing_behind() -> None:
    network = build(LENET, (1, 28, 28), 10, np.random.default_rng(0))
    with Tap(network, "features.3") as tap:
        network(torch.randn(2, 1, 28, 28))
        kept = tap.take()
        assert kept.requires_grad
        assert kept.dim() == 4
        with pytest.raises(ValueError, match="gave None"):
            tap.take()
    assert not any(module._forward_hooks for module in network.modules())
    with pytest.raises(ValueError, match=r"tap 'nose'.*features"):
        Tap(network, "nose")


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (logistic_regression, (3072, 1, 1)),  # the pixels
        (mlp, (200, 1, 1)),
        (lenet5, (16, 5, 5)),
        (cnn, (64, 8, 8)),
        (vgg9, (256, 4, 4)),
        (resnet8, (64, 8, 8)),  # before the average over pixels, as FFL takes them
        (resnet20, (64, 8, 8)),
        (mobilenet_v2_small, (1280, 4, 4)),
        (shufflenet_v2_05, (1024, 4, 4)),
    ],
)
def test_every_model_of_the_zoo_can_be_tapped_where_nothing_is_said(
    model: Any, shape: tuple[int, ...]
) -> None:
    network = build(model, (3, 32, 32), 10, np.random.default_rng(0)).eval()
    name = last_map(network, (3, 32, 32))
    with Tap(network, name) as tap:
        network(torch.randn(2, 3, 32, 32))
        maps = tap.take()
    assert maps.shape == (2, *shape)
    assert not any(module._forward_hooks for module in network.modules())


# --- several processes ---


@pytest.fixture(scope="module")
def pool(request: pytest.FixtureRequest) -> Iterator[Any]:
    with open_pool("ray", SimulatedApp(tiny_clients()), request.param) as opened:
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
    "ffl": fusing(LENET, SMALL_CNN, LENET, partial(resnet8, norm="batch"), epochs=7),
    "ffl-on-flat-features": fusing(LENET, MLP, LINEAR, epochs=2),
    "one": lesson(LENET, SMALL_CNN, rule=rules.one, head=Head(heads.Gate, SGD), epochs=2),
    "codistillation": lesson(
        MLP, LINEAR, LENET, rule=rules.codistillation, refresh_epochs=2, epochs=4
    ),
}


@pytest.mark.parametrize("pool", [2, 4], indirect=True)
def test_peers_spread_over_workers_learn_what_they_learn_together(spread: RayPool) -> None:
    torch.set_num_threads(1)
    for name, task in TASKS.items():
        here = train_peers(task, start(task), DATA)
        there = spread.train_peers(silent)(task, start(task), DATA)
        np.testing.assert_allclose(there.losses, here.losses, rtol=1e-5, err_msg=name)
        assert same(here, there), name  # on one machine even the bits
        places = [k % min(spread.size(), len(task.peers)) for k in range(len(task.peers))]
        assert there.sent_bytes == exchanged_bytes(task, DATA, places), name
        assert here.sent_bytes == 0


class Deadly(nn.Module):
    """A network that kills its process in one forward pass, once for each line of a file."""

    def __init__(self, image_shape: Any, num_classes: int, *, file: Path, call: int) -> None:
        super().__init__()
        self.inner = build(MLP, image_shape, num_classes, np.random.default_rng(0))
        self._file, self._left = file, call

    def forward(self, images: Tensor) -> Tensor:
        self._left -= self.training
        if self._left == 0 and (lives := int(self._file.read_text())) > 0:
            self._file.write_text(str(lives - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        logits: Tensor = self.inner(images)
        return logits


@pytest.mark.parametrize("pool", [2], indirect=True)
@pytest.mark.parametrize("place", [0, 1])  # with the host, and away from it
def test_a_peer_killed_in_mid_step_is_told_and_its_epoch_run_again(
    spread: RayPool, place: int, tmp_path: Path
) -> None:
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
    with pytest.raises(
        WorkersLost, match=f"peers .*p{place}.* lost in epoch 1 of 2.*, 4 times.*_timeout_s=20 s"
    ):
        spread.train_peers(told.append)(task, start(task), DATA)
    file.write_text("0")
    assert same(spread.train_peers(silent)(task, start(task), DATA), undisturbed)


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
        network = build(model, DATA.image_shape, DATA.num_classes, np.random.default_rng(1))
        rng = np.random.default_rng(2)
        losses = trainer(network, DATA, ids, one_hot(ids), cross_entropy, rng)
        found.append((parameters_of(network), losses, rng.integers(1 << 30)))
    start_ = parameters_of(
        build(model, DATA.image_shape, DATA.num_classes, np.random.default_rng(1))
    )
    return found[0], found[1], start_, ids


@pytest.mark.parametrize("pool", [2, 4], indirect=True)
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
    student = build(LINEAR, DATA.image_shape, DATA.num_classes, rng)
    with pytest.raises(ValueError, match=r"student_workers=3: there are only sim\.workers=2"):
        too_many(student, DATA, few, y, cross_entropy, rng)
    with pytest.raises(ValueError, match=r"expected distil to be clients\.training\.loop\.train"):
        spread.share_training(lambda *a, **k: [0.0], 2, silent)
    numbers = {"epochs": 1, "batch_size": 24, "optimizer": partial(torch.optim.SGD, lr=3e38)}
    shared = spread.share_training(partial(train, **numbers), 2, silent)
    network = build(MLP, DATA.image_shape, DATA.num_classes, np.random.default_rng(1))
    ids = np.arange(48)
    with pytest.raises(FloatingPointError, match="epoch 1"):
        shared(network, DATA, ids, one_hot(ids), cross_entropy, np.random.default_rng(2))
