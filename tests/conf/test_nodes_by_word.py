"""A node that a word of the command line gives: where it goes, and which word puts it there."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conf.composing import composed
from conf.errors import ConfigError
from tests.commands import run_py

NODE = "{_target_: mine.f, _partial_: true}"


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder, with files where nothing looks for them."""
    folder = tmp_path_factory.mktemp("mine")
    for name in ("view/blur", "strategy/view/blur", "odd/one"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text("{_target_: mine.f, _partial_: true}\n")
    return folder


def refused(words: list[str], folders: list[Path]) -> str:
    with pytest.raises(ConfigError) as raised, composed(words, folders):
        pass
    return str(raised.value)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["strategy=distillation", f"strategy.selection={NODE}"],
         "unknown key 'strategy.selection'; put a plus before, +strategy.selection=..., or a file "
         "of yours in strategy/selection/: strategy/selection=NAME"),
        (["strategy=fedavg", f"strategy.selection={NODE}"],
         "unknown key 'strategy.selection'; only with strategy=cronus, "),
        ([f"strategy.discriminator={NODE}"],
         "strategy.discriminator={...}: is put into the one there, without '_partial_'; to have "
         "another in its place write strategy.discriminator=null 'strategy.discriminator={...}', "
         "or a file of yours in strategy/discriminator/: strategy/discriminator=NAME"),
        (["strategy.distil={_target_: mine.f, decay: 0.9}"],
         "strategy.distil={...}: is put into the one there, without 'decay'; to have another in "),
        (["strategy.teaching={taps: {}, of: 3}", "strategy=mutual"],
         "unknown key 'strategy.teaching.of'"),
        (["strategy.ensemble={temprature: 3}"], "unknown key 'strategy.ensemble.temprature'; did "
         "you mean 'strategy.ensemble.temperature'?"),
        (["clients.architectures={weak: {share: 1}}"],
         "unknown key 'clients.architectures.weak'; to add it, put a plus before: "
         "+clients.architectures=...; ~clients.architectures.NAME leaves out one that is there"),
        (["~clients.training", f"+clients.training={NODE}"],
         "~clients.training: cannot be left out; to have another in its place write "
         "clients.training=null 'clients.training={...}', or a file of yours in clients/training/"),
        (["~clients.num_clients"], "~clients.num_clients: cannot be left out; to have another in "
         "its place write clients.num_clients=..."),
        (["~clients.view"], "~clients.view: there is none to leave out"),
    ],
)  # fmt: skip
def test_which_word_does_it_is_told(words: list[str], line: str) -> None:
    assert refused(words, []).startswith(line)


@pytest.mark.parametrize(
    "words",
    [
        ["strategy=distillation", f"+strategy.selection={NODE}"],
        ["strategy.discriminator=null", f"strategy.discriminator={NODE}"],
        ["strategy.distil=null", f"strategy.distil={NODE}"],
        ["clients.training=null", f"clients.training={NODE}"],
    ],
)
def test_the_words_that_are_told_do_it(words: list[str]) -> None:
    with composed(words) as (config, _):
        key = words[-1].partition("=")[0].lstrip("+")
        assert OmegaConf.select(config, key) == {"_target_": "mine.f", "_partial_": True}


def test_architectures_are_added_by_a_plus() -> None:
    words = ["~clients.architectures.mlp", "+clients.architectures={weak: {share: 1}}"]
    with composed(words) as (config, _):
        assert [*config.clients.architectures] == ["logistic_regression", "lenet5", "weak"]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("view=blur", "'view=blur': nothing is chosen from view/ here; did you mean "
         "'clients/view=blur', of clients/view/blur.yaml?"),
        ("view=none", "'view=none': nothing is chosen from view/ here; did you mean 'clients/view"),
        ("strategy/view=blur", "'strategy/view=blur': nothing is chosen from strategy/view/ here; "
         "did you mean 'clients/view=blur'"),
        ("odd=one", "'odd=one': nothing is chosen from odd/ here; expected a defaults list that "
         "has odd, or +odd=one"),
    ],
)  # fmt: skip
def test_a_folder_that_nothing_is_chosen_from(word: str, line: str, mine: Path) -> None:
    """Where there was such a file it was Hydra's line, which names no folder."""
    assert refused([word], [mine]).startswith(line)


def test_what_is_left_out_and_needed_is_named() -> None:
    """The first was said to be a defect, not of the config."""
    for word, said in (
        ("~strategy.distil", "strategy.distil is not set: choose one, strategy/distil=NAME"),
        ("~rounds", "rounds is left out: expected rounds=..."),
    ):
        done = run_py(word, "clients.num_clients=5", "sim=inline")
        assert done.stderr.splitlines() == [f"error: {said}"]
