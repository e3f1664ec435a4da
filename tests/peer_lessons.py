"""Lessons for small groups of peers."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.data import Dataset, blobs
from clients.models import cnn, lenet5, logistic_regression, mlp
from clients.models.factory import build, parameters_of
from clients.mutual import group_heads, rules
from clients.mutual.group import GroupLesson, GroupState, Head, Peer, Snapshot

DATA: Dataset = blobs(num_examples=200, seed=3)[0]
SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True)
LENET, MLP, LINEAR = lenet5, partial(mlp, hidden=(16,)), logistic_regression
SMALL_CNN = partial(cnn, channels=(4, 8), hidden=16)
FFL = partial(rules.ffl, ramp_epochs=2)


def one_hot(ids: Any) -> Tensor:
    return nn.functional.one_hot(torch.tensor(DATA.labels[ids]), DATA.task.num_classes).float()


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
        return Snapshot(parameters_of(build(peer.model, DATA.task, rng)))

    return GroupState(tuple(fresh(k, peer) for k, peer in enumerate(task.peers)))


def fusing(*models: Any, **changes: Any) -> GroupLesson:
    return lesson(*models, rule=FFL, head=Head(group_heads.Fusion, SGD), **changes)


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
