"""What a run folder may hold and name: it is data that anyone may have written.

A `_target_` is trusted for its role, the place where it stands, and only if the shipped config has
it there: a function that is harmless as a model's may not be so with arguments of a stranger's.
"""

import re
import stat
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from conf.errors import ConfigError
from conf.schema import EXAMPLES, HERE

FLOWER = tuple(
    f"flwr.serverapp.strategy.{name}"
    for name in (
        *("Bulyan", "FedAdagrad", "FedAdam", "FedAvg", "FedAvgM", "FedMedian", "FedProx"),
        *("FedTrimmedAvg", "FedYogi", "Krum", "MultiKrum", "QFedAvg"),
    )
)
"""Strategies that only do sums: those whose state a checkpoint holds."""

ROLES = (
    (".model", r"student|clients\.architectures\.[^.]+\.model"),
    (".partition", r"partition(\.of)*"),
    (".partitioner", r"partition(\.of)*\.partitioner"),
    (".data", r"data\.(proxy_)?source|probes\.[^.]+\.inputs"),
    (".optimizer", r"(clients\.(training|messenger)|strategy\.(distil|how|teaching))\.optimizer"),
    (".optimizer", r"strategy\.teaching\.head_optimizer"),
    (".scheduler", r"(clients\.training|strategy\.(distil|teaching))\.scheduler"),
    (".messenger", r"clients\.messenger|strategy\.how"),
    (".rule", r"(clients\.messenger|strategy(\.how)?)\.rule"),
    (
        ".codec",
        r"(clients\.codec(_down)?|strategy\.(ensemble\.answers|ask\.[^.]+\.codec))(\.codecs\.\d+)*",
    ),
    (".graph", r"topology\.graph(\.rules\.\d+)*"),
    (".asked", r"probes\.[^.]+\.of"),
    (".probe", r"probes\.[^.]+(\.probe)?"),
)
"""Places with one role, whose name no place has. Any other place is a role of its own."""

OTHERS = {
    (".optimizer", "torch.optim"): "Optimizer",
    (".scheduler", "torch.optim.lr_scheduler"): "LRScheduler",
    (".partitioner", "flwr_datasets.partitioner"): "Partitioner",
}
"""By role and module: of which class those that may stand there are. They do sums, as Flower's."""

OF_HYDRA = re.compile(r"_.*_")
"""Words that say how a target is called, such as `_args_`."""

PATHS = ("path", "root", "test_path")
"""What shipped targets, and `data`, call the files and folders that they read."""

NO_FILES = tuple(map(Path, ("/dev", "/proc", "/sys")))


@cache
def role_of(place: str) -> str:
    """Name the role of a place in the config, such as `strategy.second.distil.optimizer`."""
    place = re.sub(r"^strategy(\.(first|second))+(?=\.|$)", "strategy", place)  # stages are whole
    return next((role for role, there in ROLES if re.fullmatch(there, place)), place)


@cache
def shipped() -> dict[str, dict[str, dict[str, Any]]]:
    """Read which targets shipped YAML has, examples' too: role -> target -> the node with it."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for root, path in sorted((r, p) for r in (HERE, *EXAMPLES) for p in r.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        header = re.match(r"# @package (\S+)", text)
        package = header[1] if header else ".".join(path.parent.relative_to(root).parts)
        content = yaml.load(text, Loader=yaml.CSafeLoader)
        for place, node in nodes(content, "" if package == "_global_" else package):
            if "_target_" in node:
                found.setdefault(role_of(place), {}).setdefault(node["_target_"], node)
    return found


def nodes(content: Any, place: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Walk through all mappings of a config, in lists too, with their places."""
    if isinstance(content, dict):
        yield place, content
    named = content.items() if isinstance(content, dict) else enumerate(content)
    for name, value in named:
        if isinstance(value, dict | list):
            name = str(name).replace(".", ":")  # a name with a dot is no two places
            yield from nodes(value, f"{place}.{name}" if place else name)


def require_trusted(place: str, node: dict[Any, Any], named: Sequence[str]) -> None:
    """Refuse a node that calls what no shipped config calls at its place.

    Args:
        place: Of the node in the config, with dots.
        node: A mapping.
        named: Targets that the command line allows, wherever they stand.

    Raises:
        ConfigError: Names the key, and what to do if the user trusts it.
    """
    words = {word for word in map(str, node) if OF_HYDRA.fullmatch(word)}
    if "_target_" not in node:
        if words:
            raise ConfigError(f"{place}.{min(words)}: expected beside a _target_ only")
        return
    target = node["_target_"]
    if target in [*named]:
        return
    partial = _trusted(role_of(place), target)
    if partial is None:
        raise ConfigError(
            f"{place}._target_={target}: not run because a file says so: no shipped config has it "
            f"there; if it is yours and you trust it, give 'resume_targets=[{target}]'"
        )
    if node.get("_partial_", False) is not partial:
        raise ConfigError(f"{place}._partial_={node.get('_partial_')}: expected {partial}")
    if unknown := words - {"_target_", "_partial_"}:
        raise ConfigError(f"{place}.{min(unknown)}: expected _target_ and _partial_ only")


def _trusted(role: str, target: Any) -> bool | None:
    """Say whether a target of a role is to be partial; None if it is not to be called at all."""
    if not isinstance(target, str):
        return None
    if target in (there := shipped().get(role, {})):
        return bool(there[target].get("_partial_", False))
    if role == "strategy" and target in FLOWER:
        return False
    # A partitioner is made, an optimiser later.
    return role != ".partitioner" if _is_of_others(role, target) else None


def _is_of_others(role: str, target: str) -> bool:
    """Tell whether a target is a class of another package's for a role that any may play."""
    module, _, name = target.rpartition(".")
    if (role, module) not in OTHERS:
        return False
    try:
        home = import_module(module)  # for a run that needs it; composing a config does not
    except ImportError:  # an extra, not installed
        return False
    found = getattr(home, name, None)
    return isinstance(found, type) and issubclass(found, getattr(home, OTHERS[role, module]))


def require_file_path(key: str, value: str) -> None:
    """Refuse a path to what is neither a file nor a folder, such as a device, which never ends."""
    try:
        path = Path(value).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # nobody's home, a loop of links, a null
        raise ConfigError(f"{key}={value}: expected a path: {error}") from error
    special = path.exists() and not (path.is_file() or path.is_dir())
    if special or any(path.is_relative_to(folder) for folder in NO_FILES):
        raise ConfigError(f"{key}={value}: expected a file or folder on a disk")


def require_plain_files(folder: Path) -> None:
    """Refuse a run folder in which anything is not a file or folder of its own.

    A link would have a resumed run write to, or remove, what lies elsewhere.

    Args:
        folder: The run folder; it may be named through a link.

    Raises:
        ConfigError: Names the first that is a link, has another name elsewhere, or is a device.
    """
    for path in sorted(folder.iterdir()):
        about = path.lstat()
        if stat.S_ISDIR(about.st_mode):
            require_plain_files(path)
        elif not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
            link = stat.S_ISLNK(about.st_mode)
            kind = "a link" if link else "a hard link" if about.st_nlink > 1 else "no file"
            shown = repr(str(path))[1:-1]  # a terminal obeys what some names hold
            raise ConfigError(
                f"{shown}: {kind}; a run goes on only in a folder of plain files, such as "
                "cp -rL makes"
            )
