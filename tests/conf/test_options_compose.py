"""Every shipped option composes with targets that exist, and comes back from a run folder."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, ListConfig, OmegaConf

from conf.errors import ConfigError
from conf.ranges import check_ranges, declared_in, out_of_range
from conf.resume import fingerprint
from conf.schema import check_keys, check_targets
from tests.composing import composed
from tests.saved_configs import resumed
from tests.shipped_configs import OPTIONS, REQUIRED


def test_how_many_configs_there_are() -> None:
    groups = {option.split("=")[0] for option in OPTIONS}
    assert groups == {
        "availability", "clients", "clients/codec", "clients/condition", "clients/messenger",
        "clients/objective", "clients/profile", "clients/shape", "clients/training",
        "clients/training/optimizer", "clients/training/scheduler", "clients/view",
        "data", "debug", "experiment", "partition", "probes", "proxy",
        "proxy_condition", "sim",
        "strategy", "strategy/ask", "strategy/combiner", "strategy/discriminator",
        "strategy/distil",
        "strategy/head", "strategy/loss", "strategy/rule", "strategy/scorer",
        "strategy/selection", "student", "topology", "topology/mixing",
    }  # fmt: skip
    assert len(OPTIONS) == 255


def words_of(option: str) -> list[str]:
    """Choose an option, with what it needs beside itself."""
    return [option, *([REQUIRED[option]] if option in REQUIRED else [])]


ALONE = ("clients", "debug", "experiment", "strategy", "strategy/rule", "strategy/head")
"""Groups whose options choose others too; all others go together, one of each at a time."""


def together() -> list[list[str]]:
    """Choose every option once, in as few configs as can be: Hydra takes 0.4 s for one."""
    alone = [o for o in OPTIONS if o.split("=")[0] in ALONE]
    groups: dict[str, list[str]] = {}
    for option in OPTIONS:
        if option not in alone:
            groups.setdefault(option.split("=")[0], []).append(option)
    rows = [[o for o in row if o] for row in itertools.zip_longest(*groups.values())]
    # Graphs stand beside their mixing, which has fewer options.
    return (
        [[option] for option in alone]
        + [[o for o in row if fits(o, row)] for row in rows]
        + [[option] for row in rows for option in row if not fits(option, row)]
    )


def fits(option: str, row: list[str]) -> bool:
    """Tell whether an option goes with the others: what it needs may not be chosen otherwise."""
    needed = REQUIRED.get(option, "").split("=")[0]
    return not any(other.split("=")[0] == needed for other in row)


TOGETHER = together()


def test_every_option_is_in_one_of_the_configs() -> None:
    assert sorted(option for options in TOGETHER for option in options) == OPTIONS


@pytest.mark.parametrize("options", TOGETHER, ids=" ".join)
def test_every_option_composes_with_targets_that_exist(options: list[str]) -> None:
    config = composed(*(word for option in options for word in words_of(option)))
    check_keys(config)
    check_ranges(config)
    check_targets(config)


FREE = {"shift", "turns", "defaults"}
"""Numbers that may be any: moves around a circle."""

_refused: set[str] = set()
"""Keys that were tried already: many configs have the same."""


def numbers_of(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Find all numbers of a config, and lists of numbers, with their keys."""
    if isinstance(node, DictConfig):
        for name in map(str, node):
            if OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name):
                continue  # the other key is one of these
            yield from numbers_of(node[name], f"{key}.{name}".lstrip("."))
    elif isinstance(node, ListConfig):
        if node and all(type(each) in (int, float) for each in node):
            yield key, [*node]
    elif type(node) in (int, float):
        yield key, node


@pytest.mark.parametrize("options", TOGETHER, ids=" ".join)
def test_every_number_has_a_range_beyond_which_it_is_refused(options: list[str]) -> None:
    config = composed(*(word for option in options for word in words_of(option)))
    declared = {key: text for key, _, text in declared_in(config)}
    for key, value in numbers_of(config):
        if key.split(".")[-1] in FREE:
            continue
        assert "Annotated" in declared.get(key, ""), key
        assert out_of_range(value, declared[key]) is None
        for wrong in (-1, float("nan"), -float("inf"), True):
            assert out_of_range(wrong, declared[key])
        bounded = re.search("int|finite|\\bin ", declared[key])
        assert bool(out_of_range(float("inf"), declared[key])) == bool(bounded)
        if key not in _refused:
            _refused.add(key)
            wrong = [-1] if isinstance(value, list) else -1
            OmegaConf.update(config, key, wrong)
            with pytest.raises(ConfigError) as refused:
                check_ranges(config)
            said = rf"{re.escape(f'{key}={wrong}')}(\.0)?: expected an? (integer|number) (>|in).*"
            assert re.fullmatch(said, str(refused.value))
            OmegaConf.update(config, key, value)


@pytest.mark.parametrize("options", TOGETHER, ids=" ".join)
def test_every_option_comes_back_from_a_run_folder_as_it_went_in(
    options: list[str], tmp_path: Path
) -> None:
    words = [word for option in options for word in words_of(option)]
    config = composed(*words, "checkpoint_every=3")
    text = OmegaConf.to_yaml(config, resolve=True)
    (tmp_path / "config.yaml").write_text(text)
    again = resumed(tmp_path)
    assert OmegaConf.to_yaml(again, resolve=True) == text
    assert fingerprint(again) == fingerprint(config)
