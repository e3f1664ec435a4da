"""What a run folder's config may say: it is not obeyed."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from conf.composing import composed as composed_by
from conf.errors import ConfigError
from conf.resume import CHANGEABLE, fingerprint
from conf.tracking import headline
from sim.tracking.run_folder import METRICS, begin, changed_versions, versions
from tests.composing import composed
from tests.saved_configs import resumed, saved

# --- a run folder's config is data ---


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


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "a ${data.root}"])
def test_interpolations_are_refused(value: str, tmp_path: Path) -> None:
    text = (saved(tmp_path) / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("root: null", f"root: '{value}'", 1))
    with pytest.raises(ConfigError, match=r"data\.root=.*: a resolved config has no interpol"):
        resumed(tmp_path)


@pytest.mark.parametrize("text", ["- 1\n", "just words\n", "a: [1", "a: 1\na: 2\n", "rounds: x\n"])
def test_a_file_that_is_no_config_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"{tmp_path}/config.yaml: "):
        resumed(tmp_path)


def test_python_objects_in_yaml_are_not_made(tmp_path: Path) -> None:
    proof = tmp_path / "made"
    text = f"seed: !!python/object/apply:os.mkdir ['{proof}']\n"
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match="config.yaml: "):
        resumed(tmp_path)
    assert not proof.exists()


@pytest.mark.parametrize("value", ["!!python/object/apply:pathlib.Path [/x]", "!!binary aGk="])
def test_values_that_are_not_plain_are_refused(value: str, tmp_path: Path) -> None:
    target = "_target_: sim.checkpoint.manifest.remove"
    (tmp_path / "config.yaml").write_text(f"probes:\n  a:\n    {target}\n    paths: [{value}]\n")
    with pytest.raises(ConfigError, match=r"config.yaml: probes.a.paths.0=.*: expected a number"):
        resumed(tmp_path)


# --- what may change ---


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


@pytest.mark.parametrize(
    "override",
    ["seed=1", "sim.threads=2", "sim=inline", "strategy.ensemble.temperature=2", "quorum=0.9"],
)
def test_the_fingerprint_tells_runs_apart(override: str) -> None:
    plain = composed()
    assert fingerprint(composed(override)) != fingerprint(plain)
    seen = set()
    for pool in ("ray", "inline"):  # each has keys that the other lacks
        plain = composed(f"sim={pool}")
        free = {key for key in CHANGEABLE if OmegaConf.select(plain, key, default="-") != "-"}
        changed = composed(f"sim={pool}", *(f"{key}=3" for key in free))
        assert fingerprint(changed) == fingerprint(plain)
        seen |= free
    assert seen == set(CHANGEABLE)


# --- files of the run folder ---


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


def test_the_first_line_of_a_resumed_run_names_what_the_folder_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    choices = dict.fromkeys(("strategy", "data", "clients", "partition"), "of_the_call")
    words: list[str] = []
    told = SimpleNamespace(
        runtime=SimpleNamespace(choices=choices), overrides=SimpleNamespace(task=words)
    )
    hydra = SimpleNamespace(initialized=lambda: True, get=lambda: told)
    monkeypatch.setattr("conf.tracking.HydraConfig", hydra)
    config = composed("data=blobs", "clients.num_clients=4")
    begun = (
        "of_the_call on of_the_call, partition of_the_call, clients of_the_call, 1 round, seed 0"
    )
    assert headline(config, Path("here")) == f"{begun}: here"
    words.append("resume=here")
    goes_on = (
        "DistillationStrategy on blobs, partition classes_per_client, clients 4, 1 round, seed 0"
    )
    assert headline(config, Path("here")) == f"{goes_on}: here"
    (tmp_path / ".hydra").mkdir()
    noted = tmp_path / ".hydra" / "hydra.yaml"
    for text in ("", "hydra: 3", "hydra: {runtime: {choices: [1]}}", "{", "hydra: {runtime: {}}"):
        noted.write_text(text)
        assert headline(config, tmp_path) == f"{goes_on}: {tmp_path}"
    names = "{strategy: uniform, clients: mixed_small, data: null, partition: '\\e[1m'}"
    noted.write_text(f"hydra: {{runtime: {{choices: {names}}}}}")
    chosen = goes_on.replace("DistillationStrategy", "uniform").replace("4", "mixed_small")
    assert headline(config, tmp_path) == f"{chosen}: {tmp_path}"


@pytest.mark.parametrize(
    "key", ["clients.training.decay", "~clients.training.decay", "clients/ours"]
)
def test_a_key_that_only_the_folder_has_is_kept_too(key: str, tmp_path: Path) -> None:
    """It was said to be unknown, of a trainer of the user's."""
    folder = saved(tmp_path, clients__training__decay=0.9)
    kept = f"{key.lstrip('~')}=...: a resumed run keeps its config; only rounds, checkpoint_every"
    with pytest.raises(ConfigError, match=re.escape(kept)):
        composing([key if key[0] == "~" else f"{key}=3", folder])


@pytest.mark.parametrize("text", [None, "- 1\n", "a: [1"])
def test_what_the_folder_has_not_is_told_as_ever(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match="unknown key 'rouns'; did you mean 'rounds'?"):
        composing(["rouns=3", tmp_path])


def composing(words: list[Any]) -> None:
    """Compose what a command line says that goes on in a folder."""
    with composed_by([words[0], f"resume={words[1]}"]):
        pass
