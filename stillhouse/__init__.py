"""A simulator for federated and decentralised distillation, under its one installed name.

Importing it puts the folder that holds clients/, strategies/, sim/, conf/ and run.py first on
`sys.path`: in a checkout the repo's, in an installed package `house/` below this one.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillhouse.api import Result as Result
    from stillhouse.api import RunError as RunError
    from stillhouse.api import run as run
    from stillhouse.api import stop_when as stop_when
    from stillhouse.mlflow_callback import to_mlflow as to_mlflow
    from stillhouse.models import export as export
    from stillhouse.models import load_student as load_student
    from stillhouse.wandb_callback import to_wandb as to_wandb

_HERE = Path(__file__).resolve().parent
HOUSE = _HERE / "house" if (_HERE / "house").is_dir() else _HERE.parent
"""Where everything else lies."""

OURS = ("clients", "conf", "run", "sim", "strategies")

_OFFERED = dict.fromkeys(("Result", "RunError", "run", "stop_when"), "api")
_OFFERED |= dict.fromkeys(("export", "load_student"), "models")
_OFFERED |= {"to_mlflow": "mlflow_callback", "to_wandb": "wandb_callback"}


def __getattr__(name: str) -> Any:
    """Import what is asked for: `stillhouse list` needs none of it."""
    if name == "__version__":
        return import_module("stillhouse.command").own_version()
    if name not in _OFFERED:
        raise AttributeError(f"stillhouse has no '{name}'; it has {', '.join(sorted(_OFFERED))}")
    found = globals()[name] = getattr(import_module(f"stillhouse.{_OFFERED[name]}"), name)
    return found


def _open_house() -> None:
    """Make ours the modules of these names, or say which others are in the way."""
    if str(HOUSE) in sys.path:
        sys.path.remove(str(HOUSE))
    sys.path.insert(0, str(HOUSE))
    for name in OURS:
        module = sys.modules.get(name)
        spec = find_spec(name) if module is None else getattr(module, "__spec__", None)
        places = [*(getattr(spec or module, "submodule_search_locations", None) or ())]
        places += [getattr(spec, "origin", None) or getattr(module, "__file__", None) or "no file"]
        if not any(Path(place).resolve().is_relative_to(HOUSE) for place in places):
            raise ImportError(
                f"stillhouse: '{name}' is another module here, {places[0]}: expected "
                f"{HOUSE / name}; import stillhouse first, or rename yours"
            )


_open_house()
