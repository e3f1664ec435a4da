"""From config nodes to functions and objects."""

import json
from functools import partial
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from clients.training.loop import train
from clients.training.losses import kl
from conf.building import instantiate
from conf.errors import ConfigError
from conf.schema import targets_in
from sim.analysis.probes import output_matrices
from tests.composing import composed


def partials_in(value: Any) -> list[Any]:
    """Find everything that waits for arguments, in what it is bound to and in objects."""
    if isinstance(value, partial):
        inner = [found for bound in value.keywords.values() for found in partials_in(bound)]
        return [value, *inner]
    ours = type(value).__module__.split(".")[0] in ("clients", "sim", "strategies")
    held = vars(value).values() if ours else ()
    return [found for each in held for found in partials_in(each)]


@pytest.mark.parametrize("strategy", ["dlad", "ffl", "gossip", "defkt", "averaging"])
def test_what_waits_for_arguments_is_a_plain_partial(strategy: str) -> None:
    """Hydra's own looks at every call: 0.1 ms and more, for each step of a lesson."""
    config = composed(f"strategy={strategy}")
    nodes = [config.strategy, config.clients.training, config.partition, *config.probes.values()]
    found = [each for node in nodes for each in partials_in(instantiate(node))]
    assert len(found) > 5
    assert {type(each) for each in found} == {partial}


def test_nested_nodes_are_built_where_they_belong() -> None:
    config = composed("strategy.distil.epochs=7")
    strategy = instantiate(config.strategy)
    distil = strategy.keywords["distil"]
    assert (distil.func, distil.keywords["epochs"]) == (train, 7)
    assert distil.keywords["optimizer"].func is torch.optim.Adam
    assert strategy.keywords["loss"].func is kl
    matrices = instantiate(config.probes.output_matrices)
    assert matrices._rounds == config.tracking.figures_every  # an interpolation of another section
    assert matrices._probe.func is output_matrices
    assert type(matrices._probe) is partial


def test_plain_values_stay_as_they_are() -> None:
    assert instantiate(None) is None
    assert instantiate(OmegaConf.create({"a": [1, {"b": 2}]})) == {"a": [1, {"b": 2}]}


def told(text: str) -> Any:
    return json.loads(text)


def holding(**parts: Any) -> dict[str, Any]:
    return parts


def test_what_was_built_is_no_node_whatever_it_looks_like() -> None:
    """A file that is read back may name functions of ours only; none of them may name another."""
    inner = {"_target_": f"{__name__}.told", "text": '{"_target_": "os.getcwd"}'}
    node = OmegaConf.create({"_target_": f"{__name__}.holding", "x": inner, "y": 1})
    assert instantiate(node) == {"x": {"_target_": "os.getcwd"}, "y": 1}
    bound = instantiate(OmegaConf.merge(node, {"_partial_": True}))
    assert bound() == {"x": {"_target_": "os.getcwd"}, "y": 1}


def test_nodes_in_lists_and_in_plain_nodes_are_built_too() -> None:
    each = {"_target_": f"{__name__}.holding", "_partial_": True, "a": 1}
    node = {"_target_": f"{__name__}.holding", "many": [each, {"inner": each}], "none": None}
    found = instantiate(OmegaConf.create(node))
    first, second = found["many"]
    assert type(first) is type(second["inner"]) is partial
    assert first() == {"a": 1}
    assert found["none"] is None


def test_a_sequence_of_graphs_is_of_plain_partials() -> None:
    config = composed("strategy=gossip", "topology=sequence")
    rules = instantiate(config.topology).keywords["graph"].keywords["rules"]
    assert {type(rule) for rule in rules} == {partial}


def test_what_cannot_be_built_is_named_by_its_key() -> None:
    config = composed("strategy.distil.optimizer._partial_=false")
    with pytest.raises(InstantiationException, match="strategy.distil.optimizer"):
        instantiate(config.strategy)


def test_keys_that_are_numbers_stay_numbers() -> None:
    node = OmegaConf.create({"_target_": f"{__name__}.holding", "rates": {1: 0.5, 2: 0.1}})
    assert instantiate(node) == {"rates": {1: 0.5, 2: 0.1}}


@pytest.mark.parametrize("word", ["_args_", "_convert_", "_recursive_"])
def test_other_words_of_hydras_are_refused(word: str) -> None:
    node = OmegaConf.create({"_target_": f"{__name__}.holding", word: "all"})
    with pytest.raises(ConfigError, match=f"{word}: expected _target_ and _partial_ only"):
        instantiate(node)


@pytest.mark.parametrize(
    "reference", ["${.a}", "${b.my-net}", "${b[x]}", "${oc.create:{_target_:x.y}}", "${a}"]
)
def test_targets_are_found_through_every_kind_of_reference(reference: str) -> None:
    net = {"_target_": "x.y"}
    config = OmegaConf.create({"a": net, "b": {"my-net": net, "x": net}, "s": reference})
    found = [key for key, _ in targets_in(config)]
    assert found == ["a", "b.my-net", "b.x", "a" if reference == "${a}" else "s"]
