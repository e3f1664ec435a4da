"""FedGKT: maps, logits and labels go up, logits come down: by hand, both pools, resumed."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message

from clients.data import Dataset
from clients.handlers.private_maps import MAPS, SAID, transfer
from clients.messages.arrays import read_arrays, write_arrays
from clients.models import mlp, resnet8
from clients.models.factory import build
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, generator, named_generator
from clients.training.evaluation import predict, predict_and_tap
from clients.training.objective import Objective, Outputs
from sim.engine.grid import PoolGrid
from strategies.server.fedgkt import SERVER, FedGKT
from tests.baselines import alike, close, kept, played, sgd, trained
from tests.federations import SEED, inline, simulated, tiny_clients
from tests.quick_runs import federated, hashes

BIG = partial(mlp, hidden=(16,))


def made(clients: SimulatedClients, **changes: Any) -> FedGKT:
    about = {
        "models": clients.models,
        "architectures": clients.architectures,
        "tested": clients.splits.tested,
        "seed": SEED,
        "server": BIG,
        "distil": sgd(epochs=2),
    }
    return FedGKT(**(about | changes))


def test_the_objective_by_hand() -> None:
    """p = (3/4, 1/4) at T = 2: 3 ln 2 + 5 * 4 (3/4 ln 3/2 + 1/4 ln 1/2)."""
    outputs = Outputs(torch.zeros(1, 2), torch.zeros(1, 1), rows=torch.tensor([1]))
    said = torch.tensor([[9.0, 0.0], [2 * np.log(3.0), 0.0]])
    objective = transfer(5.0, 3.0, 2.0)
    loss = objective.loss(outputs, torch.tensor([0]), {SAID: said})
    apart = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert loss.tolist() == pytest.approx([3 * np.log(2) + 20 * apart])


def grid_of(clients: SimulatedClients, strategy: Any, server_round: int) -> PoolGrid:
    grid = PoolGrid(inline(simulated(clients, strategy)), clients.architectures)
    grid.begin_round(server_round)
    return grid


def begun(clients: SimulatedClients, client_id: int) -> Any:
    rng = generator(SEED, Purpose.INITIALISE, 0, client_id)
    return build(clients.models["mlp"], clients.splits.private.task, rng)


def sent(messages: list[Message], record: str) -> list[Any]:
    return [read_arrays(m.content.array_records[record]) for m in messages]


def test_two_rounds_by_hand() -> None:
    clients = alike()
    strategy = made(clients, alpha=0.5, temperature=2.0, fraction=1.0)
    grid, none = grid_of(clients, strategy, 1), Any
    replies = list(grid.send_and_receive(strategy.configure_train(1, none, none, grid)))  # type: ignore[arg-type]
    maps = sent(sorted(replies, key=lambda m: m.metadata.src_node_id), MAPS)
    private = clients.splits.private
    for k, own in enumerate(clients.partitions):
        network = begun(clients, k)
        clients.learn(network, k, 1)
        logits, taps = predict_and_tap(network, private, own, ["features.2"])
        np.testing.assert_allclose(maps[k]["logits"], logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(maps[k]["maps"], taps["features.2"], rtol=1e-4, atol=1e-5)
        assert maps[k]["labels"].tolist() == private.labels[own].tolist()

    joined = {n: np.concatenate([each[n] for each in maps]) for n in ("maps", "labels", "logits")}
    server = build(BIG, strategy._task, named_generator(SEED, Purpose.STUDENT, "fedgkt"))
    inputs, labels = joined["maps"], joined["labels"]
    dataset = Dataset("maps", inputs, labels, strategy._task, mean=(0.0,) * 8, std=(1.0,) * 8)
    rows, objective = np.arange(len(inputs)), transfer(1.0, 0.5, 2.0)
    rng, targets = generator(SEED, Purpose.DISTILLATION, 1), torch.tensor(labels)
    anchors = {SAID: torch.tensor(joined["logits"])}
    sgd(epochs=2)(server, dataset, rows, targets, objective, rng, anchors=anchors)
    said = np.split(predict(server, dataset, rows).numpy(), np.cumsum([16, 48, 32]))
    strategy.aggregate_train(1, replies[::-1])
    asked = list(strategy.configure_train(2, none, none, grid))  # type: ignore[arg-type]
    for one, wanted in zip(sent(asked, SAID), said, strict=True):
        np.testing.assert_allclose(one[SAID], wanted, rtol=1e-5, atol=1e-6)

    run = played(clients, made(clients, alpha=0.5, temperature=2.0), 2)
    own_side: Objective = transfer(0.5, 1.0, 2.0)
    for k in range(4):
        network = begun(clients, k)
        clients.learn(network, k, 1)
        clients.learn(network, k, 2, own_side, {SAID: torch.tensor(said[k])})
        close(kept(run, k), {n: t.numpy() for n, t in network.state_dict().items()}, atol=1e-5)
    assert run.reports[-1].evaluated["server-accuracy"] > 0.25


def test_without_alpha_clients_learn_alone() -> None:
    clients = alike()
    run = played(clients, made(clients, alpha=0.0), 2)
    for k in range(4):
        start = {n: t.numpy() for n, t in begun(clients, k).state_dict().items()}
        close(kept(run, k), trained(clients, k, 2, trained(clients, k, 1, start)))


def test_a_lone_client_and_a_strategy_that_is_restored() -> None:
    clients = tiny_clients(1, models={"linear": BIG})
    strategy = made(clients)
    played(clients, strategy)
    again = made(clients)
    again.restore(strategy.state())
    grid, none = grid_of(clients, again, 2), Any
    one, other = (list(s.configure_train(2, none, none, grid)) for s in (strategy, again))  # type: ignore[arg-type]
    assert [m.content for m in one] == [m.content for m in other]
    close(again.models()[SERVER], strategy.models()[SERVER], rtol=0, atol=0)


# --- what is refused ---


def test_maps_that_differ_or_are_not_there_are_refused() -> None:
    clients = tiny_clients(2)
    with pytest.raises(ValueError, match=r"strategy.tap: architecture 'linear': tap 'features.2'"):
        made(clients)
    models = {"linear": partial(mlp, hidden=(9,)), "mlp": partial(mlp, hidden=(8,))}
    wanted = r"\(9,\) of 'linear', \(8,\) of 'mlp': expected one shape, as with clients=same"
    with pytest.raises(ValueError, match=wanted):
        made(tiny_clients(2, models=models))
    with pytest.raises(
        ValueError, match=r"strategy.server: maps of features.2 \(8,\): image_shape"
    ):
        made(alike(), server=resnet8)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, None),
        ({"labels": np.full(16, 4)}, "label"),
        ({"labels": None}, "its arrays are"),
        ({"maps": np.zeros((16, 7), np.float32)}, "its arrays are"),
        ({"logits": np.zeros((16, 4))}, "not float32"),
    ],
)
def test_maps_that_cannot_be_learned_are_refused(changes: Any, found: str | None) -> None:
    clients = alike()
    strategy = made(clients)
    grid, none = grid_of(clients, strategy, 1), Any
    request = next(iter(strategy.configure_train(1, none, none, grid)))  # type: ignore[arg-type]
    (reply,) = grid.send_and_receive([request])
    arrays = {n: a for n, a in (sent([reply], MAPS)[0] | changes).items() if a is not None}
    reply.content[MAPS] = write_arrays(arrays)
    fault = strategy.handlers[0].fault
    assert fault is not None
    reason = fault(request, reply)
    assert reason is None if found is None else reason is not None and found in reason


@pytest.mark.parametrize("name", ["temperature", "alpha", "fraction"])
def test_numbers_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"strategy.{name}=-1: expected"):
        made(alike(), **{name: -1})


# --- bits ---


def test_both_pools_and_a_resumed_run_have_the_same_bits(tmp_path: Path) -> None:
    words = ["strategy=fedgkt", f"seed={SEED}", "clients=same", "clients.num_clients=4",
             "clients.training.epochs=1", "data=blobs", "partition=iid", "student=cnn",
             "student.channels=[4]", "student.hidden=4", "strategy.fraction=0.75"]  # fmt: skip
    whole = federated(tmp_path / "whole", *words, "rounds=3")
    assert hashes(federated(tmp_path / "ray", *words, "rounds=3", sim="ray")) == hashes(whole)
    federated(tmp_path / "begun", *words, "rounds=2", "checkpoint_every=1")
    again = federated(tmp_path / "begun", resumed=["rounds=3"])
    assert hashes(again) == hashes(whole)
