"""Groups of peers in one process: what they learn, what is refused, bytes."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.data import Dataset, classification
from clients.models import resnet8
from clients.models.factory import build, load_parameters, parameters_of
from clients.mutual import group_heads, rules
from clients.mutual.ensemble_classifier import fused_classifier
from clients.mutual.group import GroupLesson, GroupState, Head, Peer, Snapshot
from clients.mutual.group_process import exchanged_bytes
from clients.mutual.lockstep import train_peers
from clients.mutual.terms import Shared, Terms
from clients.seeding import Purpose, generator
from clients.training.evaluation import predict
from clients.training.loop import train
from clients.training.losses import cross_entropy
from clients.training.taps import Taps, last_map, take_map
from tests.peer_lessons import DATA, LENET, LINEAR, MLP, SGD, fusing, lesson, same, start

IMAGES = torch.randn(40, *DATA.task.input_shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model", [LENET, MLP, partial(resnet8, norm="batch")])
def test_a_peer_without_the_others_learns_what_it_learns_alone(model: Any) -> None:
    """KD weight 0 and detached features: each peer's solo training, bit for bit."""
    rule = partial(rules.ffl, soft_loss_weight=0.0, detach_features=True)
    task = lesson(model, LENET, rule=rule, head=Head(group_heads.Fusion, SGD))
    begun = start(task)
    state = train_peers(task, begun, DATA)
    for k, peer in enumerate(task.peers):
        network = build(peer.model, DATA.task, np.random.default_rng(9))
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
    data = Dataset(
        "one",
        image,
        np.zeros(1, dtype=np.int64),
        classification(image.shape[1:], 2),
        1.0,
        (0.0,),
        (1.0,),
    )
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
            network = build(peer.model, DATA.task, np.random.default_rng(0))
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
    build_head = {
        "ffl": group_heads.Fusion,
        "one": group_heads.Gate,
        "okddip": group_heads.Attention,
    }[rule]
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
        network = build(peer.model, DATA.task, np.random.default_rng(0))
        load_parameters(network, snapshot.parameters)
        network.eval()
        with Taps(network, [last_map(network, DATA.task)]) as taps:
            logits.append(network(IMAGES))
            features.append(take_map(taps).mean((2, 3), keepdim=True))
    if rule == "okddip":  # the leader's own
        return logits[-1]
    kind = {"ffl": group_heads.Fusion, "one": group_heads.Gate}[rule]
    head = kind([(m.shape[1], 1, 1) for m in features], DATA.task.num_classes).eval()
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
