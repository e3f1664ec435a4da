"""Two instances share nothing: of what ships, one is used and the other is as new.

Attributes of classes, mutable defaults and caches of modules are the kind that this looks for.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
import yaml

from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.round_views import RoundView
from clients.models.factory import load_parameters, parameters_of
from clients.population.drawing import draw_student
from clients.training.evaluation import evaluate
from conf.building import instantiate
from conf.schema import targets_in
from sim.engine.grid import PoolGrid
from sim.engine.rounds import RoundReport, run_rounds
from sim.tracking.run_folder import sha256_of_arrays
from sim.workers.pools import InlinePool
from stillhouse import wiring
from tests.federations import distillation, inline, run_ours, simulated, tiny_clients
from tests.fuzzing import Nobody
from tests.shipped_options import option_files
from tests.tiny_runs import BASES, FEW, SAME, composed

USED = {name: BASES[name] for name in ("own", "fed back", "codistillation", "one", "ffl", "okddip",
                                       "gossip", "push", "defkt", "cpfl", "averaging", "fml",
                                       "fedkd", "feddf", "early", "fd", "fd plus")}  # fmt: skip
USED |= {name: (*SAME, f"strategy={name}") for name in ("fedavg", "fedadam", "fedmedian")}
USED |= {codec: (*SAME, "strategy=averaging", f"clients/codec={codec}")
         for codec in ("uint8", "top_k", "qsgd", "deflate", "gaussian",
                       "top_k_deflate")}  # fmt: skip
USED |= {name: (*SAME, f"strategy={name}") for name in ("fedrep", "ditto", "fednova", "feddyn")}
USED |= {name: BASES[name] for name in ("ktpfl", "fedgkt", "coboosting", "scarlet")}
USED["shape"] = (*BASES["uniform"], "clients/shape=width_slice")
USED["multikrum"] = (*SAME, "strategy=multikrum", "strategy.num_nodes_to_select=2")
PROBES = ("trust", "output_drift", "parameter_drift", "recall_spread", "calibration",
          "teacher_audit", "forgetting", "output_matrices")  # fmt: skip
ELSEWHERE = {"conf.run_lock.ClaimFirst", "sim.workers.ray_pool.RayPool", "sim.analysis.probes.Ask",
             *(f"torch.optim.{name}" for name in (
                 "AdamW", "lr_scheduler.ExponentialLR", "lr_scheduler.StepLR"))}  # fmt: skip
"""Hydra makes one of the first; of the second several are opened in tests/test_bits.py; the third
is frozen, and what a run keeps of it is in tests/sim/analysis/probes/test_asking.py; the others are
torch's, made anew for each client."""


def federation(words: tuple[str, ...]) -> Callable[[], tuple[Any, ...]]:
    """Build clients, student and strategy; return what runs two rounds of them."""
    config, nobody = composed((*words, "seed=3")), Nobody()
    rounds = max(2, config.rounds)
    with_rounds = composed((*words, "seed=3"), "rounds", rounds)
    clients = wiring.populate(with_rounds, wiring.load_splits(with_rounds))
    student, pool = draw_student(clients, "cpu"), InlinePool(3)
    start = write_arrays(parameters_of(student))
    begun = wiring.build_strategy(with_rounds, clients)
    built: tuple[Any, ...] = (with_rounds, begun, pool, clients, student, nobody)
    strategy = wiring.complete_strategy(*built)
    pool.load(simulated(clients, strategy))

    def measure(arrays: Any) -> dict[str, float]:
        load_parameters(student, read_arrays(arrays))
        return evaluate(student, clients.splits.test)

    def play() -> tuple[Any, ...]:
        grid, reports = PoolGrid(pool, clients.architectures), list[RoundReport]()
        arrays = run_rounds(strategy, grid, start, rounds=rounds, seed=3, evaluate=measure,
                            report=reports.append)  # fmt: skip
        told = [(r.train, r.evaluated, r.student, r.exchanges) for r in reports]
        return sha256_of_arrays(read_arrays(arrays)), str(told)

    return play


OFTEN = ("own", "feddf", "codistillation", "gossip", "defkt", "averaging", "fd", "scarlet", "ktpfl",
         "ditto", "fedgkt", "shape", "top_k")  # fmt: skip
"""The others with the slow tests."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in OFTEN else pytest.mark.slow) for n in USED]
)
def test_a_strategy_that_was_used_leaves_another_as_new(name: str) -> None:
    one, other = federation(USED[name]), federation(USED[name])
    assert one() == other()


def views() -> list[RoundView]:
    clients, seen = tiny_clients(), list[RoundView]()
    strategy = distillation(clients, report=seen.append)
    run_ours(inline(simulated(clients)), clients, strategy, rounds=2)
    labels = torch.tensor(clients.splits.proxy.labels)
    return [replace(view, labels=labels[list(view.proxy_ids)]) for view in seen]


def test_a_probe_that_was_used_leaves_another_as_new() -> None:
    config = composed((*FEW[:-4], "probes=standard", "tracking.figures_every=1"))
    assert set(config.probes) == set(PROBES)
    seen = views()
    one, other = ([instantiate(config.probes[name]) for name in PROBES] for _ in range(2))
    found = [[str(probe(view)) for view in seen] for probe in one]
    states = [probe.state() for probe in other if hasattr(probe, "state")]
    assert states
    assert not any(states)
    assert [[str(probe(view)) for view in seen] for probe in other] == found


@pytest.mark.parametrize("graph", ["erdos_renyi", "epidemic", "random_matchings", "sequence"])
def test_a_topology_that_was_used_leaves_another_as_new(graph: str) -> None:
    node = composed((f"topology={graph}",)).topology
    one, other = (instantiate(node)(num_peers=8, seed=0) for _ in range(2))
    found = [one.mixing(server_round).toarray().tolist() for server_round in (1, 2, 3)]
    assert [other.mixing(number).toarray().tolist() for number in (3, 2, 1)] == found[::-1]


def test_every_class_that_ships_is_used_here() -> None:
    shipped = {t for path in option_files() for t in named(yaml.safe_load(path.read_text()))}
    classes = {target for target in shipped if inspect.isclass(found(target))}
    words = (*USED.values(), ("topology=ring", "probes=standard"))
    here = {node["_target_"] for each in words for _, node in targets_in(composed(each), "")}
    assert classes - here <= ELSEWHERE


def named(node: Any) -> set[str]:
    """Collect the targets of a node."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = {node["_target_"]} if isinstance(node, dict) and "_target_" in node else set()
    return own.union(*(named(item) for item in inner))


def found(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)
