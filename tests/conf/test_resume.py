"""A killed run goes on and ends with the bits of one that was not; a run folder is not obeyed."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conf.errors import ConfigError
from conf.resume import CHANGEABLE, fingerprint, resumed_config
from conf.schema import register
from sim.tracking.run_folder import METRICS, begin, changed_versions, truncate, versions
from tests.commands import run_py
from tests.conf.test_config import OPTIONS, REQUIRED
from tests.places import CONF
from tests.test_run import QUICK, hashes

RULES = '''
"""A probe that kills the driver in a round of the user's choice, and a scorer."""
import os, signal

def deadly(view):
    if view.server_round == int(os.environ.get("KILL_IN_ROUND", 0)):
        os.kill(os.getpid(), signal.SIGKILL)
    return {}

def sure(teachers):
    return teachers.logits.softmax(-1).amax(-1)
'''
DEADLY = "+probes.deadly={_target_: my_rules.deadly, _partial_: true}"
TRUSTED = "resume_targets=[my_rules.deadly,my_rules.sure]"
SAME = ("student.safetensors", METRICS, "clients.parquet", "failures.jsonl",
        "partition_summary.json")  # fmt: skip


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "strategy" / "scorer").mkdir(parents=True)
    text = "_target_: my_rules.sure\n_partial_: true\n"
    (folder / "strategy" / "scorer" / "sure.yaml").write_text(text)
    (folder / "my_rules.py").write_text(RULES)
    return folder


def run(mine: Path, *args: str, kill_in_round: int = 0) -> CompletedProcess[str]:
    return run_py("--config-dir", str(mine), *args, cwd=mine, KILL_IN_ROUND=str(kill_in_round))


def begun(mine: Path, folder: Path, *args: str, **options: Any) -> int:
    given = [*QUICK, "strategy/scorer=sure", DEADLY, f"hydra.run.dir={folder}", *args]
    return run(mine, *given, **options).returncode


@pytest.fixture(scope="module")
def undisturbed(mine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four rounds at a stretch, without checkpoints."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert begun(mine, folder, "sim=inline", "rounds=4") == 0
    assert not (folder / "checkpoint").exists()
    return folder


def assert_equal_runs(resumed: Path, undisturbed: Path) -> None:
    results = [json.loads((f / "result.json").read_text()) for f in (resumed, undisturbed)]
    for result in results:
        del result["wall_time_s"]
    assert hashes(results[0]) == hashes(results[1])
    assert results[0] == results[1]
    for name in SAME:
        assert (resumed / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_killed_in_mid_round_and_resumed_with_more_rounds(
    mine: Path, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    killed = begun(
        mine, folder, "sim=inline", "rounds=2", "checkpoint_every=1", kill_in_round=2
    )  # its student has learned in round 2, nobody was evaluated
    assert killed == -signal.SIGKILL
    assert (
        pq.read_table(folder / "clients.parquet").num_rows == 5
    )  # as of round 1, with its figures
    with (folder / METRICS).open("a") as file:
        file.write('{"round": 2, "stude')  # as if killed in the middle of a line
    done = run(mine, f"resume={folder}", "rounds=4", TRUSTED)
    assert done.returncode == 0, done.stderr
    assert "goes on after round 1" in done.stdout
    assert_equal_runs(folder, undisturbed)
    assert "rounds: 4" in (folder / "config.yaml").read_text()

    again = run(mine, f"resume={folder}", TRUSTED)  # all is done: the same result, once more
    assert again.returncode == 0, again.stderr
    assert_equal_runs(folder, undisturbed)
    assert pq.read_table(folder / "clients.parquet").num_rows == 4 * 5


def test_killed_on_ray_between_checkpoints_and_resumed(
    mine: Path, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    args = ["sim=ray", "sim.workers=2", "rounds=4", "checkpoint_every=2"]
    assert begun(mine, folder, *args, kill_in_round=4) == -signal.SIGKILL
    before = (folder / "config.yaml").read_bytes()
    assert len((folder / METRICS).read_text().splitlines()) == 3  # and the checkpoint is of 2
    done = run(mine, f"resume={folder}", "sim.workers=1", TRUSTED)
    assert done.returncode == 0, done.stderr
    assert "goes on after round 2" in done.stdout
    assert_equal_runs(folder, undisturbed)
    changed = (folder / "config.yaml").read_bytes().replace(b"  workers: 1", b"  workers: 2")
    assert changed == before
    events = EventAccumulator(str(folder / "events"))
    events.Reload()
    steps = [event.step for event in events.Scalars("student/accuracy")]
    assert steps == [1, 2, 3, 4]  # the third was written twice


def test_what_cannot_be_resumed_is_said_in_one_line(
    mine: Path, undisturbed: Path, tmp_path: Path
) -> None:
    before = {name: (undisturbed / name).read_bytes() for name in SAME}
    for args, message in (
        ([f"resume={undisturbed}", TRUSTED], "checkpoint: no checkpoint there"),
        ([f"resume={undisturbed}"], "strategy.scorer._target_=my_rules.sure: not run because"),
        ([f"resume={undisturbed}", TRUSTED, "seed=1"], "seed=...: a resumed run keeps its config"),
        ([f"resume={tmp_path / 'typo'}"], "no run folder, it has no config.yaml"),
    ):
        done = run(mine, *args)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert before == {name: (undisturbed / name).read_bytes() for name in SAME}
    assert not (tmp_path / "typo").exists()


# --- a run folder's config is data ---


@pytest.fixture
def hydra_in_conf() -> Iterator[None]:
    GlobalHydra.instance().clear()
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


def saved(folder: Path, *overrides: str, **changes: Any) -> Path:
    """Write a run folder's config, with some keys changed behind Hydra's back."""
    config = compose("config", overrides=list(overrides))
    OmegaConf.resolve(config)  # as a run does
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=False))
    return folder


def resumed(folder: Path, *overrides: str) -> DictConfig:
    given = [f"resume={folder}", *overrides]
    return resumed_config(compose("config", overrides=given), given)


@pytest.mark.usefixtures("hydra_in_conf")
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_comes_back_from_a_run_folder_as_it_went_in(
    option: str, tmp_path: Path
) -> None:
    prefix = "+" if option.split("=")[0] in ("experiment", "debug", "proxy") else ""
    extra = [REQUIRED[option]] if option in REQUIRED else []
    config = compose("config", overrides=[prefix + option, *extra, "checkpoint_every=3"])
    text = OmegaConf.to_yaml(config, resolve=True)
    (tmp_path / "config.yaml").write_text(text)
    again = resumed(tmp_path)
    assert OmegaConf.to_yaml(again, resolve=True) == text
    assert fingerprint(again) == fingerprint(config)


@pytest.mark.usefixtures("hydra_in_conf")
@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "sim.workers.ray_pool.os.system",  # ours, as a chain of attributes
        "sim.tracking.run_folder.os.truncate",
        "sim.checkpoint.manifest.Path",  # what a module of ours has only imported
        "clients.execution.executor.partial",
        "clientsx.evil",
        "sim.report.reading._record",  # ours, and private
        "torch.load",
        "torch.optim.os.system",
        "hydra.utils.get_method",
        "my_rules.deadly",
        "",
        None,
    ],
)
@pytest.mark.parametrize("where", ["strategy", "student", "probes__mine", "partition"])
def test_targets_from_elsewhere_are_refused(target: Any, where: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, **{f"{where}___target_": target})
    with pytest.raises(ConfigError) as caught:
        resumed(folder)
    key = where.replace("__", ".")
    assert f"{folder}/config.yaml: {key}._target_={target}: not run" in str(caught.value)


@pytest.mark.usefixtures("hydra_in_conf")
def test_targets_in_lists_are_found_and_a_named_one_is_let_through(tmp_path: Path) -> None:
    deep = {"a": [[{"_target_": "my_rules.deadly"}]]}
    folder = saved(tmp_path, strategy__scorer=deep, resume_targets=["my_rules.deadly"])
    with pytest.raises(ConfigError, match="strategy.scorer.a.0.0._target_=my_rules.deadly: not"):
        resumed(folder)  # the file cannot allow itself what it likes
    config = resumed(folder, "resume_targets=[my_rules.deadly]")
    assert config.strategy.scorer.a == deep["a"]
    assert list(config.resume_targets) == []
    with pytest.raises(ConfigError, match="my_rules.deadly: not run"):
        resumed(folder, "resume_targets=[my_rules]")


@pytest.mark.usefixtures("hydra_in_conf")
@pytest.mark.parametrize("value", ["${oc.env:HOME}", "a ${data.root}"])
def test_interpolations_are_refused(value: str, tmp_path: Path) -> None:
    text = (saved(tmp_path) / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("root: null", f"root: '{value}'", 1))
    with pytest.raises(ConfigError, match=r"data\.root=.*: a resolved config has no interpol"):
        resumed(tmp_path)


@pytest.mark.usefixtures("hydra_in_conf")
@pytest.mark.parametrize("text", ["- 1\n", "just words\n", "a: [1", "a: 1\na: 2\n", "rounds: x\n"])
def test_a_file_that_is_no_config_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"{tmp_path}/config.yaml: "):
        resumed(tmp_path)


@pytest.mark.usefixtures("hydra_in_conf")
def test_python_objects_in_yaml_are_not_made(tmp_path: Path) -> None:
    proof = tmp_path / "made"
    text = f"seed: !!python/object/apply:os.mkdir ['{proof}']\n"
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match="config.yaml: "):
        resumed(tmp_path)
    assert not proof.exists()


@pytest.mark.usefixtures("hydra_in_conf")
@pytest.mark.parametrize("value", ["!!python/object/apply:pathlib.Path [/x]", "!!binary aGk="])
def test_values_that_are_not_plain_are_refused(value: str, tmp_path: Path) -> None:
    target = "_target_: sim.checkpoint.manifest.remove"
    (tmp_path / "config.yaml").write_text(f"probes:\n  a:\n    {target}\n    paths: [{value}]\n")
    with pytest.raises(ConfigError, match=r"config.yaml: probes.a.paths.0=.*: expected a number"):
        resumed(tmp_path)


# --- what may change ---


@pytest.mark.usefixtures("hydra_in_conf")
def test_what_no_bit_depends_on_may_change_and_nothing_else(tmp_path: Path) -> None:
    folder = saved(tmp_path, "rounds=3", "seed=5", "checkpoint_every=1", "sim.workers=4")
    config = resumed(folder, "rounds=9", "sim.workers=1", "hydra.verbose=true")
    assert (config.rounds, config.sim.workers, config.checkpoint_every) == (9, 1, 1)
    assert (config.seed, config.resume) == (5, None)
    assert fingerprint(config) == fingerprint(resumed(folder))
    for override in ("seed=5", "strategy=fedavg", "sim=inline", "sim.threads=2", "data.limit=9"):
        with pytest.raises(ConfigError) as caught:
            resumed(folder, override)
        key = override.split("=")[0]
        assert str(caught.value).startswith(f"{key}=...: a resumed run keeps its config; only ")


@pytest.mark.usefixtures("hydra_in_conf")
@pytest.mark.parametrize(
    "override", ["seed=1", "sim.threads=2", "sim=inline", "strategy.temperature=2", "quorum=0.9"]
)
def test_the_fingerprint_tells_runs_apart(override: str) -> None:
    plain = compose("config")
    assert fingerprint(compose("config", overrides=[override])) != fingerprint(plain)
    seen = set()
    for pool in ("ray", "inline"):  # each has keys that the other lacks
        plain = compose("config", overrides=[f"sim={pool}"])
        free = {key for key in CHANGEABLE if OmegaConf.select(plain, key, default="-") != "-"}
        changed = compose("config", overrides=[f"sim={pool}", *(f"{key}=3" for key in free)])
        assert fingerprint(changed) == fingerprint(plain)
        seen |= free
    assert seen == set(CHANGEABLE)


# --- files of the run folder ---


def test_lines_beyond_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    path.write_bytes(b'{"a": 1}\n{"b": "\\u2028"}\n{"c": 3}\n{"d')
    with pytest.raises(ValueError, match=f"{METRICS}: has fewer lines than the 4 of the"):
        truncate(path, 4)
    truncate(path, 2)
    assert path.read_bytes() == b'{"a": 1}\n{"b": "\\u2028"}\n'
    truncate(path, 0)
    assert path.read_bytes() == b""
    truncate(tmp_path / "absent", 0)
    with pytest.raises(ValueError, match="absent: has fewer lines than the 1"):
        truncate(tmp_path / "absent", 1)


def test_data_that_have_changed_are_noticed(tmp_path: Path) -> None:
    import numpy as np

    from clients.partition import summary

    labels, lines = np.array([0, 1, 0, 1]), {METRICS: 0, "failures.jsonl": 0}
    cut = [np.array([0, 1]), np.array([2, 3])]
    begin(tmp_path, "seed: 1\n", summary(labels, cut, 2))
    begin(tmp_path, "seed: 2\n", summary(labels, cut, 2), lines)
    assert (tmp_path / "config.yaml").read_text() == "seed: 2\n"
    with pytest.raises(ValueError, match="the data are not those that the run began with"):
        begin(tmp_path, "seed: 3\n", summary(np.array([1, 1, 0, 1]), cut, 2), lines)
    assert (tmp_path / "config.yaml").read_text() == "seed: 2\n"


def test_versions_that_are_not_as_they_were_are_told() -> None:
    now = versions()
    then = {name: version for name, version in now.items() if name != "ray"} | {"torch": "1.0"}
    then["jax"] = "0.4"
    expected = {"jax": ("0.4", "none"), "ray": ("none", now["ray"]), "torch": ("1.0", now["torch"])}
    assert changed_versions(then) == expected
    assert changed_versions(now) == {}
