"""The failures of runs, by reason, and the jobs of a sweep that failed."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.report.reading import ReportError, Run, natural, require_plain
from sim.tracking.run_files import FAILED, RESULT

MOST_REASONS = 30
"""How many are shown; the rarer ones are counted."""


@dataclass(frozen=True)
class Reason:
    """Failures that are alike but for their numbers.

    Attributes:
        text: The first line of them, # for each number.
        count: How many there are.
        clients: How many clients had them.
        when: In which rounds and phases.
        where: In which runs, at most three are named.
        example: The first of them: who, when, what, traceback.
    """

    text: str
    count: int
    clients: int
    when: str
    where: str
    example: str


def reasons(runs: Sequence[Run]) -> list[Reason]:
    """Group the failures of runs by their reason.

    Args:
        runs: Any number of them.

    Returns:
        The most frequent first.
    """
    groups: dict[str, list[tuple[Run, Mapping[str, Any]]]] = {}
    for run in runs:
        for failure in run.failures:
            text = str(failure.get("failure", "")).strip() or "(no reason given)"
            groups.setdefault(re.sub(r"\d+", "#", text.splitlines()[0]), []).append((run, failure))
    return sorted(map(_reason, groups, groups.values()), key=lambda reason: -reason.count)


def _reason(text: str, members: list[tuple[Run, Mapping[str, Any]]]) -> Reason:
    rounds = [f["round"] for _, f in members if isinstance(f.get("round"), int)]
    span = f"rounds {min(rounds)} to {max(rounds)}" if len(set(rounds)) > 1 else ""
    phases = dict.fromkeys(str(f["phase"]) for _, f in members if f.get("phase"))
    names = list(dict.fromkeys(run.name for run, _ in members))
    return Reason(
        text=text,
        count=len(members),
        clients=len({(run.folder, f.get("client")) for run, f in members}),
        when=", ".join([span or "".join(f"round {r}" for r in rounds[:1]), *phases]).strip(", "),
        where=", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        example="\n".join(_example(*members[0])),
    )


def _example(run: Run, failure: Mapping[str, Any]) -> Iterator[str]:
    said = ("round", "client", "architecture", "phase")
    yield ", ".join([run.name, *(f"{key} {failure[key]}" for key in said if key in failure)])
    yield str(failure.get("failure", ""))
    yield str(failure.get("traceback") or "")


def missing(folders: Sequence[Path]) -> list[tuple[str, str]]:
    """List the jobs that failed of the sweeps in some folders.

    Args:
        folders: Any, each looked at once.

    Returns:
        What each was told, and why it failed, in the order of their numbers.

    Raises:
        ReportError: A file of a failed job cannot be read.
    """
    found = []
    for folder in dict.fromkeys(folders):
        for path in sorted(folder.rglob(FAILED), key=lambda path: natural(str(path))):
            if (path.parent / RESULT).exists():  # it was run since
                continue
            require_plain(path)
            try:
                told = json.loads(path.read_text(encoding="utf-8"))
                found.append((" ".join(map(str, told["overrides"])), str(told["reason"])))
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise ReportError(f"{path}: expected what a failed job leaves: {error}") from error
    return found
