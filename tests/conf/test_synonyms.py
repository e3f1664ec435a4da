"""Names that other projects have for our keys and options lead to ours."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from conf.command_line_errors import explain, known_keys
from conf.schema import HERE, register
from conf.synonyms import KEYS, OPTIONS
from tests.composing import composed

register()
GROUPS = {str(p.relative_to(HERE)) for p in HERE.rglob("*") if p.is_dir()}


def test_no_synonym_is_a_key_of_ours_or_stands_for_two() -> None:
    others = [other for each in KEYS.values() for other in each]
    assert len(others) == len({*others}) > 150
    assert not {*others} & {*known_keys(), *GROUPS}


@pytest.mark.parametrize("ours", KEYS)
def test_what_a_synonym_leads_to_is_there(ours: str) -> None:
    *choices, key = ours.split()
    strategy = ["strategy=dlad", "sim=ray"]
    if "=" in key:
        choices, key = [*choices, key], ""
    keys = known_keys(*strategy, *choices)
    assert not key or key in keys or key in GROUPS or key == "hydra.run.dir"
    for other in KEYS[ours]:
        assert f"unknown key '{other}'; here it is {ours}=..." == explain([f"{other}=1"], [])


@pytest.mark.parametrize("option", OPTIONS, ids="=".join)
def test_an_option_of_others_leads_to_one_of_ours(option: tuple[str, str]) -> None:
    words = OPTIONS[option].split()
    for word in OverridesParser.create().parse_overrides(words):
        group = word.key_or_group
        if group in GROUPS:
            assert (HERE / group / f"{word.value()}.yaml").is_file()
    composed(*words)
    assert f"no such option; here it is {OPTIONS[option]} (all: " in str(
        explain(["=".join(option)], [])
    )


def test_what_a_reader_takes_is_told_before_what_others_call_so() -> None:
    assert explain(["data=npz", "data.path=a"], []) == (
        "unknown key 'data.path'; did you mean 'data.source.path'?"
    )
    assert "here it is data.root=" in str(explain(["data=mnist", "data.path=a"], []))


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("strategy=FedAvg", "strategy=fedavg"),
        ("strategy=FedDF", "strategy=feddf"),
        ("strategy=DS-FL", "strategy=dsfl"),
        ("strategy=FedMD", "strategy=fedmd"),  # an example's
        ("data=CIFAR-10", "data=cifar10"),
        ("data=ImageFolder", "data=image_folder"),
        ("data=FashionMNIST", "data=fashion_mnist"),
        ("student=ResNet18", "student=resnet18"),
        ("clients/training=Adam", "clients/training=adam"),
    ],
)
def test_capitals_and_signs_are_looked_over(word: str, ours: str) -> None:
    assert f"'{word}': no such option; here it is {ours} (all: " in str(explain([word], []))
