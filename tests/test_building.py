"""From config nodes to functions and objects."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from clients.losses import kl
from clients.training import train
from conf.building import build
from conf.schema import register
from sim.probes import output_matrices

CONF = Path(__file__).parent.parent / "conf"


def composed(*overrides: str) -> DictConfig:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


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
    found = [each for node in nodes for each in partials_in(build(node))]
    assert len(found) > 5
    assert {type(each) for each in found} == {partial}


def test_nested_nodes_are_built_where_they_belong() -> None:
    config = composed("strategy.distil.epochs=7")
    strategy = build(config.strategy)
    distil = strategy.keywords["distil"]
    assert (distil.func, distil.keywords["epochs"]) == (train, 7)
    assert distil.keywords["optimizer"].func is torch.optim.Adam
    assert strategy.keywords["loss"].func is kl
    matrices = build(config.probes.output_matrices)
    assert matrices._rounds == config.tracking.figures_every  # an interpolation of another section
    assert matrices._probe.func is output_matrices
    assert type(matrices._probe) is partial


def test_plain_values_stay_as_they_are() -> None:
    assert build(None) is None
    assert build(OmegaConf.create({"a": [1, {"b": 2}]})) == {"a": [1, {"b": 2}]}


def test_what_cannot_be_built_is_named_by_its_key() -> None:
    config = composed("strategy.distil.optimizer._partial_=false")
    with pytest.raises(InstantiationException, match="strategy.distil.optimizer"):
        build(config.strategy)
