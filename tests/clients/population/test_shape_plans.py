"""Shapes: a client's network has its plan's shape, in answers, training, clock, on both pools."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from torch import nn

from clients.app import SimulatedApp
from clients.execution.shape_variants import MOST, Variant
from clients.handlers.function_probes import NetworkProbe, probing, read_numbers
from clients.handlers.function_probes import requests as requests_of
from clients.handlers.state import MODEL, PLAN, TRAINED_PLAN
from clients.messages.arrays import read_arrays
from clients.messages.requests import PredictionRequest, node_id_of, write_request
from clients.models import mlp
from clients.population.profiles import alike
from clients.population.shape_plans import Shape, variant_of
from clients.population.views import PHASES
from clients.population.widths import first_units, of_largest_norm, share_of_units
from sim.engine.grid import PoolGrid
from sim.engine.quorum import QuorumLost
from sim.topology import graphs
from sim.topology.mixing import uniform
from sim.topology.topology import Topology
from sim.tracking.clients_table import client_rows
from tests.faults import KILLS, Mortal
from tests.federations import (
    SEED,
    Run,
    distillation,
    open_pool,
    run_ours,
    simulated,
    tiny_clients,
)
from tests.peers import gossip

MLPS: Any = {"architectures": ["mlp"] * 4}
PRUNED = Shape(partial(share_of_units, keep=[0.5]), of_largest_norm)
TIERS = Shape(partial(share_of_units, keep=[1.0, 0.5]), first_units)
FULL, HALF = (16 * units + units + 4 * units + 4 for units in (8, 4))
"""Parameters of an MLP with 8 units, and with 4, on 4x4 images of 4 classes."""


def run(
    shape: Any,
    kind: str = "inline",
    size: int = 4,
    rounds: int = 2,
    orders: Path | None = None,
    **more: Any,
) -> Run:
    changes = {name: more.pop(name) for name in ("feed_back",) if name in more}
    clients = tiny_clients(4, **{**MLPS, "shape": shape, **more})
    strategy = distillation(clients, **changes)
    app = simulated(clients, strategy)
    with open_pool(kind, app if orders is None else Mortal(clients, orders, strategy)) as pool:
        profiles = clients.profiles
        grid = PoolGrid(pool, clients.architectures, group_size=size, profiles=profiles)
        return run_ours(pool, clients, strategy, rounds, grid=grid)


def sizes(found: Run, place: int = -1) -> list[float]:
    return [row["parameters"] for row in client_rows(found.reports[place].exchanges)]


def failures(found: Run) -> dict[int, str]:
    return {e.client_id: e.failure for r in found.reports for e in r.exchanges if e.failure}


def asked(server_round: int, ids: Any = range(6)) -> RecordDict:
    ids = np.array(ids)
    request = PredictionRequest(
        server_round=server_round, num_inputs=len(ids), num_classes=4, proxy_ids=ids
    )
    return write_request(request)


def serve(clients: Any, contexts: list[Context], server_round: int) -> list[Any]:
    app = SimulatedApp(clients, distillation(clients).handlers)
    requests = [
        Message(asked(server_round), node_id_of(k), "train.predictions")
        for k in range(len(contexts))
    ]
    return [*app.serve(requests, contexts)]


def context(client_id: int) -> Context:
    about = {"partition-id": client_id, "num-partitions": 4}
    return Context(1, node_id_of(client_id), about, RecordDict(), {})  # type: ignore[arg-type]


# --- what a client's network becomes ---


def test_a_client_keeps_the_plan_and_the_parameters_of_what_apply_made() -> None:
    clients, own = tiny_clients(1, architectures=["mlp"], shape=PRUNED), context(0)
    plain, other = tiny_clients(1, architectures=["mlp"]), context(0)
    serve(clients, [own], 1)
    serve(plain, [other], 1)
    kept = read_arrays(own.state[MODEL])
    assert {name: int(v) for name, v in read_arrays(own.state[PLAN]).items()} == {"features.1": 4}
    assert TRAINED_PLAN not in own.state
    assert PLAN not in other.state
    # The first round is trained as ever: what is kept is the pruned network of what it came to.
    usual = plain.place("cpu").networks.of("mlp")
    usual.load_state_dict({n: torch.tensor(v) for n, v in read_arrays(other.state[MODEL]).items()})
    expected = of_largest_norm(usual, {"features.1": np.array(4)}).state_dict()
    assert kept.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(kept[name], value.numpy())
    (reply,) = serve(clients, [own], 2)
    assert isinstance(reply, Message)
    again = read_arrays(own.state[MODEL])
    assert {n: v.shape for n, v in again.items()} == {n: v.shape for n, v in kept.items()}
    assert (again["features.1.weight"] != kept["features.1.weight"]).any()
    assert own.state[TRAINED_PLAN] == own.state[PLAN]


@pytest.mark.slow
def test_bits_are_the_same_over_ray_and_with_killed_workers_and_not_those_of_no_shape(
    tmp_path: Path,
) -> None:
    inline, over_ray = run(PRUNED, size=2), run(PRUNED, "ray", size=2)
    for kill in KILLS:
        (tmp_path / kill).touch()
    killed = run(PRUNED, "ray", size=2, orders=tmp_path)
    assert not any(tmp_path.iterdir())
    assert inline.sha256 == over_ray.sha256 == killed.sha256 != run(None, size=2).sha256
    assert sizes(inline) == sizes(over_ray) == sizes(killed) == [HALF] * 4
    assert not failures(inline)


def test_peers_that_learn_each_others_answers_may_have_any_shape() -> None:
    clients = tiny_clients(4, **MLPS, shape=TIERS)
    strategy = gossip(clients, Topology(graphs.ring, uniform, num_peers=4, seed=SEED))
    with open_pool("inline", simulated(clients, strategy)) as pool:
        found = run_ours(pool, clients, strategy, 2)
    assert not failures(found)
    assert sizes(found) == [FULL, HALF] * 2


def test_clients_of_several_plans_are_as_they_are_alone() -> None:
    """Two have all units and two half of them: each kind is trained, and answers, together."""
    together, alone = run(TIERS), run(TIERS, size=1)
    assert sizes(together) == [FULL, HALF] * 2
    for name, value in alone.parameters.items():
        np.testing.assert_allclose(together.parameters[name], value, rtol=2e-4, atol=2e-5)
    clients = tiny_clients(4, **MLPS, shape=TIERS)
    contexts = [context(k) for k in range(4)]
    serve(clients, contexts, 1)
    assert clients.run_notes() == []
    serve(clients, contexts, 2)
    (note,) = clients.run_notes()
    assert note.startswith("architecture 'mlp'")
    assert "networks of several shapes" in note


def test_a_student_that_is_fed_back_goes_into_networks_of_its_shape_only() -> None:
    """Half of the clients are pruned to the student's shape: they become it, the rest imitate."""
    small = {"student": partial(mlp, hidden=(4,))}
    found = run(TIERS, feed_back=True, rounds=3, **small)
    assert not failures(found)
    assert sizes(found) == [FULL, HALF] * 2
    assert found.sha256 != run(TIERS, rounds=3, **small).sha256


def test_the_clock_counts_the_network_that_a_client_trained_and_the_one_that_it_asked() -> None:
    """Of 30 examples, two epochs, three passes each; then 24 answers. By hand per round."""
    speed = partial(alike, multiplications_per_s=1.0, download_bytes_per_s=1e12,
                    upload_bytes_per_s=1e12, latency_s=0.0)  # fmt: skip
    found = run(PRUNED, rounds=2, profile=speed)
    work = {8: 1 + FULL, 4: 1 + HALF}
    answered = 24
    times = [report.simulated_time_s for report in found.reports]
    expected = [3 * 2 * 30 * work[8] + answered * work[4], (3 * 2 * 30 + answered) * work[4]]
    np.testing.assert_allclose(times, expected, rtol=1e-3)


def test_a_probe_looks_at_the_network_of_the_plans_shape() -> None:
    def units(network: Any, inputs: Any, labels: Any) -> dict[str, int]:
        return {"units": len(network.features[1].weight), "answers": len(network(inputs))}

    clients, contexts = tiny_clients(2, architectures=["mlp"] * 2, shape=TIERS), [context(0)]
    contexts.append(context(1))
    serve(clients, contexts, 1)
    handler = probing([NetworkProbe("mine", units, clients.splits.test)])
    asks = requests_of(handler, "mine", 1, [0, 1])
    found = read_numbers([*SimulatedApp(clients, [handler]).serve(asks, contexts)])  # type: ignore[arg-type]
    assert found == {k: {"units": units, "answers": 50} for k, units in ((0, 8), (1, 4))}


# --- what may go wrong ---


def test_apply_that_makes_two_shapes_of_one_plan_fails_the_client_and_leaves_it_as_it_was() -> None:
    """It halves what it gets: of a network that was halved before, a quarter."""

    def choose(network: Any, inputs: Any, labels: Any, *, client_id: int, server_round: int) -> Any:
        return {"turn": np.array(server_round)} if client_id == 1 else None

    def halved(network: Any, plan: Any) -> Any:
        return first_units(network, {"features.1": np.array(len(network.features[1].weight) // 2)})

    found = run(Shape(choose, halved), size=1)
    assert [e.failure for e in found.reports[0].exchanges if e.failure] == []
    assert {*failures(found)} == {1}
    assert (
        "as training left it, a plan makes different ones: 'features.1.weight'"
        in (failures(found)[1])
    )


def test_a_module_that_is_exchanged_elsewhere_is_noticed_in_a_plans_shape_too() -> None:
    def swapping(network: Any, *what: Any, **numbers: Any) -> list[float]:
        if len(network.features[1].weight) == 4:
            network.classifier = nn.Linear(4, 4)
        return [1.0]

    with pytest.raises(QuorumLost, match="'classifier' was Linear and is another Linear"):
        run(PRUNED, train=swapping)


def test_choose_sees_a_trained_network_and_what_it_does_to_it_is_undone() -> None:
    seen: list[Any] = []

    def meddling(network: Any, inputs: Any, labels: Any, *, losses: Any, rng: Any) -> Any:
        assert not network.training
        network(inputs).sum().backward()
        with torch.no_grad():
            network.classifier.weight.zero_()
        seen.append((tuple(inputs.shape), labels.tolist(), len(losses)))

    found = run(Shape(meddling, first_units), size=1, rounds=1)
    assert found.sha256 == run(None, size=1, rounds=1).sha256
    private = tiny_clients(4).splits.private.labels
    assert seen[0] == ((30, 1, 4, 4), private[:30].tolist(), 2)


def test_choose_sees_what_a_client_sees_when_it_answers() -> None:
    seen: list[Any] = []

    def told(inputs: Any, *, phase: str) -> Any:
        return np.full_like(inputs, PHASES.index(phase))

    def watching(network: Any, inputs: Any, labels: Any) -> None:
        seen.append(inputs.unique().tolist())

    run(Shape(watching, first_units), size=1, rounds=1, view=told)
    assert seen == [[PHASES.index("answer")]] * 4


def test_few_variants_stay_in_a_process_and_one_that_went_is_built_again() -> None:
    clients = tiny_clients(1, **{"architectures": ["mlp"]})
    networks, model = clients.place("cpu").networks, partial(mlp, hidden=(64,))
    names = [
        variant_of(PRUNED, "mlp", model, {"features.1": np.array(units)})
        for units in range(1, MOST + 4)
    ]
    assert len({*names}) == len(names)
    plain = networks.of("mlp")
    for units, name in enumerate(names, start=1):
        assert networks.of(name).features[1].out_features == units  # type: ignore[index,union-attr]
    there = networks._built
    assert len([name for name in there if isinstance(name, Variant)]) == MOST
    assert networks.of("mlp") is plain
    assert networks.of(names[0]).features[1].out_features == 1  # type: ignore[index,union-attr]
    assert variant_of(PRUNED, "mlp", model, {}) == "mlp"
