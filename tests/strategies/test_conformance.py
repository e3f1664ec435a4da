"""The conformance kit: what ships passes; seeded classics, and odd plug-ins, are told by a line."""

import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clients.handlers.parameters import PARAMETERS
from conf.building import instantiate
from conf.errors import ConfigError
from conf.plugin_yaml import plugin_in
from stillhouse.engine_points import engine_points
from strategies.conformance.checks import verdicts
from strategies.conformance.command import main
from strategies.conformance.points import POINTS
from tests.composing import composed
from tests.example_runs import EXAMPLES
from tests.places import CONF
from tests.quick_runs import modules_of
from tests.shipped_topologies import SHIPPED as SHIPPED_GRAPHS
from tests.shipped_topologies import chosen

FOLDERS: dict[str, tuple[str, ...]] = {
    "scorer": ("strategy/scorer",),
    "combiner": ("strategy/combiner",),
    "loss": ("strategy/loss",),
    "rule": ("strategy/rule",),
    "trainer": ("clients/training", "strategy/distil"),
    "view": ("clients/view",),
    "condition": ("clients/condition",),
    "field": ("strategy/ask",),
    "objective": ("clients/objective",),
    "data": ("data",),
    "proxy_condition": ("proxy_condition",),
    "profile": ("clients/profile",),
    "confidence": ("strategy/discriminator",),
    "codec": ("clients/codec",),
    "selection": ("strategy/selection",),
    "shape": ("clients/shape",),
    "mixing": ("topology/mixing",),
    "partition": ("partition",),
    "model": ("student",),
}
"""Where in conf/ the files of a kind are."""

SAY_NULL = ("none", "labels")

FILES, HEAD, TOKENS = "wants what only the user can name", "wants a head", "is of tokens"
NOT_HELD = {
    **{("data", name): FILES for name in (
        "cifar10", "cifar100", "cinic10", "emnist", "fashion_mnist", "femnist", "hugging_face",
        "image_folder", "kmnist", "mnist", "npz", "shakespeare", "stl10", "svhn", "table")},
    **{("partition", name): FILES for name in ("flower", "from_file")},
    ("topology", "from_file"): FILES,
    **{("rule", name): HEAD for name in ("ffl", "okddip", "one")},
    ("combiner", "true_labels"): "combines nothing: targets are the labels",
    ("trainer", "best_on_validation"): "keeps what was best, of a made-up worth the first",
    ("loss", "consensus_and_diversity"): "is an objective, which looks at what teachers say",
    **{("confidence", name): "is a recipe, no function" for name in ("features", "pixels")},
    **{("model", name): TOKENS for name in ("bag_of_embeddings", "transformer")},
    ("model", "fcn"): "answers for each pixel",
    ("round_probe", "parameter_drift"): "wants parameters, and a made-up round has answers only",
    ("round_probe", "cka"): "wants features, and a made-up round has logits only",
}  # fmt: skip
"""Of what is shipped what no check can be asked of, and why."""

COUNTS = {
    "scorer": 14, "combiner": 7, "loss": 4, "rule": 6, "trainer": 5, "view": 5, "condition": 6,
    "field": 3, "objective": 2, "data": 18, "proxy_condition": 3, "profile": 3, "confidence": 6,
    "codec": 7, "selection": 4, "shape": 2, "mixing": 4, "partition": 15, "model": 16,
    "topology": 15, "round_probe": 9, "probe": 5,
}  # fmt: skip
"""How many there are, held or not: a new file is a new number here."""

MORE = {"only_classes": {"classes": [0, 2]}, "best_on_validation": {"steps": 20}}
"""What a file leaves to be said, or says for more patience than is here."""


def files_of(kind: str) -> dict[str, Path]:
    """Find what is shipped, by name; of two of one name the later has its folder before it."""
    found: dict[str, Path] = {}
    for folder in FOLDERS[kind]:
        for path in sorted((CONF / folder).glob("*.yaml")):
            if path.stem not in SAY_NULL:
                name = path.stem if path.stem not in found else f"{path.parent.name}/{path.stem}"
                found[name] = path
    return found


def built(kind: str, path: Path) -> Any:
    """Build what a file says."""
    node = OmegaConf.merge(OmegaConf.load(path), MORE.get(path.stem, {}))
    if kind == "trainer" and "defaults" in node:  # its optimiser is chosen
        node = composed(f"clients/training={path.stem}").clients.training
    if kind == "data":
        node = node.source
    made = instantiate(node)
    return made[path.stem] if kind == "field" else made


def probes() -> dict[str, tuple[str, Path]]:
    """Find the probes of all files of conf/probes: their kind, and which file has them."""
    found = {}
    for path in sorted((CONF / "probes").glob("*.yaml")):
        for name, node in OmegaConf.load(path).items():
            if "_target_" in node:
                asks = node["_target_"].endswith(".Ask")
                found[str(name)] = "probe" if asks else "round_probe", path
    return found


CHECKS = {point.kind: point.checks for point in (*POINTS, *engine_points())}
PROBES = probes()
HANDLERS = {each.kind: each for each in PARAMETERS}  # of no folder
SHIPPED: dict[str, list[str]] = {
    **{kind: [*files_of(kind)] for kind in FOLDERS},
    "handler": [*HANDLERS],
    "topology": SHIPPED_GRAPHS,
    **{kind: [name for name, (of, _) in PROBES.items() if of == kind]
       for kind in ("probe", "round_probe")},
}  # fmt: skip
ALL = [(kind, name) for kind, names in SHIPPED.items() for name in names
       if (kind, name) not in NOT_HELD]  # fmt: skip


@cache
def made(kind: str, name: str) -> Any:
    """Build what is shipped under a name."""
    if kind in FOLDERS:
        return built(kind, files_of(kind)[name])
    if kind == "handler":
        return HANDLERS[name]
    if kind == "topology":
        return chosen(name).keywords["graph"]
    config = composed(f"probes={PROBES[name][1].stem}", "tracking.figures_every=1")
    return instantiate(config.probes[name])


STRATEGIES = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))


def test_every_kind_has_something_that_passes() -> None:
    assert {*SHIPPED, "strategy"} == CHECKS.keys()
    assert {kind for kind, _ in ALL} == {*SHIPPED}


def test_nothing_that_is_shipped_is_left_out() -> None:
    assert {kind: len(names) for kind, names in SHIPPED.items() if kind != "handler"} == COUNTS


@pytest.mark.parametrize(("kind", "name"), NOT_HELD)
def test_what_is_not_held_cannot_be(kind: str, name: str) -> None:
    try:
        plugin = made(kind, name)
    except (OmegaConfBaseException, ConfigError):  # a path that only the user can say
        assert NOT_HELD[kind, name] == FILES
    else:
        assert any(verdict.fault for verdict in verdicts(plugin, CHECKS[kind]))


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_what_ships_is_as_it_ought_to_be(kind: str, name: str) -> None:
    assert [str(v) for v in verdicts(made(kind, name), CHECKS[kind]) if v.fault] == []


SHORT = {
    "cpfl": ["strategy.first_rounds=1"],
    **{name: ["strategy.own=[features.*]"] for name in ("fedbn", "silobn")},
    "feddf": ["strategy.distil.steps=20"],
    "fedgkt": ["strategy.server._target_=clients.models.mlp", "~strategy.server.norm"],
    **{
        name: [
            f"strategy.{key}"
            for key in (
                "epochs=2",
                "synthesis.steps=2",
                "synthesis.batch_size=8",
                "synthesis.generator.width=2",
            )
        ]
        for name in ("dense", "coboosting")
    },
}
"""What suits the kit's networks, which have no batch norm and no maps, and its patience."""


ONE_OF_EACH = ("dlad", "fedavg", "dml", "gossip", "dpsgd", "defkt", "fd", "fedgkt", "dense")
"""One of each protocol; the others with the slow tests."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in ONE_OF_EACH else pytest.mark.slow) for n in STRATEGIES],
)
def test_every_shipped_strategy_is_as_it_ought_to_be(name: str) -> None:
    strategy = instantiate(composed(f"strategy={name}", *SHORT.get(name, ())).strategy)
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
    assert "8 of 8 as it ought to be" in capsys.readouterr().out
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
    scorer = "| scorer | `strategy.scorer` | teachers | ids, phase, calibration, labels | scores"
    assert any(line.startswith(scorer) for line in lines)
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
