"""Clusters average, then a student is taught."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from clients.models.factory import parameters_of
from clients.population.clients import SimulatedClients
from clients.population.drawing import draw_student
from clients.training.losses import kl
from sim.engine.grid import PoolGrid
from sim.topology import graphs
from sim.topology.mixing import uniform
from stillhouse import wiring
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.scorers import uniform as uniform_trust
from strategies.decentralised.gossip_averaging import ParameterGossip
from strategies.server.distillation import DistillationStrategy
from strategies.server.sequence import Stages
from tests.counting import COUNTS, Counting
from tests.federations import SEED, distillation, inline, student_of, trainer
from tests.parts import loose
from tests.peers import alike, arrays_in, played, states, there, topology
from tests.tiny_runs import BASES, composed
from tests.tiny_runs import played as run_of


def clustered(clients: SimulatedClients, first_rounds: int = 2) -> Stages:
    graph = topology(partial(graphs.clusters, bridges=False), uniform, 4, require_connected=False)
    offered: dict[str, Any] = {
        "num_clients": 4,
        "mixing": graph.mixing,
        "availability": there(4),
        "student_model": clients.student,
        "models": clients.models,
        "messenger": None,
        "proxy": clients.splits.proxy,
        "test": clients.splits.test,
        "seed": SEED,
        "student": student_of(clients),
        "something_else": 3,
    }
    second = partial(
        DistillationStrategy, distil=trainer(), scorer=uniform_trust, combiner=mean_of_probs,
        loss=kl, local_training=False, **loose(DistillationStrategy),
    )  # fmt: skip
    return Stages(
        first=partial(ParameterGossip),
        second=second,
        first_rounds=first_rounds,
        rounds=5,
        **offered,
    )


def test_clusters_average_among_themselves_and_then_teach_a_student() -> None:
    clients = alike(4)
    run = played(inline(None), clients, clustered(clients), 3)
    models = [arrays_in(run, peer) for peer in range(4)]
    for one, other, equal in ((0, 1, True), (2, 3, True), (0, 2, False)):
        same = all(np.array_equal(models[one][name], models[other][name]) for name in models[0])
        assert same == equal, (one, other)
    before = played(inline(None), clients, clustered(clients), 2)
    assert states(before, 4) == states(run, 4)  # who is asked does not train any more
    phases = {e.phase for e in run.reports[2].exchanges}
    assert phases == {"evaluate.predictions"}
    assert "ensemble-accuracy" in run.reports[2].evaluated
    assert "consensus-distance" in run.reports[1].train


@pytest.mark.parametrize("done", [1, 2, 3])
def test_stages_go_on_from_their_state(done: int) -> None:
    clients = alike(4)
    pool = inline(None)
    whole = played(pool, clients, clustered(clients), 4)
    begun = clustered(clients)
    half = played(pool, clients, begun, done)
    resumed = clustered(clients)
    resumed.restore(begun.state())
    resumed.restore(resumed.state())  # as if nothing was run in between
    grid = PoolGrid(pool, clients.architectures)
    grid.states.load(dict(half.grid.states.changed()))
    rest = played(pool, clients, resumed, 4, arrays=half.arrays, grid=grid, first_round=done + 1)
    assert rest.sha256 == whole.sha256
    assert states(rest, 4) == states(whole, 4)


class Stage(Counting):
    """A stage of which only the handlers matter."""

    def __init__(self, *, handlers: Any) -> None:
        super().__init__(handlers)


def test_stages_that_cannot_be_are_refused() -> None:
    for number in (0, 5):
        with pytest.raises(ValueError, match=rf"strategy\.first_rounds={number}: .*from 1 to 4"):
            clustered(alike(4), number)
    own = partial(Stage, handlers=[replace(COUNTS, kind="train")])
    for pair in ((own, partial(Stage, handlers=[])), (partial(Stage, handlers=[]), own)):
        with pytest.raises(ValueError, match=r"strategy\.second: its 'train' messages would be"):
            Stages(first=pair[0], second=pair[1], first_rounds=1, rounds=2)
    both = partial(Stage, handlers=[COUNTS])
    assert Stages(first=both, second=both, first_rounds=1, rounds=2).handlers == (COUNTS,)
    other = partial(Stage, handlers=[replace(COUNTS)])
    with pytest.raises(ValueError, match=r"strategy\.second: its 'train\.counts' messages"):
        Stages(first=both, second=other, first_rounds=1, rounds=2)
    with pytest.raises(ValueError, match=r"strategy\.local_training=false: expected"):
        distillation(alike(), local_training=False, feed_back=True)


def test_the_second_stage_begins_with_the_student_and_not_with_the_clusters_mean(
    tmp_path: Path,
) -> None:
    # Whoever is taught nothing is still what it was before round 1.
    config = composed(BASES["cpfl"], "strategy.second.distil.epochs", 0)
    seen = run_of(config, tmp_path / "run")
    assert not seen.error
    student = load_file(seen.folder / "student.safetensors")
    start = draw_student(wiring.populate(config, wiring.load_splits(config)), "cpu")
    for name, value in parameters_of(start).items():
        np.testing.assert_array_equal(student[name], value)
