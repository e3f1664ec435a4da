"""The conformance kit: what ships passes; seeded classics, and odd plug-ins, are told by a line."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from clients import data, models
from clients.messages.fields import class_counts, class_means, features
from clients.partition import iid
from clients.population import conditions, views
from sim.analysis.probes import robustness
from strategies.conformance.checks import verdicts
from strategies.conformance.command import main
from strategies.conformance.points import POINTS
from tests.federations import trainer
from tests.places import CONF


def shipped(kind: str, section: str = "strategy") -> dict[str, Any]:
    return {
        path.stem: instantiate(OmegaConf.load(path))
        for path in sorted((CONF / section / kind).glob("*.yaml"))
        if path.stem not in ("none", "labels")  # they say null
    }


def functions(rules: dict[str, Any]) -> dict[str, Any]:
    return {name: rule for name, rule in rules.items() if callable(rule)}


CHECKS = {point.kind: point.checks for point in POINTS}
SHIPPED: dict[str, dict[str, Any]] = {
    "scorer": shipped("scorer"),
    "combiner": shipped("combiner"),
    "loss": functions(shipped("loss")),
    "rule": {name: rule for name, rule in shipped("rule").items() if name in ("dml", "fml")},
    "trainer": {"sgd": trainer()},
    "view": {each.__name__: each for each in (views.flipped, views.shifted, views.rotated,
                                              views.occluded, views.low_resolution)},
    "condition": {
        "permuted": partial(conditions.permuted_labels, clients=[1]),
        "symmetric": partial(conditions.symmetric_noise, share=0.4),
    },
    "field": {"features": features(), "means": class_means(), "counts": class_counts()},
    "objective": shipped("objective", "clients"),
    "data": {name: getattr(data, name) for name in ("blobs", "digits", "diabetes", "mnist")},
    "confidence": functions(shipped("discriminator")),
    "codec": shipped("codec", "clients"),
    "selection": shipped("selection"),
    "shape": shipped("shape", "clients"),
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
