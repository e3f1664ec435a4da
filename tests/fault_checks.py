"""Small checks of what strangers and plug-ins do wrong; `fault_cases.py` says of which."""

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clients import data
from clients.data.pickles import read_pickled_dict
from clients.population.rehearsal import rehearse_learning, rehearse_network
from clients.training.loop import train
from clients.training.losses import cross_entropy
from tests.federations import distillation as distilling
from tests.federations import inline, run_ours, simulated, tiny_clients

BLOBS, _ = data.blobs(num_examples=40, num_classes=4)


class Odd(nn.Module):
    """A linear network that answers something else."""

    def __init__(self, change: Any, training: bool = False) -> None:
        super().__init__()
        self.linear, self.change, self.when = nn.Linear(16, 4), change, training

    def forward(self, images: torch.Tensor) -> Any:
        logits = self.linear(images.flatten(1))
        return self.change(logits) if self.training == self.when else logits


def raised(logits: torch.Tensor) -> torch.Tensor:
    if len(logits) > 1:
        raise RuntimeError("no luck")
    return logits


ODD: tuple[tuple[Any, bool, str], ...] = (
    (lambda z: z * float("nan"), False, r"an array of shape \(2, 4\): expected \(2, 4\), finite"),
    (lambda z: z * 1e38 * 1e38, False, r"expected \(2, 4\), finite"),
    (lambda z: z[:, :-1], False, r"an array of shape \(2, 3\): expected \(2, 4\)"),
    (raised, True, "'own' cannot learn from two examples: RuntimeError: no luck"),
)


def tried(change: Any, training: bool) -> None:
    how = partial(train, epochs=1, batch_size=4, optimizer=partial(torch.optim.SGD, lr=0.1))
    network = rehearse_network("own", lambda: Odd(change, training), BLOBS)
    rehearse_learning(how, network, BLOBS, torch.tensor([0, 3]), cross_entropy, "'own'")


def odd_networks_are_refused_before_anybody_trains(tmp: Path) -> None:
    for change, training, told in ODD:
        with pytest.raises(ValueError, match=told):
            tried(change, training)
    tried(lambda z: z, True)


def huge_answers_are_their_clients_failure(tmp: Path) -> None:
    """Beyond what is screened; whoever answers as far as that is not weighed, the others are."""
    huge = partial(Odd, lambda z: z.sign() * 1e31)
    kinds: dict[str, Any] = {"models": {"odd": huge, "linear": partial(Odd, lambda z: z)}}
    clients = tiny_clients(4, architectures=["odd", "linear", "linear", "linear"], **kinds)
    run = run_ours(inline(simulated(clients)), clients, distilling(clients), quorum=0.3)
    failed = {each.client_id for each in run.reports[0].exchanges if each.failure}
    assert failed == {0}
    assert all(np.isfinite(value).all() for value in run.parameters.values())


class Forged:
    """A pickle of an array of objects made of raw bytes."""

    def __reduce__(self) -> tuple[Any, ...]:
        make = np.zeros(0).__reduce__()[0]
        state = (1, (4,), np.dtype("O"), False, b"A" * 32)
        return make, (np.ndarray, (0,), b"b"), state


def bytes_do_not_become_objects(tmp: Path) -> None:
    path = tmp / "data_batch_1"
    path.write_bytes(pickle.dumps({"labels": [1], "data": Forged()}))
    with pytest.raises(ValueError, match="corrupt pickle, expected a CIFAR batch"):
        read_pickled_dict(path)


def masks_are_no_classes(tmp: Path) -> None:
    """Labels of pixels where a class of each image is wanted."""
    inputs = np.zeros((3, 1, 4, 4), np.float32)
    masks = np.zeros((3, 4, 4), np.int64)
    task = data.classification((1, 4, 4), 2)
    with pytest.raises(ValueError, match="labels"):
        data.Dataset("masks", inputs, masks, task, 1.0, (0.0,), (1.0,))
