"""Ranges of numbers, checked where the config is complete and nothing has been loaded.

A range stands in the annotation of the argument or of the schema's field that it is of, such as
`Annotated[int, ">= 1"]` or `Annotated[float, "in (0, 1]"]`; what follows after a comma is said too.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from typing import Any, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf

from conf.declared_arguments import arguments_of
from conf.errors import ConfigError
from conf.schema import Config, is_missing, targets_in
from conf.sections import SECTIONS

DECLARED = re.compile(r"""Annotated\[(int|float), (?:'(.*?)'|"(.*?)")\]""")
RANGE = re.compile(r"(>=?) ([\d.e]+)|in ([\[(])([\d.e]+), ([\d.e]+)([\])])")
NODES = ("train", "evaluate", "available")
OF_OTHERS = {
    "torch": {
        **dict.fromkeys(("lr", "eps"), "Annotated[float, '> 0']"),
        **dict.fromkeys(("momentum", "weight_decay", "gamma"), "Annotated[float, '>= 0']"),
        "betas": "Annotated[float, 'in [0, 1)']",
        **dict.fromkeys(("T_max", "step_size"), "Annotated[int, '>= 1']"),
    },
    "flwr": {
        **dict.fromkeys(("fraction_train", "fraction_evaluate"), "Annotated[float, 'in [0, 1]']"),
        "num_malicious_nodes": "Annotated[int, '>= 0']",
        "num_nodes_to_select": "Annotated[int, '>= 1']",
        **{f"min_{of}_nodes": "Annotated[int, '>= 0']" for of in NODES},
        "eta": "Annotated[float, '> 0']",
    },
    "flwr_datasets": {
        **{f"num_{of}": "Annotated[int, '>= 1']" for of in ("partitions", "shards_per_partition")},
        "num_classes_per_partition": "Annotated[int, '>= 1']",
        "alpha": "Annotated[float, '> 0']",
        "min_partition_size": "Annotated[int, '>= 0']",
    },
}
"""What other packages declare in no annotation of theirs."""


def check_ranges(config: DictConfig) -> None:
    """Refuse numbers out of range.

    Args:
        config: The composed config.

    Raises:
        ConfigError: Names the key, the value and what was expected.
    """
    for key, value, annotation in declared_in(config):
        if reason := out_of_range(value, annotation):
            shown = repr(value) if isinstance(value, str | bool) else value
            raise ConfigError(f"{key}={shown}: expected {reason}")


def expected_of(key: str) -> str | None:
    """Say what a key of the schema has to be; None if it has no range."""
    return expected_by(schema_annotations().get(key, ""))


def out_of_range(value: Any, annotation: str) -> str | None:
    """Say what was expected of a value instead.

    Args:
        value: Of the config; of a list each number has to be in the range.
        annotation: As text, such as "Annotated[int, '>= 1'] | None".

    Returns:
        What it ought to be, or None if it is, or if no range is declared.
    """
    declared = _declared(annotation)
    if declared is None or value is None or isinstance(value, dict | DictConfig):
        return None
    if isinstance(value, ListConfig | list):
        fits = all(each is None or _fits(each, *declared) for each in value)
    else:
        others = any(kind in annotation for kind in ("str", "Literal"))  # a name, as well
        fits = (others and isinstance(value, str)) or _fits(value, *declared)
    return None if fits else expected_by(annotation)


def expected_by(annotation: str) -> str | None:
    """Say what an annotation as text, such as "Annotated[int, '>= 1'] | None", wants."""
    declared = _declared(annotation)
    if declared is None:
        return None
    kind, text = declared[0], declared[1].string
    may_be_null = re.search("None|Optional", annotation) and "null" not in text
    named = "an integer" if kind == "int" else "a number"
    return f"{named} {text}" + ", or null" * bool(may_be_null)


def _declared(annotation: str) -> tuple[str, re.Match[str]] | None:
    """Find kind and range in an annotation; None where it has none of the forms read here."""
    found = DECLARED.search(annotation)
    limits = RANGE.match(found[2] or found[3] or "") if found else None
    return (found[1], limits) if found and limits else None


def _fits(value: Any, kind: str, limits: re.Match[str]) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return False
    if math.isinf(value) and (kind == "int" or "finite" in limits.string):
        return False
    if kind == "int" and value != int(value):
        return False
    more, least, left, low, high, right = limits.groups()
    if more:
        return value > float(least) or (more == ">=" and value == float(least))
    inside = float(low) < value < float(high)
    return (
        inside or (left == "[" and value == float(low)) or (right == "]" and value == float(high))
    )


def declared_in(config: DictConfig) -> Iterator[tuple[str, Any, str]]:
    """List the keys of which something is declared, each with its value and its annotation."""
    for key, annotation in schema_annotations().items():
        if _declared(annotation):
            yield key, OmegaConf.select(config, key), annotation
    for name, kind in config.clients.architectures.items():
        yield f"clients.architectures.{name}.share", kind.get("share"), "Annotated[float, '> 0']"
    for key, node in targets_in(config, ""):
        target = str(node["_target_"])
        declared = {**_of_parts(node), **_of_target(target)}
        for name, annotation in declared.items():
            if name in node and not is_missing(node[name]):
                yield f"{key}.{name}", node[name], annotation


def _of_target(target: str) -> dict[str, str]:
    return OF_OTHERS.get(target.split(".")[0]) or arguments_of(target)


def _of_parts(node: dict[str, Any]) -> dict[str, str]:
    """Read what parts of a strategy take that stands beside them: `strategy.fraction`."""
    found: dict[str, str] = {}
    for part in node.values():
        if isinstance(part, dict) and part.get("_partial_") and "_target_" in part:
            found |= {n: a for n, a in _of_target(str(part["_target_"])).items() if n not in part}
    return found


@cache
def schema_annotations() -> dict[str, str]:
    """Read the annotations of the schema's own fields, and of its sections', as text, by key."""
    found = {}
    for section, kind in (("", Config), *SECTIONS.items()):
        assert is_dataclass(kind)
        for name, hint in get_type_hints(kind, include_extras=True).items():
            text = re.sub(r"<class '(\w+)'>", r"\1", str(hint).replace("typing.", ""))
            found[f"{section}.{name}".lstrip(".")] = text
    return found
