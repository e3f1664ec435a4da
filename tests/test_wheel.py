"""An installed package: one top-level name, every file of ours, and runs from an empty folder."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.places import ROOT
from tests.wheels import built, files_in, tracked, unpacked

HOUSE = ("clients/", "strategies/", "sim/", "conf/", "examples/", "run.py")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(wheel, tmp_path_factory.mktemp("venv") / "site-packages")


def python(code: str, installed: Path, cwd: Path, **more: str) -> "CompletedProcess[str]":
    """Run code in a fresh interpreter that finds the installed package, and no checkout."""
    env = {**os.environ, "PYTHONPATH": str(installed), **more}
    command = [sys.executable, "-P", "-c", code]  # -P: as a script, the working folder unseen
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_the_wheel_has_what_git_has(wheel: Path) -> None:
    ours = {f"stillhouse/house/{name}" for name in tracked() if name.startswith(HOUSE)}
    ours |= {name for name in tracked() if name.startswith("stillhouse/")}
    found = {name for name in files_in(wheel) if ".dist-info/" not in name}
    assert found == ours
    assert {name.split("/")[0].split("-")[0] for name in files_in(wheel)} == {"stillhouse"}


def test_the_command_is_what_the_wheel_brings(wheel: Path) -> None:
    (name,) = [name for name in files_in(wheel) if name.endswith("entry_points.txt")]
    with zipfile.ZipFile(wheel) as archive:
        told = archive.read(name).decode()
    assert "[console_scripts]\nstillhouse = stillhouse.command:main\n" in told


def test_a_module_of_ours_is_found_in_the_house(installed: Path, tmp_path: Path) -> None:
    code = "import stillhouse, clients, conf.schema as s; print(clients.__file__, len(s.EXAMPLES))"
    done = python(code, installed, tmp_path)
    where, examples = done.stdout.split()
    assert where == str(installed.resolve() / "stillhouse/house/clients/__init__.py"), done.stderr
    assert int(examples) == len([p for p in (ROOT / "examples").iterdir() if p.is_dir()])


def test_an_example_is_chosen_by_name(installed: Path, tmp_path: Path) -> None:
    """Not taken for another package of its name, though it is among these."""
    words = ["check", "strategy=moon", "clients=same", "data=blobs"]
    code = f"import sys; from stillhouse.command import main; sys.exit(main({words}))"
    done = python(code, installed, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("import conf", "elsewhere/conf.py"),
        ("import sys, types; sys.modules['conf'] = types.ModuleType('conf')", "no file"),
    ],
    ids=["imported", "made"],
)
def test_a_foreign_module_of_our_name_is_refused(
    code: str, place: str, installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "conf.py").touch()
    paths = f"{tmp_path / 'elsewhere'}{os.pathsep}{installed}"
    done = python(f"{code}\nimport stillhouse", installed, tmp_path, PYTHONPATH=paths)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: stillhouse: 'conf' is another module here, ")
    assert f"{place}: expected {installed.resolve()}/stillhouse/house/conf; import" in last


def test_a_module_of_our_name_that_nobody_imported_yet_is_not_in_the_way(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "conf.py").touch()
    code = "import sys; sys.path.insert(0, ''); import stillhouse, conf; print(conf.__file__)"
    done = python(code, installed, tmp_path)
    assert done.stdout.strip().endswith("stillhouse/house/conf/__init__.py")


@pytest.mark.slow
@pytest.mark.parametrize("sim", ["sim=inline", "sim.workers=2"])
def test_an_installed_package_runs_from_an_empty_folder(
    sim: str, installed: Path, tmp_path: Path
) -> None:
    """With a rule of the user's that lies in the working folder, on Ray's workers too.

    And the model comes home from there.
    """
    (tmp_path / "my_trainer.py").write_text(
        "from clients.training.loop import train\n"
        "def mine(network, dataset, indices, targets, loss, rng, **numbers):\n"
        "    return train(network, dataset, indices, targets, loss, rng, **numbers)\n"
    )
    words = [sim, "clients.training._target_=my_trainer.mine", "clients.training.epochs=1"]
    words += ["strategy.distil.epochs=1", "clients.num_clients=5", "hydra.run.dir=out"]
    code = f"import sys; from stillhouse.command import main; sys.exit(main(['run', *{words}]))"
    done = python(code, installed, tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["student_accuracy"] > 0.1
    there = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert there == {"out", "my_trainer.py"}
    code = "import stillhouse; print(stillhouse.load_student('out')[1].training)"
    assert python(code, installed, tmp_path).stdout == "False\n"
