"""Names and types of the configuration, and what to say when one is wrong.

Importing it and composing a config import neither torch nor ray nor flwr.
"""

import difflib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from conf.errors import ConfigError
from conf.renamed import new_key, new_name
from conf.sections import SECTIONS, Clients, Data, Evaluation, Stopping, Tracking
from conf.synonyms import our_key
from conf.user_code_errors import hidden, place_in_user

HERE = Path(__file__).parent
EXAMPLES = tuple(sorted(p for p in (HERE.parent / "examples").glob("*") if p.is_dir()))
"""Methods that are one file and its YAML: chosen by name as shipped ones are."""


@dataclass
class Config:
    """The whole experiment. `Any` stands for a node with `_target_`."""

    seed: Annotated[int, ">= 0"] = 0
    rounds: Annotated[int, ">= 1"] = 1
    evaluate_every: Annotated[int, ">= 1"] = 1
    quorum: Annotated[float, "in (0, 1]"] = 0.5
    checkpoint_every: Annotated[int, ">= 0, 0 for never"] = 0
    checkpoints_kept: Annotated[int, ">= 1"] = 2
    resume: str | None = None
    resume_targets: list[str] = field(default_factory=list)
    evaluation: Evaluation = field(default_factory=Evaluation)
    sim: Any = MISSING
    clients: Clients = field(default_factory=Clients)
    data: Data = field(default_factory=Data)
    partition: Any = MISSING
    student: Any = MISSING
    student_device: str = "cpu"
    student_threads: Annotated[int, ">= 1, or null for sim.threads"] | None = None
    student_workers: Annotated[int, ">= 1"] = 1
    strategy: Any = MISSING
    topology: Any = None
    availability: Any = None
    probes: dict[str, Any] = field(default_factory=dict)
    stop: Stopping = field(default_factory=Stopping)
    tracking: Tracking = field(default_factory=Tracking)


def register() -> None:
    """Tell Hydra the schema, so that unknown keys and wrong types fail as it composes.

    And where examples lie, whose modules are imported by the names that their YAML gives.
    """
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("examples", search_path, replace=True)
    sys.path += [str(folder) for folder in EXAMPLES if str(folder) not in sys.path]


def search_path(*folders: Path) -> list[str]:
    """Return where Hydra looks after conf/: in a user's folders, then in the examples."""
    return [f"file://{folder}" for folder in (*folders, *EXAMPLES)]


def search_word(*folders: Path) -> str:
    """Write the override that has Hydra look there; quoted, for folders have any names."""
    return f"hydra.searchpath=[{','.join(map(json.dumps, search_path(*folders)))}]"


def check_targets(config: DictConfig, section: str = "") -> None:
    """Refuse a `_target_` that does not exist or does not take the keys beside it.

    Imports the modules that targets are in.

    Args:
        config: The composed config.
        section: Look at this part of it only.

    Raises:
        ConfigError: Names the key and the nearest name that there is.
    """
    for key, node in targets_in(config[section] if section else config, section):
        accepted = _arguments(function_of(key, node))
        accepted = _beside_parts(key, node, accepted) | accepted
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values()):
            _refuse_unknown(key, node, [*accepted, "_target_", "_partial_"])
        if missing := [f"{key}.{name}" for name in accepted if is_missing(node.get(name))]:
            raise ConfigError(f"{missing[0]} is not set: give {'=... '.join(missing)}=...")
        for argument, parameter in accepted.items():
            if argument in node:
                _refuse_type(f"{key}.{argument}", node[argument], parameter.annotation)


def function_of(key: str, node: dict[str, Any]) -> Any:
    """Look up the function or class that a node names.

    Args:
        key: Of the node.
        node: Plain, with a `_target_`.

    Returns:
        What `_target_` names.

    Raises:
        ConfigError: There is no such module, or nothing to call of that name in it.
    """
    target = str(node["_target_"])
    module_name, _, name = target.rpartition(".")
    try:
        module = import_module(module_name)
    except Exception as error:  # anyone's module
        now = new_name(target)
        hint = f"; it is called {now} now" if now != target else ""
        said = getattr(error, "msg", None) or str(error)
        if not isinstance(error, ImportError | ValueError):
            said = f"{type(error).__name__}: {said}"
        raise ConfigError(
            f"{key}={target}: cannot import '{module_name}': {said}{place_in_user(error)}"
            f"{hint or hidden(module_name)}"
        ) from error
    theirs = str(getattr(module, "__file__", ""))
    hides = "site-packages" in theirs and module_name in {each.name for each in EXAMPLES}
    if hides and not any(Path(theirs).is_relative_to(folder) for folder in EXAMPLES):
        raise ConfigError(
            f"{key}={target}: '{module_name}' is an installed package here, {theirs}: expected a "
            f"copy of examples/{module_name} under another name, and its folder by --config-dir"
        )
    if not callable(getattr(module, name, None)):
        public = [n for n in dir(module) if n[0] != "_" and callable(getattr(module, n))]
        raise ConfigError(
            f"{key}._target_={target}: '{module_name}' has no '{name}'"
            f"{hidden(module_name) or nearest(name, public)}"
        )
    return getattr(module, name)


@cache
def _arguments(function: Any) -> dict[str, inspect.Parameter]:
    """Read what a function takes; annotations for type checkers only stay text: not judged."""

    def evaluated(annotation: Any) -> Any:
        with suppress(Exception):  # anyone's annotations
            return eval(annotation, vars(sys.modules[function.__module__]))
        return annotation

    found = inspect.signature(function).parameters
    return {n: p.replace(annotation=evaluated(p.annotation)) if isinstance(p.annotation, str) else p
            for n, p in found.items()}  # fmt: skip


def _beside_parts(
    key: str, node: dict[str, Any], accepted: dict[str, inspect.Parameter]
) -> dict[str, inspect.Parameter]:
    """Return what a strategy's parts take of what stands beside them.

    A part is a partial of a class, where an object of that class is wanted: it gets from beside it
    what is not bound in it, `strategies/argument_injection.py`.
    """
    found: dict[str, inspect.Parameter] = {}
    for name, wanted in accepted.items():
        part = node.get(name)
        if isinstance(part, dict) and part.get("_partial_") and "_target_" in part:
            kind = function_of(f"{key}.{name}", part)
            either = isinstance(wanted.annotation, UnionType)  # or None
            kinds = get_args(wanted.annotation) if either else (wanted.annotation,)
            if any(each in getattr(kind, "__mro__", ()) for each in kinds):
                inner = {n: each for n, each in _arguments(kind).items() if n not in part}
                found |= _beside_parts(key, node, inner) | inner
    return found


def check_keys(config: DictConfig) -> None:
    """Refuse keys that nothing reads; `+key=value` can bring them past Hydra.

    Args:
        config: The composed config.

    Raises:
        ConfigError: Names the key and the nearest that is known; or the group whose option is given
            as a value, with a dot for a slash.
    """
    for section, schema in (("", Config), *SECTIONS.items()):
        node = OmegaConf.select(config, section) if section else config
        _refuse_unknown(section, node, [f.name for f in fields(schema)])
    for group in _groups():
        value = OmegaConf.select(config, key := group.replace("/", "."))
        if not (value is None or isinstance(value, DictConfig)):
            raise ConfigError(
                f"{key}={value}: expected a node; an option is chosen by {group}={value}"
            )
    for name, kind in config.clients.architectures.items():
        key = f"clients.architectures.{name}"
        if not isinstance(kind, DictConfig) or not {"share", "model"} <= set(kind):
            raise ConfigError(f"{key}={kind}: expected share and model")
        _refuse_unknown(key, kind, ["share", "model", "tier"])
        if type(kind.get("tier", "")) not in (str, int, float):
            raise ConfigError(f"{key}.tier={kind.tier}: expected a text or a number")
    for name, probe in config.probes.items():
        if not isinstance(probe, DictConfig) or "_target_" not in probe:
            raise ConfigError(
                f"probes.{name}={probe}: expected a probe, {{_target_: module.function, "
                f"_partial_: true}}; ~probes.{name} leaves one out"
            )


@cache
def _groups() -> list[str]:
    return [str(path.relative_to(HERE)) for path in HERE.rglob("*") if path.is_dir()]


REFERENCE = re.compile(r"\$\{([a-z]\w*(?:\.\w+)*)\}")
PLAIN = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
PLAIN |= {type(None): "null"}


def _refuse_type(key: str, value: Any, annotation: Any) -> None:
    """Refuse a plain value where the function says that it takes another plain type."""
    union = get_origin(annotation) in (Union, UnionType)
    options = get_args(annotation) if union else (annotation,)
    options = tuple(get_args(o)[0] if get_origin(o) is Annotated else o for o in options)
    names = {o: "the _target_ of a function" for o in options if get_origin(o) is Callable} | PLAIN
    if not names.keys() >= {*options} or (len(names) > len(PLAIN) and type(value) not in PLAIN):
        return  # the function itself must judge
    if type(value) not in {*options, *([int] if float in options else [])}:
        raise ConfigError(f"{key}={value!r}: expected {' or '.join(names[o] for o in options)}")


def _refuse_unknown(section: str, node: Mapping[Any, Any], known: list[str]) -> None:
    for name in map(str, node):
        if name not in known:
            key = f"{section}.{name}".lstrip(".")
            part, _, inner = (now := new_key(key)).removeprefix(f"{section}.").rpartition(".")
            if now != key and (not part or (part in node and inner in node[part])):
                raise ConfigError(f"unknown key '{key}'; it is called {now} now")
            hint = our_key(key) or nearest(name, known)
            if not hint and "_target_" in node:
                rest = [f"~{section}.{other}" for other in map(str, node) if other not in known]
                hint = (
                    f": {node['_target_']} does not take it; {' '.join(rest)} leaves out what was "
                    "there for another, or write a YAML of your own for it"
                )
            raise ConfigError(f"unknown key '{key}'{hint}")


def targets_in(config: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk through the nodes of a config that have a `_target_`, with their keys.

    Args:
        config: The composed config or a part of it, which has this key; OmegaConf's or plain.
        key: "" of the whole.

    Yields:
        Key, its own where another refers to it, and plain node, without interpolations.
    """
    written = OmegaConf.to_container(config) if OmegaConf.is_config(config) else config
    yield from _targets(plain(config), written, key)


def _targets(node: Any, written: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(written, str):  # what it stands for may have any shape
        refers, written = REFERENCE.fullmatch(written), node
        key = refers[1] if refers and isinstance(node, dict) else key
    if isinstance(node, dict) and not is_missing(node.get("_target_", MISSING)):
        yield key, node
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _targets(value, written[name], f"{key}.{name}".lstrip("."))


def plain(node: Any) -> Any:
    """Return a node of the config as dicts and lists; OmegaConf takes 0.1 ms for each look."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def is_missing(value: Any) -> bool:
    """Tell whether a plain value has to be given."""
    return isinstance(value, str) and value == MISSING


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that is nearest, or nothing."""
    names = list(known)
    # A key given without its section comes first: clients.num_clients for num_clients.
    same_leaf = [other for other in names if other.rsplit(".", 1)[-1] == name]
    close = same_leaf or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
