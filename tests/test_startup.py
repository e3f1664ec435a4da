"""What a run imports: each package costs a newcomer's first seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

PACKAGES = {
    "Crypto", "absl", "antlr4", "attr", "click", "cloudpickle", "cryptography", "dateutil", "dill",
    "flwr", "fsspec", "grpc", "grpc_health", "httpx", "hydra", "idna", "iterators", "joblib",
    "numpy", "omegaconf", "packaging", "pyarrow", "pygments", "rich", "safetensors", "shellingham",
    "tensorboard", "threadpoolctl", "torch", "torchgen", "tqdm", "typer", "typing_extensions",
    "yaml",
}  # fmt: skip
"""Of every run in one process; flwr and torch bring most."""

OF_DLAD = {"charset_normalizer", "narwhals", "scipy", "sklearn"}
"""Scikit-learn, with what it imports: discriminators."""

DEVELOPERS = {"pandas", "_distutils_hack", "pytest", "_pytest"}
"""Imported where they are installed, by pyarrow and scikit-learn; users have none."""

CODE = """
import json, sys
from pathlib import Path
from hydra import compose, initialize_config_dir
import run
with initialize_config_dir(str(Path(run.__file__).parent / "conf"), version_base="1.3"):
    config = compose("config", overrides=sys.argv[2:])
Path(sys.argv[1]).mkdir()
run.federate(config, Path(sys.argv[1]))
of = {name.split(".")[0]: module for name, module in sys.modules.items() if "." not in name}
there = [n for n, m in of.items() if "site-packages" in (getattr(m, "__file__", None) or "")]
print(json.dumps([n for n in there if Path(of[n].__file__).name == "__init__.py"]))
"""


def imported(folder: Path, *words: str) -> set[str]:
    """Name the packages that a run in a process of its own ends with."""
    short = ["clients.num_clients=5", "clients.training.epochs=1", "tracking.figures_every=0"]
    command = [sys.executable, "-c", CODE, str(folder), *short, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {*json.loads(done.stdout.splitlines()[-1])} - DEVELOPERS


def test_digits_are_read_without_scikit_learn() -> None:
    code = "import sys; from clients import data; data.digits(); print('sklearn' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (["strategy.distil.epochs=1"], OF_DLAD),
        pytest.param(
            ["strategy=averaging", "clients=same", "partition=iid"],
            set(),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["dlad", "averaging"],
)
def test_a_run_imports_what_it_uses(words: list[str], more: set[str], tmp_path: Path) -> None:
    """Neither Ray, nor matplotlib, nor networkx; scikit-learn only where something is fitted."""
    found = imported(tmp_path / "run", *words)
    assert found <= PACKAGES | more
    assert found >= {"torch", "flwr", "hydra", *more}
