"""What Hydra says of a command line or a user's YAML as it composes the config, in one line.

Importing it imports neither torch, ray nor flwr.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, SearchPathException
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from conf.command_line_errors import OPEN, explain_command, known_keys, nothing_chosen_from
from conf.errors import tell
from conf.ranges import expected_of
from conf.resume import change_refused
from conf.schema import HERE, nearest
from conf.synonyms import our_key

KINDS = {"Integer": "an integer", "Float": "a number", "bool": "true or false"}
"""Of OmegaConf's, as it calls them where a value is of none of them."""


@contextmanager
def composition_explained(words: list[str]) -> Iterator[None]:
    """Have Hydra raise what is wrong instead of printing it, and tell the user in one line.

    Args:
        words: The command line, without the program's name.

    Yields:
        Nothing.

    Raises:
        SystemExit: Instead of an error.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    except Exception as error:
        tell(told(error, words), error)
        sys.exit(1)


def usage_errors_in_one_line() -> None:
    """Have argparse, Hydra's too, leave out its usage before what is wrong with a flag."""

    def error(parser: argparse.ArgumentParser, message: str) -> NoReturn:
        hint = ""
        if flag := re.search("unrecognized arguments: -*([\\w-]+)", message):
            ours = our_key(flag[1]) or "; options are words KEY=VALUE without dashes"
            late = "; flags, such as -m or --config-dir, come before the words KEY=VALUE"
            hint = ours if message.partition("arguments: ")[2].startswith("-") else late
        tell(f"{message}{hint}; {parser.prog} --help says more")
        sys.exit(2)

    argparse.ArgumentParser.error = error  # type: ignore[assignment]


def told(error: BaseException, words: list[str]) -> str:
    """Say in one line what Hydra means by an error.

    Args:
        error: What it raised.
        words: The command line, without the program's name.

    Returns:
        The line.
    """
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    for cause in causes:
        if isinstance(cause, MarkedYAMLError):
            return _of_yaml(cause)
        if isinstance(cause, SearchPathException):
            return f"--config-dir: {cause}"
    if found := _of_words(words) or _of_resume(words) or explain_command(words):
        return found
    if "raised while composing config" in str(error):
        return _of_file(str(error))
    for cause in causes:
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return _of_node(cause, words) or _of_value(cause)
        if isinstance(cause, MissingConfigException):
            return _of_defaults(cause)
    if group := re.search("Could not override '(.*?)'. No match", str(error)):
        return nothing_chosen_from(group[1], words)
    if absent := re.search("Could not delete from config. '(.*?)' does not exist", str(error)):
        return f"~{absent[1]}: there is none to leave out"
    if several := re.search("Ambiguous value for argument '(.*?)'", str(error)):
        return f"{several[1]}: several values: expected -m before the words for a sweep, or [a,b]"
    if again := re.search("Multiple values for (.*?)\\. To", str(error)):
        return f"{again[1]} is chosen twice: in a defaults list write 'override /{again[1]}: ...'"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _of_yaml(error: MarkedYAMLError) -> str:
    place = error.problem_mark or error.context_mark
    where = f"{place.name}, line {place.line + 1}" if place else "a YAML file"
    return f"{where}: no YAML: {error.problem or error.context}"


def _of_words(words: list[str]) -> str | None:
    """Find the first word of a command line that is no override."""
    parser = OverridesParser.create()
    for word in get_args_parser().parse_args(words).overrides:
        try:
            parser.parse_override(word)
        except HydraException as error:
            if "=" not in word:
                return explain_command([word]) or f"'{word}': expected KEY=VALUE"
            fault = str(error).splitlines()[0]
            return f"'{word}': cannot be read: {fault}; put what has signs into quotes: '...'"
    return None


def _of_resume(words: list[str]) -> str | None:
    """Say that a resumed run keeps its config, rather than that a key of its is not known here."""
    return change_refused(get_args_parser().parse_args(words).overrides)


def _of_node(error: OmegaConfBaseException, words: list[str]) -> str | None:
    """Say which word puts another node in the place of one that a mapping does not fit into."""
    full, said = str(error.full_key), str(error.msg or error)
    if "does not support deletion" in said:
        return f"~{full}: cannot be left out; {_instead(full)}"
    if "is not in struct" not in said:
        return None
    for word in words:
        key, _, value = word.partition("=")
        name = full.removeprefix(f"{key}.")
        if not value.startswith("{") or name == full:
            continue
        if key in OPEN:
            return (
                f"unknown key '{full}'; to add it, put a plus before: +{key}=...; "
                f"~{key}.NAME leaves out one that is there"
            )
        if "_target_" in value:
            return f"{key}={{...}}: is put into the one there, without '{name}'; {_instead(key)}"
        return f"unknown key '{full}'{nearest(full, known_keys())}"
    return None


def _instead(key: str) -> str:
    group = key.replace(".", "/")
    if not (HERE / group).is_dir():
        return f"to have another in its place write {key}=..., for a node after {key}=null"
    chosen = f"or a file of yours in {group}/: {group}=NAME"
    return f"to have another in its place write {key}=null '{key}={{...}}', {chosen}"


def _of_value(error: OmegaConfBaseException) -> str:
    key, said = str(error.full_key), str(error.msg or error).splitlines()[0]
    if "is not a ListConfig" in said:
        expected = "a list, such as [1,2]"
    elif known := expected_of(key):
        expected = known
    elif found := re.search("could not be converted to (\\w+)|not a valid (\\w+)", said):
        expected = KINDS.get(found[1] or found[2], found[1] or found[2])
    else:
        return f"{key}: {said}"
    value: Any = re.search("Value '(.*)' (of type|is not a)", said)
    return f"{key}={value[1]!r}: expected {expected}" if value else f"{key}: expected {expected}"


def _of_file(said: str) -> str:
    """Say what is wrong with a file of a user's that does not fit into the config."""
    file, key = re.search("In '(.*?)'", said), re.search("full_key: (\\S+)", said)
    lines = [line for line in said.splitlines()[1:] if line.strip()]
    if file is None or key is None or not lines:
        return said.splitlines()[0]
    if "ConfigKeyError" in said or "ConfigAttributeError" in said:
        return f"{file[1]}.yaml: unknown key '{key[1]}'{nearest(key[1], known_keys())}"
    return f"{file[1]}.yaml: {key[1]}: {lines[0]}"


def _of_defaults(error: MissingConfigException) -> str:
    """Say which file of a user's chooses an option that there is not."""
    said = str(error).splitlines()[0]
    option = str(error.missing_cfg_file or "").rpartition("/")[2]
    return f"{said}{nearest(option, error.options or ())}"
