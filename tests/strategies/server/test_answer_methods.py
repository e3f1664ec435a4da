"""Methods that are YAML over `distillation`: the same bits on both pools, and after a resume."""

from pathlib import Path
from typing import Any

import pytest

from tests.composing import composed
from tests.federations import SEED
from tests.quick_runs import federated, hashes
from tests.tiny_runs import TAUGHT

WORDS = [word for word in TAUGHT if word != "sim=inline"]
METHODS = {
    "dsfl": ["strategy=dsfl", "strategy.selection.examples=9"],
    "fedet": ["strategy=fedet"],
    "cronus": ["strategy=cronus", "strategy.combiner.share=0.4"],
    "selective_fd": ["strategy=selective_fd", "strategy.scorer.ambiguity=1.2"],
    "fedaux": ["strategy=fedaux"],
    "fedgo": ["strategy=fedgo"],
    "dafkd": ["strategy=dafkd"],
    "cfd": ["experiment=cfd"],
}


THREE = [*WORDS, "rounds=3", f"seed={SEED}"]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return federated(tmp_path_factory.mktemp("usual") / "run", "strategy=distillation", *THREE)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_same_bits_on_both_pools(
    name: str, usual: dict[str, Any], tmp_path: Path
) -> None:
    words = [*METHODS[name], *THREE]
    here = federated(tmp_path / "inline", *words)
    there = federated(tmp_path / "ray", *words, sim="ray")
    assert hashes(here) == hashes(there)
    assert hashes(usual) != hashes(here)


def test_targets_to_be_fed_back_are_gone_on_with_after_a_resume(tmp_path: Path) -> None:
    words = [*METHODS["dsfl"], *WORDS, f"seed={SEED}"]
    whole = federated(tmp_path / "whole", *words, "rounds=3")
    federated(tmp_path / "begun", *words, "rounds=2", "checkpoint_every=1")
    again = federated(tmp_path / "begun", resumed=["rounds=3"])
    assert hashes(again) == hashes(whole)


def test_each_round_is_about_other_examples_and_so_many() -> None:
    config: Any = composed("strategy=dsfl")
    assert config.strategy.selection.examples == 1000
    assert config.strategy.combiner.era_temperature == 0.1
    assert config.strategy.feed_back == "targets"
