"""The house keeps its shape: who may import whom, which module knows which dependency, sizes.

So do the tests: they are in the folders of what they test, and none leans on another.
"""

import ast
import importlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import LONGEST, OWN_RAY
from tests.places import MODULES, PACKAGES, ROOT, SOURCES

ALLOWED = {
    "clients": {"clients"},
    "strategies": {"strategies", "clients"},
    "sim": {"sim", "clients"},
    "conf": {"conf"},
    "run": {"run", *PACKAGES},
    "stillhouse": {"run", *PACKAGES},
}
ROOMS = {
    "clients": (
        *("data", "partition", "training", "models", "messages", "execution", "mutual"),
        *("population", "handlers", "app"),
    ),
    "strategies": ("aggregation", "teaching", "server", "decentralised", "conformance"),
    "sim": ("topology", "workers", "engine", "analysis", "tracking", "checkpoint", "report"),
    "conf": (),
    "stillhouse": (),
}
"""A room may import those before it; what lies beside the rooms imports none, and is anyone's."""

DOORS = {
    "ray": {"sim/workers"},
    "hydra": {".", "conf"},
    "omegaconf": {".", "conf", "stillhouse"},
    "tensorboard": {"sim/tracking"},
    "rich": {"sim/tracking"},
    "networkx": {"sim/topology", "sim/tracking"},
    "matplotlib": {"sim/report", "sim/tracking"},
    "jinja2": {"sim/report"},
    "flwr": {
        *("clients", "clients/handlers", "clients/messages"),
        *("sim/checkpoint", "sim/engine", "sim/workers"),
        *("strategies", "strategies/aggregation", "strategies/conformance"),
        "strategies/decentralised",
        *("strategies/server", "strategies/teaching"),
    },
}
"""Which folders have files that import a heavy dependency; "." is run.py's."""

TESTS = sorted((ROOT / "tests").rglob("*.py"))


@cache
def imports_of(path: Path) -> set[str]:
    """Full dotted names, wherever in the file they are imported."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module))
            if str(node.module).split(".")[0] == "tests" or node.module in PACKAGES:
                # then what is imported are modules or rooms
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_the_sources_were_found() -> None:
    assert len(SOURCES) >= 35
    assert ROOT / "run.py" in SOURCES
    assert ROOT / "clients/models/resnet.py" in SOURCES


@pytest.mark.parametrize("path", SOURCES, ids=MODULES)
def test_imports_point_in_the_allowed_direction(path: Path) -> None:
    top = path.relative_to(ROOT).parts[0].removesuffix(".py")
    ours = {name.split(".")[0] for name in imports_of(path)} & {*PACKAGES, "run", "tests"}
    assert ours <= ALLOWED[top]


def room_of(module: str) -> int:
    """Return the place of a module's room in its package; -1 beside the rooms."""
    top, *rest = module.split(".")
    return ROOMS[top].index(rest[0]) if rest and rest[0] in ROOMS[top] else -1


@pytest.mark.parametrize(("path", "module"), [*zip(SOURCES, MODULES, strict=True)], ids=MODULES)
def test_rooms_import_those_before_them(path: Path, module: str) -> None:
    top = module.split(".")[0]
    for name in imports_of(path):
        if top in ROOMS and name.split(".")[0] == top:
            assert room_of(name) <= room_of(module), name


def test_every_folder_is_a_room() -> None:
    for top, rooms in ROOMS.items():
        folders = {p.name for p in (ROOT / top).iterdir() if (p / "__init__.py").exists()}
        assert folders == {*rooms} - {"app"}


@pytest.mark.parametrize("dependency", DOORS)
def test_each_heavy_dependency_has_its_doors(dependency: str) -> None:
    users = {
        str(path.relative_to(ROOT).parent)
        for path in SOURCES
        if any(dependency in name.split(".") for name in imports_of(path))
    }
    assert users == DOORS[dependency]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports(module: str) -> None:
    importlib.import_module(module)


@pytest.mark.parametrize("path", SOURCES, ids=MODULES)
def test_files_and_functions_stay_small(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= 300
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            lines = node.end_lineno - node.lineno + 1 - docstring.count("\n")
            assert lines <= 60, f"{node.name} has {lines} lines"


def arguments_of(kind: ast.ClassDef) -> int:
    """Count what a class is made of: arguments of its `__init__`, or fields of a dataclass."""
    for node in kind.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            given = node.args
            return len([*given.posonlyargs, *given.args, *given.kwonlyargs]) - 1
    if any("dataclass" in ast.unparse(each) for each in kind.decorator_list):
        return sum(isinstance(node, ast.AnnAssign) for node in kind.body)
    return 0


@pytest.mark.parametrize("path", SOURCES, ids=MODULES)
def test_constructors_take_few_arguments(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] in ("strategies", "sim"):
        kinds = [
            node for node in ast.walk(ast.parse(path.read_text())) if type(node) is ast.ClassDef
        ]
        assert {kind.name: n for kind in kinds if (n := arguments_of(kind)) >= 12} == {}


WIDE = {
    **{"Task": 15, "PredictionRequest": 15, "PredictionReply": 13, "GroupLesson": 13, "Asked": 12},
    "SimulatedClients": 16,
}
"""Records of what is said, and the one description of a federation: each argument is a group, or a
key, of `conf/clients`. None may grow."""


def test_what_is_wide_in_clients_is_known_and_grows_no_wider() -> None:
    found = {
        kind.name: number
        for path in (ROOT / "clients").rglob("*.py")
        for kind in ast.walk(ast.parse(path.read_text()))
        if type(kind) is ast.ClassDef and (number := arguments_of(kind)) >= 12
    }
    assert found == WIDE


def test_no_room_is_called_utils() -> None:
    assert not {"utils", "helpers", "common", "misc"} & {
        part for m in MODULES for part in m.split(".")
    }


def test_tests_are_in_the_folders_of_what_they_test() -> None:
    for path in TESTS:
        room = path.parent.relative_to(ROOT / "tests")
        if room != Path():  # what tests share lies beside these folders
            assert (ROOT / room / "__init__.py").is_file(), f"{path}: no such room"
            assert path.name.startswith("test_") or path.name == "conftest.py", path


def test_files_of_tests_stay_small() -> None:
    assert not [path for path in TESTS if len(path.read_text().splitlines()) > 300]


def test_modules_that_are_put_first_exist() -> None:
    assert {*OWN_RAY, *LONGEST} <= {path.stem for path in TESTS}


def test_no_test_leans_on_another() -> None:
    """Not on a module of tests, nor on where its own file lies."""
    for path in TESTS:
        ours = {name for name in imports_of(path) if name.startswith("tests.")}
        assert not {name for name in ours if ".test_" in name}, path
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "id")}
        assert "__file__" not in names or path.name == "places.py", f"{path}: see tests.places"


def run_python(*args: str) -> subprocess.CompletedProcess[str]:
    silent = ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED")  # this process has set them
    env = {name: value for name, value in os.environ.items() if name not in silent}
    return subprocess.run(
        [sys.executable, *args], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )


def test_help_and_composing_import_no_heavy_dependency() -> None:
    code = (
        "import sys, runpy; sys.argv = ['run.py', '--help']\n"
        "try: runpy.run_path('run.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "from hydra import compose, initialize_config_dir; import os\n"
        "from hydra.core.global_hydra import GlobalHydra; GlobalHydra.instance().clear()\n"
        "with initialize_config_dir(os.path.abspath('conf'), version_base='1.3'):\n"
        "    compose('config', overrides=['strategy=dlad', 'clients=mixed_large'])\n"
        "print('HEAVY', sorted({'torch', 'ray', 'flwr', 'sklearn'} & set(sys.modules)))"
    )
    out = run_python("-c", code).stdout
    assert "strategy/scorer:" in out
    assert out.strip().endswith("HEAVY []")


@pytest.mark.parametrize(
    "first",
    [
        "run",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("sim.workers.ray_pool", "sim.engine.rounds", "strategies.server.mutual")
        ),
    ],
)
def test_usage_reporting_is_off_whatever_of_ours_is_imported_first(first: str) -> None:
    code = (
        f"import {first}, clients.app, sim.workers.ray_pool\n"
        "from flwr.supercore import telemetry\n"
        "from ray._common.usage.usage_lib import usage_stats_enabled\n"
        "print(telemetry.FLWR_TELEMETRY_ENABLED, usage_stats_enabled())"
    )
    assert run_python("-c", code).stdout.split() == ["0", "False"]
