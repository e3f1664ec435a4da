"""What is refused before the first round begins no run: its folder takes the corrected one."""

from pathlib import Path

import pytest

from tests.commands import run_py

SCORERS = '''"""Scorers, the first two of which give what no scorer may."""

import torch


def turned(teachers):
    return teachers.mask.T.float()


def nowhere(teachers):
    return torch.full(teachers.mask.shape, float("nan"))


def right(teachers):
    return teachers.mask.float()
'''
FEW = [
    "clients.num_clients=5",
    "clients.training.epochs=1",
    "strategy.distil.epochs=1",
    "sim=inline",
]


@pytest.mark.parametrize(
    "word",
    [
        "strategy/scorer=turned",
        "strategy.ensemble.temperature=-1",
        "strategy/combiner=mean_of_outputs",
        "strategy.proxy_split.chunks=100000",
    ],
)
def test_the_same_folder_takes_the_corrected_run(word: str, tmp_path: Path) -> None:
    mine, folder = tmp_path / "mine", tmp_path / "run"
    (mine / "strategy" / "scorer").mkdir(parents=True)
    (mine / "my_scorers.py").write_text(SCORERS)
    for name in ("turned", "right"):
        text = f"_target_: my_scorers.{name}\n_partial_: true\n"
        (mine / "strategy" / "scorer" / f"{name}.yaml").write_text(text)
    words = ["--config-dir", str(mine), "strategy=distillation", *FEW, f"hydra.run.dir={folder}"]
    refused = run_py(*words, word)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("error: ")
    assert not folder.exists()
    if word == "strategy/scorer=turned":  # once: where there is no folder any run takes it
        done = run_py(*words, "strategy/scorer=right")
        assert done.returncode == 0, done.stderr


def test_a_resume_leaves_no_folder_of_its_own(tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    begun = run_py("strategy=distillation", *FEW, "checkpoint_every=1", f"hydra.run.dir={folder}")
    assert begun.returncode == 0, begun.stderr
    on = run_py(f"resume={folder}", "rounds=2", f"hydra.run.dir={other}")
    assert on.returncode == 0, on.stderr
    assert not other.exists()
    refused = run_py("resume=/nowhere", f"hydra.run.dir={other}")
    assert refused.returncode == 1
    assert not other.exists()
