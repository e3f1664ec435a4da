"""Every key of every option of the config: default, what it has to be, and what it is.

    python -m conf.reference   # docs/configuration.md

What it has to be stands in the annotation of the argument; what it is, in the comment behind the
key in its YAML, or in the docstring of what is built.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conf.catalogue import about, options, parted, path_of
from conf.declared_arguments import arguments_of, docstring_of
from conf.ranges import expected_by, schema_annotations
from conf.schema import HERE, register

TYPES = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "a text"}
HEAD = """# Configuration

Every group, its options, and the keys that they have. A key is set on the command line
(`strategy.distil.epochs=10`), an option is chosen with slashes (`strategy/distil=adam`).
`stillhouse list GROUP/OPTION` says the same of one option, `python run.py --cfg job WORDS` shows a
whole config. This page is what `python -m conf.reference` prints.
"""


@dataclass(frozen=True)
class Key:
    """A key of a YAML file: name, default as written, what it has to be, what it is."""

    name: str
    default: str
    expected: str
    said: str


NONE = Key("", "", "", "")


def keys_of(path: Path, package: str) -> list[Key]:
    """List the keys that a file of conf/ sets itself, but for `_target_` and `_partial_`.

    Args:
        path: Of the file.
        package: Where its content goes in the config, such as "strategy.scorer"; "" = the root.

    Returns:
        Its keys, in their order.
    """
    text = path.read_text(encoding="utf-8")
    if header := re.match(r"# @package (\S+)", text):
        package = header[1].replace("_global_", "")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        return []
    return [*_walked(node, package, text.splitlines())]


def described(name: str) -> str:
    """Write what an option is, by its GROUP/OPTION, and a line for each of its keys."""
    register()  # where the modules of examples are
    group, option = parted(name)
    path = path_of(group, option)
    lines = [f"{group}={option}: {about(path)}"]
    for key in keys_of(path, group.replace("/", ".")):
        lines += [f"  {key.name}={key.default}  ({key.expected})  {key.said}".rstrip()]
    return "\n".join(lines)


def page() -> str:
    """Write docs/configuration.md."""
    register()
    lines = [HEAD, "## Of a run", "", *_table(keys_of(HERE / "config.yaml", ""))]
    group = ""
    for name, option, said in options():
        if name != group:
            group = name
            lines += [f"\n## {group}\n"]
            before: dict[str, Key] = {}
        keys = {key.name: key for key in keys_of(path_of(name, option), name.replace("/", "."))}
        if keys.keys() == before.keys() or name in ("experiment", "debug"):  # as the one before
            changed = [k for k in keys.values() if k.default != before.get(k.name, NONE).default]
            sets = ", ".join(f"`{each.name}={each.default}`" for each in changed)
            lines += [f"**{option}**: {said}." + f" Sets {sets}." * bool(sets), ""]
        else:
            lines += [f"**{option}**: {said}.", "", *_table([*keys.values()]), ""]
            before = keys
    return "\n".join(lines).rstrip() + "\n"


def _table(keys: list[Key]) -> list[str]:
    rows = [(f"`{k.name}`", f"`{k.default}`", k.expected, k.said.replace("|", "or")) for k in keys]
    return ["| key | default | has to be | |", "|---|---|---|---|"] + [
        f"| {' | '.join(row)} |" for row in rows
    ]


def _walked(node: yaml.MappingNode, package: str, lines: list[str]) -> Iterator[Key]:
    target = next((v.value for k, v in node.value if k.value == "_target_"), "")
    annotations = schema_annotations() if not target else arguments_of(target)
    said = _arguments_said(docstring_of(target)) if target else {}
    for key, value in node.value:
        name, full = key.value, f"{package}.{key.value}".lstrip(".")
        if name in ("_target_", "_partial_", "defaults", "hydra"):
            continue
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _walked(value, full, lines)
            continue
        default = "{}" if isinstance(value, yaml.MappingNode) else value.value
        if isinstance(value, yaml.SequenceNode):
            default = f"[{', '.join(str(each.value) for each in value.value)}]"
        annotation = annotations.get(full if not target else name, "")
        about_it = _comment(lines, value.end_mark.line, key.start_mark.column)
        yield Key(full, default, _expected(annotation), about_it or said.get(name, ""))


def _comment(lines: list[str], number: int, column: int) -> str:
    """Return the comment behind a value, with what is further in on the lines after it."""
    if number >= len(lines):
        return ""
    found = re.search(r"\s#\s(.*)$", lines[number])
    said = [found[1]] if found else []
    for line in lines[number + 1 :] if found else ():
        more = re.match(r"(\s+)#\s(.*)$", line)
        if more is None or len(more[1]) <= column:
            break
        said.append(more[2])
    return " ".join(said).strip()


def _expected(annotation: str) -> str:
    if known := expected_by(annotation):
        return known
    parts = [each.strip() for each in annotation.split("|")]
    kinds = [TYPES.get(each, "null" if each == "None" else "") for each in parts]
    if choices := re.search(r"Literal\[(.*?)\]", annotation):
        return ", ".join(str(each) for each in ast.literal_eval(f"({choices[1]},)"))
    return " or ".join(kinds) if all(kinds) else ""


def _arguments_said(docstring: str) -> dict[str, str]:
    """Read what a docstring says of each argument."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", docstring, re.M | re.S)
    found: dict[str, Any] = {}
    said = section[1] if section else ""
    for each in re.finditer(r"^    \*{0,2}(\w+): (.*(?:\n {8}.*)*)", said, re.M):
        found[each[1]] = " ".join(each[2].split())
    return found


if __name__ == "__main__":
    print(page(), end="")
