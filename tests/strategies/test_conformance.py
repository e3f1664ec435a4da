"""The conformance kit: what ships passes; seeded classics, and odd plug-ins, are told by a line."""

import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from clients import models
from clients.messages.field import Field
from clients.messages.fields import class_counts, class_means, features
from clients.mutual.terms import Terms
from clients.partition import iid
from clients.population import conditions, views
from clients.training.losses import kl
from sim.analysis.probes import robustness
from strategies.conformance.checks import verdicts
from strategies.conformance.command import main
from strategies.conformance.points import POINTS
from tests.federations import trainer
from tests.places import CONF


def shipped(kind: str) -> dict[str, Any]:
    return {
        path.stem: instantiate(OmegaConf.load(path))
        for path in sorted((CONF / "strategy" / kind).glob("*.yaml"))
    }


def soft_only(rules: dict[str, Any]) -> dict[str, Any]:
    return {name: rule for name, rule in rules.items() if callable(rule)}


CHECKS = {point.kind: point.checks for point in POINTS}
SHIPPED: dict[str, dict[str, Any]] = {
    "scorer": shipped("scorer"),
    "combiner": shipped("combiner"),
    "loss": soft_only(shipped("loss")),
    "rule": {name: rule for name, rule in shipped("rule").items() if name in ("dml", "fml")},
    "trainer": {"sgd": trainer()},
    "view": {each.__name__: each for each in (views.flipped, views.shifted, views.rotated,
                                              views.occluded, views.low_resolution)},
    "condition": {
        "permuted": partial(conditions.permuted_labels, clients=[1]),
        "symmetric": partial(conditions.symmetric_noise, share=0.4),
    },
    "field": {"features": features(), "means": class_means(), "counts": class_counts()},
    "probe": {each.__name__: each for each in (robustness.fgsm, robustness.pgd,
                                               robustness.input_gradient_norm)},
    "partition": {"iid": iid},
    "model": {name: getattr(models, name) for name in ("logistic_regression", "mlp", "lenet5")},
}  # fmt: skip
ALL = [(kind, name) for kind, plugins in SHIPPED.items() for name in plugins]


def test_every_kind_has_something_that_passes() -> None:
    assert SHIPPED.keys() == CHECKS.keys()
    assert all(SHIPPED.values())


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_what_ships_is_as_it_ought_to_be(kind: str, name: str) -> None:
    assert [str(v) for v in verdicts(SHIPPED[kind][name], CHECKS[kind]) if v.fault] == []


# --- five classics, and others ---


def averaged(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return kl(logits, targets, temperature) / logits.shape[-1]


def attached(shared: Any, targets: Tensor, epoch: int, head: Any) -> Terms:
    losses = []
    for k, own in enumerate(shared.logits):
        other = shared.logits[k - 1].softmax(-1)  # not detached
        losses.append(kl(own, other, 1.0).mean())
    return Terms(losses)


def tenth(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """CPFL's "uniform" weight of 1/10, of classes and not of cohorts."""
    return (logits / temperature).softmax(-1).sum(0) / 10


def in_train_mode(asked: Any) -> Tensor:
    inputs = torch.from_numpy(np.ascontiguousarray(asked.inputs))
    with torch.no_grad():
        found: Tensor = asked.network()(inputs).logsumexp(-1)
    return found


class Stale:
    """Asks about the inputs of its first call for ever."""

    def __init__(self) -> None:
        self.said: Any = None

    def __call__(self, asked: Any) -> Any:
        self.said = asked.logits.sum(-1) if self.said is None else self.said
        return self.said


def by_place(teachers: Any) -> Tensor:
    return torch.arange(1.0, 1 + len(teachers.logits))[:, None].expand(teachers.mask.shape)


def meddling(teachers: Any) -> Tensor:
    scores: Tensor = teachers.logits.mul_(2).softmax(-1).amax(-1)
    return scores


def from_the_global(network: Any, *what: Any, **numbers: Any) -> list[float]:
    for parameter in network.parameters():
        parameter.data += torch.from_numpy(np.random.normal(size=parameter.shape)).float()
    return [0.0]


@pytest.mark.parametrize(
    ("kind", "plugin", "said"),
    [
        ("loss", averaged, "summed, not averaged, over the classes: it is KL divided by the num"),
        ("rule", attached, "only a target no gradient: peer 0's loss moves peer 2: detach"),
        ("combiner", tenth, r"sum to 1.*: a row sums to 0\.4, expected 1"),
        ("field", Field(in_train_mode), "in eval mode.*: says something else"),
        ("field", Field(Stale()), "asked about now.*: its rows are those of other inputs"),
        ("scorer", by_place, "when these change places: scores stay where they were"),
        ("scorer", meddling, "leaves these as they are: "),
        ("scorer", lambda teachers: -torch.ones(teachers.mask.shape), ">= 0: gives -1"),
        ("scorer", lambda teachers: torch.ones(3), r"gives shape \(3,\), expected \(4, 12\)"),
        ("trainer", from_the_global, "the same generator.*: ends elsewhere"),
        ("trainer", lambda *what: [1.0], "in place.*: no parameter has moved"),
        ("view", lambda inputs: inputs[:1], r"gave inputs of float32 \(1, "),
        ("condition", lambda labels, *rest: labels + 5, r"labels lie in 5\.\.8, expected -1\.\.3"),
        ("probe", lambda network, x, y: {}, "numbers by name: returns nothing"),
        ("partition", lambda labels, k, rng: [np.arange(60)] * k, "120 examples have two owners"),
    ],
    ids=["averaged", "attached", "tenth", "train mode", "stale", "place", "meddling", "negative",
         "shape", "global", "nothing", "cut", "labels", "empty", "owners"],
)  # fmt: skip
def test_a_defect_is_told_by_a_line(kind: str, plugin: Any, said: str) -> None:
    lines = [str(verdict) for verdict in verdicts(plugin, CHECKS[kind])]
    assert any(line.startswith("FAIL") and re.search(said, line) for line in lines), lines


# --- the command ---


def test_the_command_says_what_is_so_and_what_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_checked.py").write_text(
        "import torch\n\n\ndef flat(teachers, *, size):\n"
        "    return torch.full(teachers.mask.shape, float(size))\n"
    )
    words = ["scorer", "my_checked.flat", "--config-dir", str(tmp_path)]
    assert main([*words, "size=2.0"]) == 0
    assert "6 of 6 as it ought to be" in capsys.readouterr().out
    assert main([*words, "size=-1"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  Gives scores [K, N], finite and >= 0: gives -1" in out
    assert main([*words[:1], "my_checked.round", *words[2:]]) == 1
    assert (
        "error: my_checked.round: module 'my_checked' has no attribute" in capsys.readouterr().err
    )
    assert main(["scorer", "nowhere.at.all"]) == 1
    assert "error: nowhere.at.all: No module named 'nowhere'" in capsys.readouterr().err
    assert main([*words, "size"]) == 1
    assert "'size': expected NAME=VALUE" in capsys.readouterr().err
