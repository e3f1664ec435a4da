"""Every option of every group of conf/: what `list` tells, and what `copy` puts into a folder."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from conf.errors import ConfigError
from conf.schema import EXAMPLES, HERE, nearest

LISTS = ("strategy/ask",)
"""Groups of which several options may be chosen at once."""
LONGEST = 110
"""Of what is said of an option; of a longer sentence it is what comes before a semicolon."""


def options() -> Iterator[tuple[str, str, str]]:
    """Tell group, option and what it is, one sentence, of all that are shipped; by group."""
    for (group, option), path in sorted(_files().items()):
        yield group, option, about(path)


def about(path: Path) -> str:
    """Return the first sentence of an option's comment; "" where it has none."""
    said: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            said.append(line.removeprefix("#").strip())
    first = re.split(r"(?<!al)\.\s", " ".join(said))[0].rstrip(".,")
    return first if len(first) <= LONGEST else first.split("; ")[0]


def parted(name: str) -> tuple[str, str]:
    """Part GROUP/OPTION, or GROUP=OPTION, into these two."""
    group, _, option = name.replace("=", "/").rpartition("/")
    return group, option


def is_option(name: str) -> bool:
    """Tell whether GROUP/OPTION is one that is shipped."""
    return parted(name) in _files()


def path_of(group: str, option: str) -> Path:
    """Find the file of an option.

    Args:
        group: Such as "strategy/scorer".
        option: Such as "entropy".

    Returns:
        Its path.

    Raises:
        ConfigError: There is no such option; names the nearest.
    """
    files = _files()
    if (group, option) not in files:
        names = [f"{g}/{o}" for g, o in files]
        raise ConfigError(
            f"'{group}/{option}': no such GROUP/OPTION{nearest(f'{group}/{option}', names)}"
        )
    return files[group, option]


def listed(group: str | None = None) -> str:
    """Write the options of a group, or of all, with one line each.

    Args:
        group: Such as "strategy/scorer"; None = every group.

    Returns:
        The text.

    Raises:
        ConfigError: There is no such group; names the nearest.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for name, option, said in options():
        found.setdefault(name, []).append((option, said))
    if group is not None and group not in found:
        raise ConfigError(f"'{group}': no such group{nearest(group, found)}")
    lines = []
    for name in found if group is None else [group]:
        lines += [f"{name}  ({chosen(name, 'OPTION')})"]
        lines += [f"  {option:24}  {said}" for option, said in found[name]]
    return "\n".join(lines)


def chosen(group: str, option: str) -> str:
    """Write the word of a command line that chooses an option."""
    return f"{group}=" + (f"[{option}]" if group in LISTS else option)


def copied(name: str, folder: Path) -> tuple[Path, str]:
    """Copy an option into a folder under a name of its own, to be edited.

    Args:
        name: GROUP/OPTION, as `strategy/scorer/entropy`, or GROUP=OPTION.
        folder: The user's, for `--config-dir`.

    Returns:
        The file, and the words that use it.

    Raises:
        ConfigError: There is no such option, or there is such a file already.
    """
    group, option = parted(name)
    shipped = path_of(group, option)
    own = f"my_{option}"
    path = folder / group / f"{own}.yaml"
    if path.exists():
        raise ConfigError(f"{path}: exists already; rename it, or edit it as it is")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(shipped.read_bytes())
    return path, f"--config-dir {folder} {chosen(group, own)}"


@cache
def _files() -> dict[tuple[str, str], Path]:
    """Find the file of each option, by group and name; conf/ comes before examples/."""
    found: dict[tuple[str, str], Path] = {}
    for root in (HERE, *EXAMPLES):
        for path in root.rglob("*.yaml"):
            if group := path.parent.relative_to(root).as_posix().strip("."):
                found.setdefault((group, path.stem), path)
    return found
