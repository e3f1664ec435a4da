"""A run folder from anybody: what it may name where, what it may hold, what it cannot decide."""

import ast
import inspect
import os
import re
import socket
from collections.abc import Callable
from contextlib import chdir
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.errors import ConfigError
from conf.trust import FLOWER, PATHS, require_plain_files, require_trusted, role_of, shipped
from sim.checkpoint.strategy_state import KEPT
from tests.places import CONF, MODULES, ROOT
from tests.saved_configs import resumed, saved

MODEL, OPTIMIZER = ["student", "clients"], ["clients/training", "clients/messenger", "strategy/"]
FROM = {
    "sim": ["sim"],
    "student": MODEL,
    "clients.architectures.any.model": MODEL,
    "clients.training": ["clients/training"],
    "clients.training.optimizer": OPTIMIZER,
    "clients.messenger": ["clients/messenger"],
    "clients.codec": ["clients/codec", "experiment"],
    "clients.codec.codecs.1": ["clients/codec", "experiment"],
    "clients.codec_down": ["clients/codec", "experiment"],
    "clients.condition": ["clients/condition"],
    "clients.objective": ["clients/objective"],
    "clients.profile": ["clients/profile"],
    "clients.view": ["clients/view"],
    "clients.shape": ["clients/shape"],
    "clients.shape.apply": ["clients/shape"],
    "data.source": ["data", "proxy"],
    "data.proxy_source": ["data", "proxy"],
    "data.proxy_condition": ["proxy_condition"],
    "partition": ["partition"],
    "partition.of.of": ["partition"],
    "strategy": ["strategy"],
    "strategy.second": ["strategy"],
    "strategy.scorer": ["strategy/scorer"],
    "strategy.second.scorer": ["strategy/scorer"],
    "strategy.ask.any.codec": ["clients/codec", "experiment"],
    "strategy.distil": ["strategy/distil"],
    "strategy.selection": ["strategy/selection"],
    "strategy.ensemble": ["strategy"],
    "strategy.ensemble.answers": ["clients/codec", "experiment"],
    "strategy.second.proxy_split": ["strategy"],
    "strategy.teaching": ["strategy"],
    "strategy.rule": ["strategy/rule", "clients/messenger"],
    "topology": ["topology"],
    "topology.graph": ["topology"],
    "topology.graph.rules.1": ["topology"],
    "topology.mixing": ["topology/mixing"],
    "availability": ["availability"],
    "probes.any": ["probes"],
    "probes.any.probe": ["probes"],
    "probes.any.of": ["probes"],
    "probes.any.inputs": ["data", "proxy"],
}
"""Where the shipped config says what may stand at a place."""
NOWHERE = (
    "", "sim.path", "sim.seed", "sim.address", "data", "data.root", "data.source.path", "rounds",
    "clients", "clients.architectures", "clients.architectures.any", "clients.training.epochs",
    "clients.architectures.any.share", "partition.path", "strategy.distil.loss", "student.hidden",
    "strategy.loss.loss", "strategy.teaching.taps.any", "strategy.other", "strategy.optimizer",
    "topology.graph.path", "probes", "topology.graph.rules", "probes.any.rounds",
    "tracking.watch.0", "resume_targets.0", "hydra",
    "student.student", "xstudent", "sim.sim", "strategy.first.sim", "clients.architectures.a:model",
)  # fmt: skip


def names_of_ours() -> set[str]:
    """Everything public that a module of ours has, imported names included."""
    found = set()
    for module in MODULES:
        file = (ROOT / module.replace(".", "/")).with_suffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found |= {f"{module}.{alias.asname or alias.name}" for alias in node.names}
            elif isinstance(node, ast.ClassDef | ast.FunctionDef):
                found.add(f"{module}.{node.name}")
    found = {name.replace(".__init__", "") for name in found}
    return {name for name in found if "._" not in name}


def is_trusted(place: str, target: Any) -> bool:
    def fails(partial: bool) -> bool:
        try:
            require_trusted(place, {"_target_": target, "_partial_": partial}, ["my.own"])
        except ConfigError:
            return True
        return False

    return not (fails(True) and fails(False))


def test_of_ours_only_what_the_shipped_config_has_at_a_place_is_trusted_there() -> None:
    every = names_of_ours()
    assert len(every) > 1500
    assert {
        "sim.checkpoint.manifest.write_manifest",
        "sim.tracking.run_folder.append_line",
        "clients.data.npz",
    } <= every
    for place, folders in FROM.items():
        files = [p for folder in folders for p in (CONF / folder).rglob("*.yaml")]
        text = "\n".join(path.read_text() for path in files)
        there = set(re.findall(r"_target_: ([\w.]+)", text))
        trusted = {name for name in every if is_trusted(place, name)}
        assert trusted <= there, place
        assert trusted or "optimizer" in place
    for place in NOWHERE:
        assert not [name for name in every if is_trusted(place, name)], place


def test_what_the_shipped_config_has_is_trusted_and_a_role_is_no_other() -> None:
    assert is_trusted("sim", "sim.workers.pools.InlinePool")
    assert not is_trusted("sim", "strategies.aggregation.scorers.uniform")
    assert is_trusted("strategy.second.scorer", "strategies.aggregation.scorers.uniform")
    assert not is_trusted("strategy.loss", "strategies.aggregation.scorers.uniform")
    assert is_trusted("topology.graph.rules.3", "sim.topology.graphs.torus")
    assert is_trusted("anywhere.at.all", "my.own")
    assert role_of("strategy.first.second.distil.optimizer") == ".optimizer"


@pytest.mark.parametrize(
    "place", ["clients.training", "strategy.distil", "strategy.second.distil", "strategy.teaching"]
)
def test_torchs_schedulers_are_trusted_where_there_are_any(place: str) -> None:
    for name in ("StepLR", "CosineAnnealingLR", "LinearLR"):
        assert is_trusted(f"{place}.scheduler", f"torch.optim.lr_scheduler.{name}")
        assert not is_trusted(f"{place}.optimizer", f"torch.optim.lr_scheduler.{name}")
    for other in ("lr_scheduler.Optimizer", "lr_scheduler.warnings", "SGD", "lr_scheduler."):
        assert not is_trusted(f"{place}.scheduler", f"torch.optim.{other}")


def test_torchs_optimizers_and_the_strategies_whose_state_is_known_are_trusted() -> None:
    kinds = {n: k for n, k in vars(torch.optim).items() if isinstance(k, type)}
    assert {"SGD", "Adagrad", "LBFGS"} <= kinds.keys()
    for place in ("clients.messenger.optimizer", "strategy.teaching.head_optimizer"):
        assert all(is_trusted(place, f"torch.optim.{name}") for name in kinds)
        for other in ("lr_scheduler.LambdaLR", "swa_utils.update_bn", "os.system", "adam", ""):
            assert not is_trusted(place, f"torch.optim.{other}")
    assert not is_trusted("strategy.scorer", "torch.optim.SGD")
    assert set(FLOWER) == {f"flwr.serverapp.strategy.{kind.__name__}" for kind in KEPT}
    assert all(is_trusted("strategy", name) for name in FLOWER)
    assert not is_trusted("strategy", "flwr.serverapp.strategy.DifferentialPrivacyServerSideFixed")
    assert not is_trusted("probes.any", FLOWER[0])


def test_every_text_that_a_shipped_target_takes_is_known() -> None:
    """A new one may be a path: then it belongs into PATHS."""
    texts = set()
    for targets in shipped().values():
        for target in targets:
            module, _, name = target.rpartition(".")
            found = inspect.signature(getattr(import_module(module), name), eval_str=True)
            takes = {p.name for p in found.parameters.values() if p.annotation in (str, str | None)}
            texts |= takes if not target.startswith("flwr.") else set()
    assert texts == {
        *PATHS, "cut", "device", "address", "inputs", "kind", "label", "layout", "owner",
        "phase", "regulariser", "tap",
    }  # fmt: skip


# --- how a target is called ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__source___args_": ["/etc/passwd"]}, "data.source._args_: expected _target_ and"),
        ({"student___convert_": "all"}, "student._convert_: expected _target_ and _partial_ only"),
        ({"strategy___recursive_": False}, "strategy._recursive_: expected _target_ and"),
        ({"tracking___args_": []}, "tracking._args_: expected beside a _target_ only"),
        ({"student___partial_": False}, "student._partial_=False: expected True"),
        ({"partition___partial_": "true"}, "partition._partial_=true: expected True"),
        ({"data__source___partial_": True}, "data.source._partial_=True: expected False"),
        ({"sim__path": {"_target_": "clients.data.npz"}}, "sim.path._target_=clients.data.npz: no"),
        ({"sim": None}, "sim: expected a node with a _target_"),
        ({"strategy": 5}, "strategy: expected a node with a _target_"),
        ({"hydra": {"searchpath": ["file:///tmp"]}}, "Key 'hydra' not in 'Config'"),
        ({"student__hidden": "\x1b[2J"}, r"'student.hidden'='\x1b[2J': expected what can be print"),
        ({"data__root": "/proc/self"}, "data.root=/proc/self: expected a file or folder on a disk"),
        ({"data__source__path": "/dev/zero"}, "data.source.path=/dev/zero: expected a file or f"),
        ({"partition__path": "~/../../dev/../dev/zero"}, "partition.path=~/../../dev/../dev/zer"),
    ],
)
def test_what_a_file_cannot_ask_for(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resumed(saved(tmp_path, **changes))
    assert str(caught.value).startswith(f"{tmp_path}/config.yaml: {message}")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x]\n" + "".join(f"{'abcdefghi'[i]}{i}: &b{i} [*a, *a]\n" for i in range(9)),
        "probes: &p\n  x: *p\n",
        "a: " + "[" * 900 + "]" * 900 + "\n",
        "a: " + "{b: " * 5000 + "\n",
        "#" * 40 + "\n" * (1 << 24),
    ],
    ids=["laughs", "itself", "deep", "deeper", "long"],
)
def test_a_file_that_swells_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match="config.yaml: cannot be read: "):
        resumed(tmp_path)


# --- what the machine is ---


def test_where_and_with_how_many_workers_it_runs_is_not_the_folders_to_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = {"address": "127.0.0.1:1", "workers": 9999, "object_store_bytes": 1 << 50}
    theirs |= {"peer_workers": 77, "peer_timeout_s": 1e9}
    folder = saved(tmp_path, **{f"sim__{key}": value for key, value in theirs.items()})
    config = resumed(folder, "sim.workers=2")
    assert {key: config.sim[key] for key in theirs} == {
        **{"address": None, "workers": 2, "object_store_bytes": None},
        **{"peer_workers": None, "peer_timeout_s": 120.0},
    }
    told = capsys.readouterr().err.splitlines()
    assert (
        "note: sim.address=127.0.0.1:1 of the run folder's config.yaml is not followed" in told[0]
    )
    assert [line.split()[1].split("=")[0] for line in told] == [
        f"sim.{key}" for key in ("address", "object_store_bytes", "peer_workers", "peer_timeout_s")
    ]
    assert resumed(folder, "sim.address=10.0.0.1:6379").sim.address == "10.0.0.1:6379"
    inline = saved(tmp_path, "sim=inline", sim__state_memory_bytes=0)
    assert resumed(inline).sim.state_memory_bytes == 1 << 30
    own = saved(tmp_path, sim={"_target_": "my.Pool", "address": "127.0.0.1:1"})
    left = resumed(own, "resume_targets=[my.Pool]").sim
    assert sorted(left) == ["_partial_", "_target_", "device", "gpus_per_worker", "threads"]


# --- what lies in the folder ---


def _linked(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def _hard_linked(path: Path, victim: Path) -> None:
    os.link(victim, path)


def _fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path, victim: Path) -> None:
    with socket.socket(socket.AF_UNIX) as there, chdir(path.parent):
        there.bind(path.name)  # a whole path may be too long


@pytest.mark.parametrize("name", ["config.yaml", "checkpoint/states/3.safetensors", "peers"])
@pytest.mark.parametrize(
    ("make", "kind"),
    [(_linked, "a link"), (_hard_linked, "a hard link"), (_fifo, "no file"), (_socket, "no file")],
)
def test_a_folder_with_anything_but_plain_files_is_refused(
    name: str, make: Callable[[Path, Path], None], kind: str, tmp_path: Path
) -> None:
    folder, victim = tmp_path / "run", tmp_path / "precious"
    (folder / name).parent.mkdir(parents=True)
    victim.write_text("precious")
    (folder / "metrics.jsonl").write_text("")
    (tmp_path / "latest").symlink_to(folder)
    require_plain_files(tmp_path / "latest")  # the folder is the user's word
    make(folder / name, victim)
    with pytest.raises(ConfigError) as caught:
        require_plain_files(folder)
    assert str(caught.value).startswith(f"{folder}/{name}: {kind}; a run goes on only in a folder")


def test_links_to_nowhere_and_to_folders_are_links_to_a_resume(tmp_path: Path) -> None:
    folder = saved(tmp_path / "run")
    for name, where in (("states", tmp_path), ("peers", tmp_path / "absent")):
        (folder / name).symlink_to(where)
        with pytest.raises(ConfigError, match=f"{name}: a link"):
            resumed(folder)
        (folder / name).unlink()
    resumed(folder)
