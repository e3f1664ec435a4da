"""Every shipped option composes with targets that exist, and comes back from a run folder."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conf.ranges import check_ranges
from conf.resume import fingerprint
from conf.schema import check_keys, check_targets
from tests.composing import composed
from tests.saved_configs import resumed
from tests.shipped_configs import OPTIONS, REQUIRED


def test_how_many_configs_there_are() -> None:
    groups = {option.split("=")[0] for option in OPTIONS}
    assert groups == {
        "availability", "clients", "clients/codec", "clients/condition", "clients/messenger",
        "clients/objective", "clients/profile", "clients/shape", "clients/training", "clients/view",
        "data", "debug", "experiment", "partition", "probes", "proxy",
        "proxy_condition", "sim",
        "strategy", "strategy/ask", "strategy/combiner", "strategy/discriminator",
        "strategy/distil",
        "strategy/head", "strategy/loss", "strategy/rule", "strategy/scorer",
        "strategy/selection", "student", "topology", "topology/mixing",
    }  # fmt: skip
    assert len(OPTIONS) == 211


def words_of(option: str) -> list[str]:
    """Choose an option, with what it needs beside itself."""
    added = ("experiment", "debug", "proxy", "proxy_condition")
    prefix = "+" if option.split("=")[0] in added else ""
    return [prefix + option, *([REQUIRED[option]] if option in REQUIRED else [])]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_with_targets_that_exist(option: str) -> None:
    config = composed(*words_of(option))
    check_keys(config)
    check_ranges(config)
    check_targets(config)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_comes_back_from_a_run_folder_as_it_went_in(
    option: str, tmp_path: Path
) -> None:
    config = composed(*words_of(option), "checkpoint_every=3")
    text = OmegaConf.to_yaml(config, resolve=True)
    (tmp_path / "config.yaml").write_text(text)
    again = resumed(tmp_path)
    assert OmegaConf.to_yaml(again, resolve=True) == text
    assert fingerprint(again) == fingerprint(config)
