"""The conformance kit: what ships passes; seeded classics, and odd plug-ins, are told by a line."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from clients import data, models
from clients.handlers.parameters import PARAMETERS
from clients.messages.fields import class_counts, class_means, features
from clients.partition import iid
from clients.population import conditions, views
from conf.building import instantiate
from conf.plugin_file import plugin_in
from run import engine_points
from sim.analysis import probes
from sim.analysis.probes import personal, robustness
from sim.topology import mixing
from strategies.conformance.checks import verdicts
from strategies.conformance.command import main
from strategies.conformance.points import POINTS
from tests.composing import composed
from tests.example_runs import EXAMPLES
from tests.federations import trainer
from tests.places import CONF
from tests.quick_runs import modules_of
from tests.shipped_topologies import SHIPPED as SHIPPED_GRAPHS
from tests.shipped_topologies import chosen


def shipped(kind: str, section: str = "strategy") -> dict[str, Any]:
    return {
        path.stem: instantiate(OmegaConf.load(path))
        for path in sorted((CONF / section / kind).glob("*.yaml"))
        if path.stem not in ("none", "labels")  # they say null
    }


def functions(rules: dict[str, Any]) -> dict[str, Any]:
    return {name: rule for name, rule in rules.items() if callable(rule)}


CHECKS = {point.kind: point.checks for point in (*POINTS, *engine_points())}
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
    "data": {name: getattr(data, name) for name in ("blobs", "digits", "diabetes")},
    "proxy_condition": {
        path.stem: instantiate(OmegaConf.merge(OmegaConf.load(path), more))
        for path in sorted((CONF / "proxy_condition").glob("*.yaml"))
        for more in [{"classes": [0, 2]} if path.stem == "only_classes" else {}]
    },
    "profile": shipped("profile", "clients"),
    "round_probe": {each.__name__: each for each in (probes.trust, probes.output_drift,
                                                     probes.calibration,
                                          probes.recall_spread, probes.teacher_audit)},
    "confidence": functions(shipped("discriminator")),
    "codec": shipped("codec", "clients"),
    "selection": shipped("selection"),
    "shape": shipped("shape", "clients"),
    "handler": {each.kind: each for each in PARAMETERS},
    "topology": {name: chosen(name).keywords["graph"] for name in SHIPPED_GRAPHS
                 if name != "from_file"},
    "mixing": {name: getattr(mixing, name)
               for name in ("metropolis_hastings", "uniform", "push_sum", "replace")},
    "probe": {each.__name__: each for each in (robustness.fgsm, robustness.pgd,
                                               robustness.input_gradient_norm,
                                               personal.own_accuracy)},
    "partition": {"iid": iid},
    "model": {name: getattr(models, name) for name in ("logistic_regression", "mlp", "lenet5")},
}  # fmt: skip
ALL = [(kind, name) for kind, plugins in SHIPPED.items() for name in plugins]


STRATEGIES = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))


def test_every_kind_has_something_that_passes() -> None:
    assert {*SHIPPED, "strategy"} == CHECKS.keys()
    assert all(SHIPPED.values())


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_what_ships_is_as_it_ought_to_be(kind: str, name: str) -> None:
    assert [str(v) for v in verdicts(SHIPPED[kind][name], CHECKS[kind]) if v.fault] == []


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_shipped_strategy_is_as_it_ought_to_be(name: str) -> None:
    short = ["strategy.first_rounds=1"] if name == "cpfl" else []
    strategy = instantiate(composed(f"strategy={name}", *short).strategy)
    assert [str(v) for v in verdicts(strategy, CHECKS["strategy"]) if v.fault] == []


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


def test_without_words_it_lists_the_points(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    scorer = (
        "| scorer | `strategy.scorer` | teachers | ids, phase, calibration | scores [K, N] >= 0 |"
    )
    assert scorer in lines
    assert {line.split()[1] for line in lines[2:]} == {point.kind for point in POINTS}


@pytest.mark.parametrize("name", ["noised_counts", "moon"])
def test_a_file_that_leans_on_others_is_composed(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One has defaults, one the run's seed."""
    folder = str(EXAMPLES / name)
    with modules_of(folder):
        words = ["strategy", f"strategy/{name}.yaml", "--config-dir", folder]
        status = main(words, engine_points, plugin_in)
    assert status == 0, capsys.readouterr()
