"""Targets that were called otherwise one version back: run folders of then go on."""

from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import run
from conf.renamed import RENAMED, first_name, new_name
from conf.resume import fingerprint
from conf.schema import check_targets
from tests.commands import run_py
from tests.composing import composed
from tests.one_version_back import as_it_was
from tests.places import ROOT
from tests.quick_runs import federated
from tests.saved_configs import resumed
from tests.tiny_runs import BASES


@pytest.mark.parametrize("old", RENAMED)
def test_a_new_name_is_there_and_the_old_one_is_not(old: str) -> None:
    there = import_module(RENAMED[old])
    assert Path(str(there.__file__)).is_relative_to(ROOT)
    assert not (ROOT / f"{old.replace('.', '/')}.py").exists()
    target = f"{old}.something"
    assert new_name(target) == f"{RENAMED[old]}.something"
    oldest = next(name for name in RENAMED if RENAMED[name] == RENAMED[old])
    assert first_name(new_name(target)) == first_name(target) == f"{oldest}.something"


def test_names_that_stayed_and_those_of_others_are_left_alone() -> None:
    for target in ("clients.models.cnn", "torch.optim.SGD", "mine.rule", "rule"):
        assert new_name(target) == first_name(target) == target


AS_THEN = "evaluation.examples=0"
"""Before, clients were measured on the whole test set."""
METHODS = ["dlad", "mutual", "ffl", "gossip", "cpfl", "defkt", "fedadam"]
PEERS = {method: ["clients=same", "topology=ring"] for method in ("gossip", "cpfl", "defkt")}


@pytest.mark.parametrize("strategy", METHODS)
def test_the_hash_of_a_config_does_not_know_that_names_changed(strategy: str) -> None:
    words = PEERS.get(strategy, [])
    config = composed(AS_THEN, f"strategy={strategy}", *words)
    before = as_it_was(config)
    assert OmegaConf.to_yaml(before) != OmegaConf.to_yaml(config, resolve=True)
    assert fingerprint(before) == fingerprint(config)
    assert fingerprint(composed(AS_THEN, f"strategy={strategy}", *words, "seed=1")) != fingerprint(
        config
    )


@pytest.mark.parametrize("strategy", METHODS)
def test_a_config_of_one_version_back_is_read_as_one_of_now(strategy: str, tmp_path: Path) -> None:
    words = [AS_THEN, f"strategy={strategy}", *PEERS.get(strategy, [])]
    config = composed(*words)
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(as_it_was(config)))
    again = resumed(tmp_path)
    assert OmegaConf.to_container(again) == OmegaConf.to_container(config, resolve=True)
    check_targets(again)


@pytest.mark.parametrize("base", ["ffl", "gossip", "cpfl"])
def test_its_checkpoint_goes_on_to_the_same_bits(base: str, tmp_path: Path) -> None:
    begun = []
    for name, rounds in (("whole", 3), ("half", 2)):
        words = [AS_THEN, *BASES[base], "checkpoint_every=1", f"rounds={rounds}"]
        (tmp_path / name).mkdir()
        begun.append(run.federate(composed(*words), tmp_path / name))
    told = tmp_path / "half" / "config.yaml"
    told.write_text(OmegaConf.to_yaml(as_it_was(OmegaConf.load(told))))
    result = run.federate(resumed(tmp_path / "half", "rounds=3"), tmp_path / "half", resume=True)
    for what in ("student_sha256", "metrics_sha256", "clients_sha256"):
        assert result[what] == begun[0][what]
        assert what == "student_sha256" or result[what] != begun[1][what]


def test_a_run_folder_of_one_version_back_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    words = [AS_THEN, "clients.num_clients=5", "clients.training.epochs=1",
             "data.limit=200", "strategy.distil.epochs=1", "probes=none",
             "checkpoint_every=1"]  # fmt: skip
    results = []
    for name, rounds in (("whole", 2), ("half", 1)):
        federated(tmp_path / name, *words, f"rounds={rounds}")
    config = tmp_path / "half" / "config.yaml"
    text = OmegaConf.to_yaml(as_it_was(OmegaConf.load(config)))
    for part in ("ensemble", "proxy_split", "teachers"):
        assert f"  {part}:" in config.read_text()
        assert f"  {part}:" not in text
    config.write_text(text)
    done = run_py(f"resume={tmp_path / 'half'}", "rounds=2", f"hydra.run.dir={tmp_path / 'told'}")
    assert done.returncode == 0, done.stderr
    for name in ("whole", "half"):
        results.append((tmp_path / name / "student.safetensors").read_bytes())
    assert results[0] == results[1]


def test_a_condition_goes_on_that_was_called_a_corruption(tmp_path: Path) -> None:
    words = [AS_THEN, *BASES["uniform"], "clients/condition=permuted_labels", "checkpoint_every=1"]
    results = []
    for name, rounds in (("whole", 2), ("half", 1)):
        (tmp_path / name).mkdir()
        config = composed(*words, f"rounds={rounds}")
        results.append(run.federate(config, tmp_path / name))
    told = tmp_path / "half" / "config.yaml"
    text = OmegaConf.to_yaml(as_it_was(OmegaConf.load(told)))
    assert "  corruption:\n    _target_: clients.corruption.permuted_labels\n" in text
    told.write_text(text)
    result = run.federate(resumed(tmp_path / "half", "rounds=2"), tmp_path / "half", resume=True)
    assert result["clients_sha256"] == results[0]["clients_sha256"]
    assert result["student_sha256"] == results[0]["student_sha256"] != results[1]["student_sha256"]


MINE = {
    "a.yaml": "defaults: [same, {override corruption: permuted_labels}]\n",
    "b.yaml": "defaults: [{training: sgd}, {corruption: none}]\n",
    "c.yaml": "defaults: [same]\ncorruption: null\n",
}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["clients.corruption.clients=[1]"], "it is called clients.condition.clients now"),
        (["clients/corruption=permuted_labels"], "it is called clients/condition now"),
        (["+clients.corruption={_target_: a.b}"], "it is called clients.condition now"),
        *(
            ([f"clients={name[0]}"], "'clients.corruption' is called clients.condition now")
            for name in MINE
        ),
    ],
)
def test_an_old_key_is_told_the_new_one(words: list[str], told: str, tmp_path: Path) -> None:
    (tmp_path / "clients").mkdir()
    for name, text in MINE.items():
        (tmp_path / "clients" / name).write_text(text)
    folder = f"hydra.run.dir={tmp_path / 'run'}"
    done = run_py("--config-dir", str(tmp_path), *words, "sim=inline", folder)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(told)


def test_an_own_yaml_with_an_old_name_is_told_the_new_one(tmp_path: Path) -> None:
    done = run_py(
        "strategy.scorer._target_=strategies.scorers.margin", f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert done.returncode == 1
    assert "it is called strategies.aggregation.scorers.margin now" in done.stderr


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ((), "bbe8734171155e733ce7c4b10215382de6aeb0eff02945f546abeddb0d7b52c1"),
        (("strategy=ffl",), "6c17487d9dbdaf849a9bef0749b2660c00d76ecd017a809fd42eef015128a26b"),
        (
            ("strategy=gossip", "topology=ring"),
            "143bf7798add881eae68dd602e5fd6e7c85c2b4b5a85908f1e94806a5226592f",
        ),
        (
            ("strategy=averaging", "clients=same"),
            "542f5730bfbb9801a6e51d66f8e5e8b2dc1a78fc8fd232f09d80d4eaa59dbe46",
        ),
        (
            ("experiment=byzantine",),
            "8f95d59a4c6c01722f1b75c384f465f202bd39718712c466011f194770541145",
        ),
    ],
)
def test_the_hash_of_a_config_is_what_it_was_one_version_back(
    words: tuple[str, ...], first: str
) -> None:
    """As the code of then computed it: checkpoints of then are gone on from."""
    assert fingerprint(composed("sim=inline", AS_THEN, *words)) == first


def test_a_key_that_there_was_not_counts_once_it_is_set() -> None:
    before, after = (
        fingerprint(composed("sim=inline", f"clients/objective={name}"))
        for name in ("labels", "not_true")
    )
    assert before != after
