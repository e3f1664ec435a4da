"""What is wrong with a command line, where Hydra says it in a way that helps nobody.

Importing it imports neither torch, ray nor flwr.
"""

import argparse
import difflib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from conf.renamed import new_key, old_name_in
from conf.schema import EXAMPLES, HERE, nearest, search_word
from conf.synonyms import our_key, our_option

OPEN = ("clients.architectures", "probes", "strategy.teaching.taps")
"""Keys under which users put names of their own."""


OPTIONAL = ("proxy", "proxy_condition", "experiment", "debug")
"""Groups of which nothing is chosen unless somebody asks. They wanted a plus once."""

COMMANDS = {
    "report": "a report is made by python run.py report FOLDER",
    "conformance": "a function is checked by python run.py conformance KIND MODULE.NAME",
    "check": "a config is checked by python run.py check WORDS",
    "copy": "a shipped option is copied by python run.py copy GROUP/OPTION",
    "export": "a student is exported by python run.py export FOLDER",
    "list": "options are listed by python run.py list GROUP",
}
"""What run.py does beside running a federation, and how."""


def without_plus(words: list[str]) -> list[str]:
    """Take the plus off choices of optional groups: `+experiment=fml` is `experiment=fml`."""
    return [re.sub(rf"^\+\+?(?=({'|'.join(OPTIONAL)})=)", "", word) for word in words]


def explain_command(words: list[str]) -> str | None:
    """Do what `explain` does for the words of a command line; a command may be meant among them."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--config-dir", "-cd", action="append", default=[])
    given, rest = flags.parse_known_args(words)
    plain = [word for word in rest if "=" not in word]
    for word in plain:
        if near := difflib.get_close_matches(word, COMMANDS, cutoff=0.7):
            return f"'{word}': {COMMANDS[near[0]]}"
    return explain([w for w in rest if "=" in w or w.startswith("~")], given.config_dir)


def explain(overrides: list[str], folders: list[str]) -> str | None:
    """Find the first override that Hydra cannot know, and the known name nearest to it.

    Args:
        overrides: The command line without flags, such as `["rouns=3", "strategy=dlda"]`.
        folders: The user's own config folders, from `--config-dir`.

    Returns:
        One line, or None if the overrides are not at fault.
    """
    try:
        return _first_unknown(OverridesParser.create().parse_overrides(overrides), folders)
    except HydraException as error:  # Hydra has said it already
        return old_name_in(str(error))


def _first_unknown(parsed: list[Override], folders: list[str]) -> str | None:
    mine = [Path(folder).resolve() for folder in folders]
    roots = [HERE, *mine, *EXAMPLES]
    groups = {str(p.relative_to(root)) for root in roots for p in root.rglob("*") if p.is_dir()}
    choices = [o for o in parsed if o.key_or_group in groups]
    for choice in choices:
        if not choice.is_add() and _only_in(choice.key_or_group, mine):
            continue  # no folder of ours: some YAML of the user's chooses from it, or nothing does
        options = [p.stem for root in roots for p in (root / choice.key_or_group).glob("*.yaml")]
        value, every = choice.value(), f"(all: {', '.join(sorted(options))})"
        for one in [*value.list] if isinstance(value, ChoiceSweep) else [value]:
            if isinstance(one, str) and one not in options:
                group = choice.key_or_group
                hint = our_option(group, one, options) or nearest(one, options)
                return f"'{group}={one}': no such option{hint} {every}"
        if not isinstance(value, str | list | ChoiceSweep) and not choice.is_delete():
            return f"'{choice.input_line}': expected the name of an option {every}"
        if choice.is_add() and choice.key_or_group in known_keys():
            return f"leave out the plus: {choice.key_or_group}={value}"
    plain = [str(c.input_line) for c in choices if "/" not in c.key_or_group]
    for part in (choice.key_or_group for choice in choices if "/" in choice.key_or_group):
        if (key := part.replace("/", ".")) not in known_keys(*plain) and (only := _only_with(key)):
            return f"'{part}': nothing to choose here{only}"
    keys = known_keys(search_word(*mine), *(str(c.input_line) for c in choices))
    for override in parsed:
        key = override.key_or_group
        if override not in choices and key not in keys and not key.startswith("hydra."):
            parent = key.rpartition(".")[0]
            if parent in OPEN and parent in keys and not override.is_delete():
                return f"unknown key '{key}'; to add it, put a plus before: +{key}=..."
            if (now := new_key(key)) != key:
                only = "" if now in keys else _only_with(now)
                if only or now in keys or not now.startswith("strategy."):
                    return f"unknown key '{key}'; it is called {now} now{only}"
            if (inner := key.replace("data.", "data.source.", 1)) in keys:  # data.path of a reader
                return f"unknown key '{key}'; did you mean '{inner}'?"
            hint = our_key(key) or _choosable(key, groups, choices, mine) or _only_with(key)
            if not hint and f"{parent}._target_" in (other.key_or_group for other in parsed):
                hint = f"; if its {parent}._target_ takes it, put a plus before: +{key}=..."
            return f"unknown key '{key}'{hint or nearest(key, [*keys, *groups])}"
        if override.is_add() and key in keys and not isinstance(override.value(), dict | list):
            return f"leave out the plus: {str(override.input_line).lstrip('+')}"
    return None


def _only_in(group: str, folders: list[Path]) -> bool:
    """Tell whether a group is a folder of the user's only."""
    ours = any((root / group).is_dir() for root in (HERE, *EXAMPLES))
    return not ours and any((root / group).is_dir() for root in folders)


def nothing_chosen_from(group: str, words: list[str]) -> str:
    """Say that the config chooses nothing from a folder, and from which of that name it does.

    Args:
        group: As Hydra refuses it.
        words: The command line.

    Returns:
        The line.
    """
    option = next((w.partition("=")[2] for w in words if w.partition("=")[0] == group), "...")
    folders = [str(path.relative_to(HERE)) for path in HERE.rglob("*") if path.is_dir()]
    leaf = group.rpartition("/")[2]
    near = [each for each in folders if each.rpartition("/")[2] == leaf and each != group]
    meant = f"did you mean '{near[0]}={option}', of {near[0]}/{option}.yaml?" if near else (
        f"expected a defaults list that has {group}, or +{group}={option}"
    )  # fmt: skip
    return f"'{group}={option}': nothing is chosen from {group}/ here; {meant}"


def _choosable(key: str, groups: set[str], choices: list[Override], mine: list[Path]) -> str:
    """Hint at the plus, where a group of this name is there and nothing is chosen from it."""
    if (group := key.replace(".", "/")) not in groups or "/" not in group:
        return ""
    try:
        known_keys(search_word(*mine), *(str(c.input_line) for c in choices), f"{group}=none")
    except HydraException:  # there is none here
        return ""
    return f"; put a plus before, +{key}=..., or a file of yours in {group}/: {group}=NAME"


def _only_with(key: str) -> str:
    """Name the options of a key's own group that have it: `sim.workers` is known to `sim=ray`."""
    group, _, rest = key.partition(".")
    options = sorted(path.stem for path in (HERE / group).glob("*.yaml"))
    having = [option for option in options if rest in _keys_in(HERE / group, option)]
    return f"; only with {group}={', '.join(having)}" if having else ""


@cache
def _keys_in(folder: Path, option: str) -> frozenset[str]:
    """List the keys of an option, with those of what it chooses: Hydra takes 0.2 s for each."""
    content = yaml.load((folder / f"{option}.yaml").read_text(), yaml.CSafeLoader) or {}
    found = set(_keys({name: value for name, value in content.items() if name != "defaults"}, ""))
    for chosen in content.get("defaults", []):
        pairs = chosen.items() if isinstance(chosen, dict) else [("", chosen)]
        for name, value in pairs:
            part = str(name).removeprefix("override ")
            inner = folder / part
            for each in value if isinstance(value, list) else [value]:
                if each != "_self_" and (inner / f"{each}.yaml").is_file():
                    prefix = f"{part}." if part else ""
                    found |= {prefix.rstrip("."), *(prefix + k for k in _keys_in(inner, each))}
    return frozenset(found - {""})


@cache
def known_keys(*choices: str) -> list[str]:
    """List every key of the config that the given group choices compose, which takes 0.2 s."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(HERE), version_base="1.3"):
        config = compose("config", overrides=[*choices])
    container = OmegaConf.to_container(config, resolve=False)
    return list(_keys(container, ""))


def _keys(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield f"{prefix}{name}"
            yield from _keys(value, f"{prefix}{name}.")
