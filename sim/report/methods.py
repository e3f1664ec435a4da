"""Which runs are one method under several seeds, and what to call it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.report.reading import Run

WHERE = ("sim.", "probes.", "tracking.")
WHERE_EXACTLY = (
    *("seed", "resume", "resume_targets", "checkpoint_every", "checkpoints_kept"),
    *("student_device", "student_workers", "strategy.probe_examples"),
    "strategy.proxy_split.probe_examples",  # its name now
)
"""Config, with whatever is called root, that says which seed, where a run was computed and what was
looked at, but not what was done. No bit of a CPU run depends on it, but for the seed and beyond a
stated tolerance."""

LONGEST_NAME = 80
"""Methods with a longer name are named by the folders that were asked for, if each has its own."""
ABSENT = "(absent)"
TARGET = "_target_"


@dataclass(frozen=True)
class Method:
    """Runs that differ in their seed only.

    Attributes:
        name: The values of the keys in which it differs from the others.
        runs: One for each seed.
        repeats: Further runs of a seed that is there already; they count for nothing.
    """

    name: str
    runs: Sequence[Run]
    repeats: Sequence[Run] = ()

    @property
    def finished(self) -> list[Run]:
        """The runs that are over: what is counted in a mean or a difference."""
        return [run for run in self.runs if run.result is not None]

    @property
    def shown(self) -> Run:
        """The run that stands for all where only one can be shown: the first that is over."""
        return (self.finished or list(self.runs))[0]


def methods_of(runs: Sequence[Run]) -> list[Method]:
    """Group runs into methods, in the order in which they first come.

    Runs of equal config and seed that were asked for as different folders are different methods,
    named by the folder as well; a run without a config is a method of its own.

    Args:
        runs: At least one.

    Returns:
        Methods with different names.
    """
    groups: list[list[Run]] = []
    for run in runs:
        known = "seed" in run.config
        same = [group for group in groups if known and _one_method(group[0], run)]
        same[0].append(run) if same else groups.append([run])
    names = _told(groups) or _names([_what(group[0]) for group in groups])
    methods = []
    for name, group in zip(names, groups, strict=True):
        parts = _by_source(group)
        for part in parts:
            folder = part[0].source.resolve().name
            label = " ".join(n for n in (name, f"({folder})" if len(parts) > 1 else "") if n)
            firsts = {run.seed: run for run in reversed(part)}
            kept = [run for run in part if firsts[run.seed] is run]
            repeats = [run for run in part if firsts[run.seed] is not run]
            methods.append(Method(label or folder, kept, repeats))
    return _told_apart(_named_shortly(methods))


def _told(groups: Sequence[Sequence[Run]]) -> list[str] | None:
    """Name methods by the words of the command line in which they differ, if those tell them apart.

    Where they differ in one key's value only, that value is the name; where in none, the strategy.
    """
    told = [[word for word in group[0].told if "=" in word] for group in groups]
    said = [dict(word.split("=", 1) for word in words) for words in told]
    said = [{k: v for k, v in words.items() if not _is_elsewhere(k)} for words in said]
    keys = differing_keys(said)
    chosen = [group[0].chosen for group in groups]
    said = [{k: c[k] for k in keys if k in c} | w for w, c in zip(said, chosen, strict=True)]
    names = [", ".join(f"{k}={w[k]}" for k in keys if k in w) for w in said]
    names = [n or c.get("strategy", "nothing chosen") for n, c in zip(names, chosen, strict=True)]
    if len(keys) == 1 and all(keys[0] in words for words in said):
        names = [words[keys[0]] for words in said]
    known = all(group[0].told for group in groups)
    return names if known and len({*names}) == len(names) else None


def _is_elsewhere(key: str) -> bool:
    return _is_where(key.lstrip("+~")) or key.startswith("hydra.") or key in ("sim", "probes")


def _by_source(group: Sequence[Run]) -> list[list[Run]]:
    seeds = [run.seed for run in group]
    if len(set(seeds)) == len(seeds):
        return [list(group)]
    sources = dict.fromkeys(run.source for run in group)
    return [[run for run in group if run.source == source] for source in sources]


def _named_shortly(methods: list[Method]) -> list[Method]:
    """Name methods by their folders where their configs differ in too much for a legend."""
    folders = [{run.source.resolve().name for run in (*m.runs, *m.repeats)} for m in methods]
    each_its_own = len(set().union(*folders)) == sum(map(len, folders)) == len(methods)
    if not each_its_own or max(len(method.name) for method in methods) <= LONGEST_NAME:
        return methods
    named = zip(methods, folders, strict=True)
    return [Method(folder.pop(), method.runs, method.repeats) for method, folder in named]


def _told_apart(methods: list[Method]) -> list[Method]:
    """Folders may have one name, and configs names that are written alike."""
    names = [method.name for method in methods]
    return [
        Method(f"{m.name} [{m.runs[0].folder}]", m.runs, m.repeats)
        if names.count(m.name) > 1
        else m
        for m in methods
    ]


def _what(run: Run) -> dict[str, Any]:
    return {k: v for k, v in run.config.items() if not _is_where(k)}


def _one_method(one: Run, other: Run) -> bool:
    """Tell whether two runs did the same; a part that was told the run's seed has it, too."""
    first, second = _what(one), _what(other)
    differing = [key for key in first if first[key] != second.get(key, ABSENT)]
    told = all(k.endswith(".seed") and _seeds_of(k, one, other) for k in differing)
    return first.keys() == second.keys() and told


def _seeds_of(key: str, *runs: Run) -> bool:
    return all(run.config[key] == run.seed for run in runs)


def _is_where(key: str) -> bool:
    return key in WHERE_EXACTLY or f"{key}.".startswith(WHERE) or key.endswith(".root")


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the keys that do not have one value in all configs, as the first has them, then others.

    Args:
        configs: Plain values by `path.to.key`.

    Returns:
        Keys; one that some configs lack differs.
    """
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({repr(config.get(key, ABSENT)) for config in configs}) > 1]


def _names(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name different configs by what differs; a function's arguments only where it is the same."""
    if len(configs) == 1:
        return [""]
    configs = _nulls_as_targets(configs)
    differing = differing_keys(configs)
    heads = [key.removesuffix(TARGET) for key in differing if key.endswith(TARGET)]
    kept = [
        key
        for key in differing
        if not any(key.startswith(head) and key != head + TARGET for head in heads)
    ]
    names = [", ".join(_said(key, kept, configs, one) for key in kept) for one in configs]
    for name in set(names):
        alike = [n for n, other in enumerate(names) if other == name]
        if len(alike) > 1 and len(alike) < len(configs):
            for n, rest in zip(alike, _names([configs[n] for n in alike]), strict=True):
                names[n] = f"{name}, {rest}"
    return names


def _nulls_as_targets(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Where one config has a function and another has null, say that its function is null."""
    ends = f".{TARGET}"
    targets = {key.removesuffix(ends): key for c in configs for key in c if key.endswith(ends)}
    return [{targets.get(key, key): value for key, value in one.items()} for one in configs]


def _said(
    key: str, kept: Sequence[str], configs: Sequence[Mapping[str, Any]], one: Mapping[str, Any]
) -> str:
    value = one.get(key, ABSENT)
    if key.endswith(TARGET) and value is not None:
        values = {str(config.get(key, ABSENT)) for config in configs}
        short = {text.rpartition(".")[2] for text in values}
        return str(value).rpartition(".")[2] if len(short) == len(values) else str(value)
    paths = [k.removesuffix(f".{TARGET}") for k in kept]
    parts = key.removesuffix(f".{TARGET}").split(".")
    ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
    unique = [end for end in ends if sum(f".{path}".endswith(f".{end}") for path in paths) == 1]
    return f"{unique[0] if unique else key}={shown(value)}"


def shown(value: Any) -> str:
    """Write a config value as YAML would, on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def config_differences(methods: Sequence[Method]) -> list[tuple[str, list[str]]]:
    """Compare what was configured, where it ran and with which versions.

    Args:
        methods: At least one.

    Returns:
        (key, one text for each method) for the keys that differ between any two of the runs; a
        method whose runs differ there has all its values.
    """
    columns = [[_all_of(run) for run in method.runs] for method in methods]
    keys = differing_keys([config for column in columns for config in column])
    return [
        (
            key,
            [
                ", ".join(dict.fromkeys(shown(config.get(key, ABSENT)) for config in column))
                for column in columns
            ],
        )
        for key in keys
    ]


def _all_of(run: Run) -> dict[str, Any]:
    versions = (run.result or {}).get("versions")
    named = versions.items() if isinstance(versions, Mapping) else ()
    return {**run.config} | {f"version of {name}": value for name, value in named}
