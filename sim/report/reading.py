"""From run folders to values: which folders hold runs, and what each of them says.

Whatever a run did not get to write is absent; what is there but cannot be read is an error that
names the file. Everything is read as data: nothing that a file names is imported.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sim.tracking.run_files import (
    CLIENTS,
    CONFIG,
    FAILURES,
    METRICS,
    PARTITION,
    PARTITION_SUMMARY,
    RESULT,
)

WORDS, CHOICES = ".hydra/overrides.yaml", ".hydra/hydra.yaml"

EXPECTED = (
    f"a run folder, as a run leaves it ({CONFIG}, {METRICS} and more; runs/DATE/TIME if not said "
    "otherwise), or a folder of them, such as a sweep's"
)


class ReportError(ValueError):
    """Something that a report cannot be made of; the message names the file or folder."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a run folder says, but for its tables; no run equals another.

    Attributes:
        folder: The run folder.
        name: The folder as the reader of a report knows it, such as `12-00-00-sweep/3`.
        source: The folder that was asked for: the run folder itself, or what holds it.
        config_text: The content of `config.yaml`; "" if there is none.
        config: The same as `path.to.key` to plain value; lists stay whole.
        lines: The lines of `metrics.jsonl`, by round.
        result: The content of `result.json`; None while a run is not over.
        failures: The lines of `failures.jsonl`.
        told: The words of the command line that began it; () if they are not known.
        chosen: The option of each group, such as "dlad" of "strategy"; {} if they are not known.
    """

    folder: Path
    name: str
    source: Path
    config_text: str
    config: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any] | None
    failures: Sequence[Mapping[str, Any]]
    told: Sequence[str] = ()
    chosen: Mapping[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int | None:
        """The config's seed; None if there is none to be found."""
        seed = self.config.get("seed", (self.result or {}).get("seed"))
        return seed if isinstance(seed, int) else None

    @property
    def rounds(self) -> int:
        """The last round that was written down; 0 if there is none."""
        return int(self.lines[-1]["round"]) if self.lines else 0


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """Read all runs in some folders, each once, in the folders' order.

    Args:
        folders: Each a run folder, or a folder with run folders anywhere below it.

    Returns:
        At least one run; `sweep/2` comes before `sweep/10`.

    Raises:
        ReportError: A folder is missing or holds no run, or a run's file cannot be read.
    """
    runs: dict[Path, Run] = {}
    for source in folders:
        if not source.is_dir():
            raise ReportError(_no_folder(source))
        found = sorted(_run_folders(source), key=lambda path: natural(str(path)))
        if not found:
            raise ReportError(f"{source}: no run in it; expected {EXPECTED}")
        for folder in found:
            if folder.resolve() not in runs:
                runs[folder.resolve()] = read_run(folder, source)
    return list(runs.values())


def _no_folder(source: Path) -> str:
    """Say what is wrong with a word of the command line that names no folder."""
    if source.is_file():
        above = source.absolute().parent
        held = f"; did you mean its folder, {above}?" if (above / METRICS).is_file() else ""
        return f"{source}: a file, no folder; expected {EXPECTED}{held}"
    key, equals, value = str(source).partition("=")
    if equals and key.strip("-") == "out":
        return f"{source}: no such folder; the file to write is named by --out {value or 'FILE'}"
    if equals:
        return f"{source}: no such folder; a report takes folders and --out, no KEY=VALUE"
    return f"{source}: no such folder"


def _run_folders(folder: Path) -> Iterator[Path]:
    """A run that died before its first round has no metrics, but what `begin` writes."""
    begun = (folder / CONFIG).is_file() and (folder / PARTITION_SUMMARY).is_file()
    if begun or (folder / METRICS).is_file():
        yield folder
        return
    for below in folder.iterdir():
        if below.is_dir() and not below.name.startswith(".") and not below.is_symlink():
            yield from _run_folders(below)


def natural(name: str) -> list[tuple[int, str]]:
    """Give what to sort names by so that 2 comes before 10."""
    return [(int(digits or 0), rest) for digits, rest in re.findall(r"(\d*)(\D*)", name)]


def read_run(folder: Path, source: Path | None = None) -> Run:
    """Read a run folder.

    Args:
        folder: The run folder.
        source: The folder that was asked for; None = this one.

    Returns:
        What it says.

    Raises:
        ReportError: A file is damaged; names the file, and the line where it has lines.
    """
    source = folder if source is None else source
    _require_plain(folder)
    within = folder.resolve().relative_to(source.resolve())
    text = _text(folder / CONFIG)
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.CSafeLoader)):
            raise yaml.YAMLError("aliases, whose copies may be without end")
        config = yaml.load(text, yaml.CSafeLoader) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise ReportError(f"{folder / CONFIG}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ReportError(f"{folder / CONFIG}: expected keys and values")
    result = _text(folder / RESULT)
    return Run(
        folder=folder,
        name=str(Path(source.resolve().name) / within),
        source=source,
        config_text=text,
        config=flat(config, "."),
        lines=_metrics(folder / METRICS, open_ended=not result),
        result=_record(result, str(folder / RESULT)) if result else None,
        failures=_lines(folder / FAILURES, open_ended=not result),
        told=_words(folder / WORDS),
        chosen=_choices(folder / CHOICES),
    )


def _of_hydra(path: Path) -> Any:
    """Read what Hydra keeps of a command line; None of what is none of its files."""
    if path.parent.is_symlink() or path.is_symlink() or not path.is_file():
        return None
    try:
        return yaml.load(_text(path), yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError):  # a date that is none
        return None


def _words(path: Path) -> tuple[str, ...]:
    said = _of_hydra(path)
    words = said if isinstance(said, list) else []
    return tuple(w for w in words if isinstance(w, str) and w.isprintable())


def _choices(path: Path) -> dict[str, str]:
    said = _of_hydra(path)
    for name in ("hydra", "runtime", "choices"):
        said = said.get(name) if isinstance(said, dict) else None
    found = said.items() if isinstance(said, dict) else ()
    plain = {k: v for k, v in found if isinstance(k, str) and isinstance(v, str)}
    return {k: v for k, v in plain.items() if (k + v).isprintable()}


def flat(node: Mapping[Any, Any], separator: str, prefix: str = "") -> dict[str, Any]:
    """Make nested names one name each: `{"a": {"b": 1}}` is `{"a.b": 1}` with separator "."."""
    values: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            values |= flat(value, separator, f"{prefix}{key}{separator}")
        else:
            values[f"{prefix}{key}"] = value
    return values


def _metrics(path: Path, open_ended: bool) -> list[dict[str, Any]]:
    lines = _lines(path, open_ended)
    for number, line in enumerate(lines, 1):
        if type(line.get("round")) is not int:
            raise ReportError(f"{path}, line {number}: no `round`, expected an integer")
        if number > 1 and line["round"] <= lines[number - 2]["round"]:
            raise ReportError(f"{path}, line {number}: round {line['round']} does not follow")
    return lines


def _lines(path: Path, open_ended: bool) -> list[dict[str, Any]]:
    """A run that is not over may be writing its last line, which then has no end yet."""
    lines = _text(path).splitlines(keepends=True)
    if open_ended and lines and not lines[-1].endswith("\n"):
        lines.pop()
    return [_record(line, f"{path}, line {n}") for n, line in enumerate(lines, 1)]


def _record(text: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise ReportError(f"{where}: no JSON: {error}") from error
    if not isinstance(record, dict):
        raise ReportError(f"{where}: expected names and values, not {str(record)[:40]}")
    return record


def _require_plain(folder: Path) -> None:
    for name in (CONFIG, METRICS, RESULT, FAILURES, CLIENTS, PARTITION):
        require_plain(folder / name)


def require_plain(path: Path) -> None:
    """Refuse a link, which might put any file of the reader's into a report, and a device."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ReportError(f"{path}: expected a plain file, found a link or a device")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: cannot be read: {error}") from error
