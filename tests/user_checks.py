"""Small checks of what people of the field reported elsewhere; `user_cases.py` says of which."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping as Private
from flwr.serverapp.strategy import FedAvg
from torch import nn

from clients import data
from clients.handlers.weight_faults import fault_in_loss
from clients.models.discriminator import DiscriminatorRecipe
from clients.population.rehearsal import rehearse_learning, rehearse_network
from clients.training.loop import train
from clients.training.losses import cross_entropy
from conf.command_line_errors import explain
from conf.schema import check_targets
from strategies.server.requirements import require_enough, require_features
from strategies.teaching.proxy_split import ProxySplit
from tests.composing import composed
from tests.federations import tiny_clients
from tests.quick_runs import federated

BLOBS, _ = data.blobs(num_examples=40, num_classes=4)


def a_missing_loss_is_told_with_what_there_is(tmp: Path) -> None:
    asked = Message(RecordDict(), dst_node_id=1 << 40, message_type="train")
    said = RecordDict({"metrics": MetricRecord({"num-examples": 3, "train-loss": 0.5})})
    told = fault_in_loss(asked, Message(said, reply_to=asked), key="train_loss")
    assert told == (
        "no metric 'train_loss', by whose powers replies are weighed; it has num-examples, "
        "train-loss"
    )


def too_few_clients_are_told_before_anybody_waits(tmp: Path) -> None:
    few: dict[str, Any] = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}
    require_enough(FedAvg(**few), 1)
    require_enough(FedAvg(**few | {"min_evaluate_nodes": 9}, fraction_evaluate=0.0), 1)
    for strategy, key in (
        (FedAvg(), "strategy.min_train_nodes=2"),
        (FedAvg(**few | {"min_available_nodes": 20}), "strategy.min_available_nodes=20"),
        (Private(FedAvg(), 0.0, 1.0, 1), "strategy.strategy.min_train_nodes=2"),
    ):
        with pytest.raises(ValueError, match=rf"^{key}: it would wait for more .*num_clients=1; "):
            require_enough(strategy, 1)


def one_example_and_batch_norm(tmp: Path) -> None:
    """Clients 0 and 1 have one example each: they fail by name, the others are averaged."""
    rng, labels = np.random.default_rng(0), np.arange(100) % 4
    images = rng.normal(size=(100, 1, 4, 4)).astype("f4")
    np.savez(tmp / "d.npz", images=images, labels=labels, test_images=images, test_labels=labels)
    owned = {0: [0], 1: [1], 2: [*range(2, 30)], 3: [*range(30, 60)]}
    (tmp / "p.json").write_text(json.dumps(owned))
    (tmp / "cfg/student").mkdir(parents=True)
    (tmp / "cfg/case_net.py").write_text(
        "from torch import nn\n\ndef net(num_classes):\n    return nn.Sequential(nn.Flatten(), "
        "nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, num_classes))\n"
    )
    net = "_target_: case_net.net\n_partial_: true\n"
    (tmp / "cfg/student/own.yaml").write_text(net)
    words = ["data=npz", f"data.source.path={tmp / 'd.npz'}", "data.proxy_share=0.4"]
    words += ["partition=from_file", f"partition.path={tmp / 'p.json'}", "clients.num_clients=4"]
    words += ["clients=same", "student=own", "strategy=averaging", "clients.training.epochs=1"]
    federated(tmp / "run", "--config-dir", str(tmp / "cfg"), *words)
    table = pq.read_table(tmp / "run/clients.parquet").to_pydict()
    failed = {c for c, why in zip(table["client"], table["failure"], strict=True) if why}
    assert failed == {0, 1}


def told(words: dict[str, str]) -> Callable[[Path], None]:
    """Check what is said of words that other projects have."""

    def check(tmp: Path) -> None:
        for word, ours in words.items():
            assert (
                explain([word], []) == f"unknown key '{word.split('=')[0]}'; here it is {ours}=..."
            )

    return check


CLASSES = np.arange(40) % 4
LABELS: dict[str, tuple[Any, str]] = {
    "strings": (np.array(["cat", "dog", "eel", "fox"])[CLASSES], ""),
    "from 1": (CLASSES + 1, ""),
    "one-hot": (np.eye(4, dtype=int)[CLASSES], "integers or texts [N], found int64 [40, 4]"),
    "a column": (CLASSES[:, None], "integers or texts [N], found int64 [40, 1]"),
    "floats": (CLASSES * 1.0, "integers or texts [N], found float64"),
    "gaps": (np.array([0, 7, 1000, 10**9])[CLASSES], ""),
    "negative": (CLASSES - 1, "go down to -1, expected none below 0"),
    "bool": (CLASSES > 1, "integers or texts [N], found bool"),
    "uint8": (CLASSES.astype("u1"), ""),
    "uint64": (CLASSES.astype("u8") + np.uint64(2**63), ""),
    "objects": (np.array(["cat", None], dtype=object)[CLASSES % 2], "holds Python objects"),
    "fewer": (CLASSES[:-1], "one label for each input, found 39 labels for 40 inputs"),
}


def labels_as_people_have_them(tmp: Path) -> None:
    images = np.random.default_rng(0).normal(size=(40, 1, 5, 5)).astype("f4")
    for name, (labels, refused) in LABELS.items():
        np.savez(path := tmp / f"{name}.npz", images=images, labels=labels)
        if not refused:
            assert data.npz(str(path))[0].task.num_classes == 4, name
            continue
        with pytest.raises(ValueError, match=r".+") as caught:
            data.npz(str(path))
        assert refused in str(caught.value), name
        assert str(path) in str(caught.value), name
    np.savez(tmp / "keras.npz", x_train=images, y_train=CLASSES)
    with pytest.raises(
        ValueError, match=r"expected an array images, found \['x_train', 'y_train'\]"
    ):
        data.npz(str(tmp / "keras.npz"))


class Tied(nn.Module):
    """One weight at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 16)
        self.two.weight, self.last = self.one.weight, nn.Linear(16, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.two(self.one(images.flatten(1))))


class Buffers(nn.Linear):
    """Whole numbers, truth values, nothing, and what is not saved."""

    def __init__(self) -> None:
        super().__init__(16, 4)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("on", torch.tensor(True))
        self.register_buffer("hidden", torch.ones(3), persistent=False)
        self.register_buffer("none", None)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        return super().forward(images.flatten(1))


def no_linear_layer() -> nn.Module:
    head = nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), *head)


def weight_norm(num_classes: int) -> nn.Module:
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(16, num_classes))
    return nn.Sequential(nn.Flatten(), normed)


def lazy(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(2, 3), nn.Flatten(), nn.LazyLinear(num_classes))


def networks_as_people_bring_them(tmp: Path) -> None:
    """These answer and learn; those that cannot are in test_rehearsal.py."""
    how = partial(train, epochs=1, batch_size=2, optimizer=partial(torch.optim.SGD, lr=0.1))
    for model in (Tied, Buffers, no_linear_layer, weight_norm, lazy):
        network = rehearse_network("own", model, BLOBS)
        rehearse_learning(how, network, BLOBS, torch.tensor([0, 3]), cross_entropy, "own")
    clients = tiny_clients(models=dict.fromkeys(("linear", "mlp"), no_linear_layer))
    assert DiscriminatorRecipe().inputs == "features"  # unless something else is said
    with pytest.raises(ValueError, match=r"'linear': .* calls no torch.nn.Linear.*=pixels$"):
        require_features(clients)


POSTPONED = """
from __future__ import annotations
from typing import TYPE_CHECKING
from torch import nn
if TYPE_CHECKING:
    from collections.abc import Sequence

def net(num_classes: int, widths: Sequence[int] = (8,)) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
"""


def a_file_for_type_checkers(tmp: Path) -> None:
    (tmp / "case_postponed.py").write_text(POSTPONED)
    words = ["student._target_=case_postponed.net", "~student.channels", "~student.hidden"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp))
        check_targets(composed(*words, "+student.widths=[4]"))
        del sys.modules["case_postponed"]


def few_proxy_examples_are_told_with_their_keys(tmp: Path) -> None:
    none = data.subset(BLOBS, np.arange(0))
    with pytest.raises(
        ValueError, match="of 0 proxy .*: data.proxy_share and data.proxy_limit say"
    ):
        ProxySplit(proxy=none, seed=0)
    split = ProxySplit(proxy=data.subset(BLOBS, np.arange(2)), seed=0)
    with pytest.raises(ValueError, match="of 2 proxy .* no negatives .*data.proxy_share and"):
        split.require_negatives()
