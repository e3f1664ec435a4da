"""DENSE and Co-Boosting: a student of generated inputs: by hand, both pools, resumed."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.messages.arrays import read_arrays, write_arrays
from clients.models import mlp
from clients.models.factory import build, load_parameters, parameters_of
from clients.models.generator import image_generator
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, generator, named_generator, seeded_torch
from clients.training.evaluation import evaluate
from clients.training.losses import kl
from sim.engine.grid import PoolGrid
from strategies.server.data_free import DataFreeDistillation
from strategies.teaching.synthesis import Synthesis, boosted_weights
from tests.baselines import close, kept, played, sgd
from tests.federations import SEED, inline, simulated, student_of, tiny_clients
from tests.quick_runs import federated, hashes

MAKES = partial(image_generator, width=2)
ADAM = partial(torch.optim.Adam, lr=0.01)


def made(clients: SimulatedClients, epochs: int = 2, steps: int = 2, **changes: Any) -> Any:
    about: dict[str, Any] = {
        "student": student_of(clients),
        "models": clients.models,
        "architectures": clients.architectures,
        "tested": clients.splits.tested,
        "seed": SEED,
        "synthesis": Synthesis(MAKES, ADAM, steps=steps, batch_size=16, noise_size=3),
        "distil": sgd(),
        "epochs": epochs,
    }
    return DataFreeDistillation(**(about | changes))


def test_a_student_of_one_batch_by_hand() -> None:
    clients = tiny_clients(3)
    run = played(clients, made(clients, epochs=1, steps=0, temperature=2.0))
    task, networks = clients.splits.private.task, []
    for k in range(3):
        model = clients.models[clients.architectures[k]]
        networks.append(build(model, task, generator(SEED, Purpose.INITIALISE, 0, k)))
        clients.learn(networks[-1], k, 1)
        networks[-1].eval()
    with seeded_torch(named_generator(SEED, Purpose.STUDENT, "generator")):
        makes = MAKES((1, 4, 4), 3)
    seen: list[Any] = []

    def watching(student: Any, data: Any, ids: Any, targets: Any, *rest: Any, **more: Any) -> Any:
        seen[:] = [data.inputs, targets]
        return sgd()(student, data, ids, targets, *rest, **more)

    again = played(clients, made(clients, epochs=1, steps=0, temperature=2.0, distil=watching))
    assert again.sha256 == run.sha256
    with seeded_torch(named_generator(SEED, Purpose.DISTILLATION, "synthesis 1")):
        torch.randint(4, (16,))
        inputs = makes(torch.randn(16, 3)).detach()
    np.testing.assert_allclose(seen[0], inputs, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        targets = (torch.stack([network(inputs) for network in networks]).mean(0) / 2).softmax(-1)
    np.testing.assert_allclose(seen[1], targets, rtol=1e-3, atol=1e-5)

    student, loss = student_of(clients), partial(kl, temperature=2.0)
    strategy = made(clients)
    dataset = strategy._dataset(inputs, torch.zeros(16, dtype=torch.int64))
    sgd()(student, dataset, np.arange(16), targets, loss, generator(SEED, Purpose.DISTILLATION, 1))
    close(run.parameters, parameters_of(student), rtol=1e-3, atol=1e-5)


def test_each_epoch_adds_a_batch_and_new_weights_count_for_all_of_them() -> None:
    clients, seen = tiny_clients(2), list[Any]()

    def watching(student: Any, data: Any, ids: Any, targets: Any, *rest: Any, **more: Any) -> Any:
        seen.append((len(data), len(ids), targets))
        return [0.0]

    def last_only(weights: Any, answers: Any, labels: Any, epoch: int) -> Any:
        assert answers.shape == (2, 16, 4)
        assert labels.shape == (16,)
        return torch.tensor([0.0, float(epoch)])

    played(clients, made(clients, epochs=3, distil=watching, boost=last_only))
    assert [(n, m) for n, m, _ in seen] == [(16, 16), (32, 32), (48, 48)]
    np.testing.assert_allclose(seen[0][2], np.full((16, 4), 0.25))  # weights of 0 say nothing
    once, twice = (targets[:16].log() for _, _, targets in seen[1:])
    spread = [float((each - each.mean(1, keepdim=True)).abs().mean()) for each in (once, twice)]
    assert spread[1] == pytest.approx(2 * spread[0], rel=1e-3)


def test_without_epochs_the_student_stays_and_without_a_step_weights_stay() -> None:
    clients = tiny_clients(2)
    still = played(clients, made(clients, epochs=0))
    close(still.parameters, parameters_of(student_of(clients)), rtol=0, atol=0)
    fixed = partial(boosted_weights, step=0.0, decay=1.0)
    one, other = played(clients, made(clients)), played(clients, made(clients, boost=fixed))
    assert one.sha256 == other.sha256
    moved = partial(boosted_weights, step=0.5, decay=1.0)
    assert played(clients, made(clients, boost=moved)).sha256 != one.sha256


def test_a_student_learns_what_no_client_knows_of_and_no_data_is_shown() -> None:
    """Each of two clients has half of the classes, and the student none of the examples."""
    labels = tiny_clients(1).splits.private.labels
    halves = [np.flatnonzero(labels < 2), np.flatnonzero(labels >= 2)]
    wide = partial(mlp, hidden=(16,))
    clients = tiny_clients(2, halves, models={"linear": wide, "mlp": wide}, train=sgd(epochs=10))
    synthesis = Synthesis(MAKES, ADAM, steps=10, batch_size=64, noise_size=8)
    run = played(clients, made(clients, epochs=15, synthesis=synthesis, distil=sgd(lr=0.05)))
    student = student_of(clients)
    load_parameters(student, run.parameters)
    assert evaluate(student, clients.splits.test)["accuracy"] > 0.75


def test_a_network_that_is_not_the_clients_is_refused() -> None:
    clients = tiny_clients(2)
    strategy = made(clients)
    grid = PoolGrid(inline(simulated(clients, strategy)), clients.architectures)
    grid.begin_round(1)
    start = write_arrays(parameters_of(strategy.student))
    request, _ = strategy.configure_train(1, start, None, grid)
    (reply,) = grid.send_and_receive([request])
    fault = strategy.handlers[0].fault
    assert fault(request, reply) is None
    arrays = read_arrays(reply.content.array_records["arrays"])
    reply.content["arrays"] = write_arrays(dict([*arrays.items()][1:]))
    assert "expected float32" in fault(request, reply)


@pytest.mark.parametrize("name", ["temperature", "epochs"])
def test_numbers_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"strategy.{name}=-1: expected"):
        made(tiny_clients(1), **{name: -1})


def test_clients_keep_their_networks_and_train_on_in_a_second_round() -> None:
    clients = tiny_clients(2)
    run = played(clients, made(clients, epochs=0), 2)
    network = build(
        clients.models["mlp"],
        clients.splits.private.task,
        generator(SEED, Purpose.INITIALISE, 0, 1),
    )
    for server_round in (1, 2):
        clients.learn(network, 1, server_round)
    close(kept(run, 1), parameters_of(network))


def test_both_pools_and_a_resumed_run_have_the_same_bits(tmp_path: Path) -> None:
    words = ["strategy=coboosting", f"seed={SEED}", "clients.num_clients=4", "data=blobs",
             "clients.training.epochs=1", "partition=iid", "strategy.epochs=2",
             "strategy.synthesis.steps=2"]  # fmt: skip
    whole = federated(tmp_path / "whole", *words, "rounds=2")
    assert hashes(federated(tmp_path / "ray", *words, "rounds=2", sim="ray")) == hashes(whole)
    federated(tmp_path / "begun", *words, "rounds=1", "checkpoint_every=1")
    again = federated(tmp_path / "begun", resumed=["rounds=2"])
    assert hashes(again) == hashes(whole)
    words[0] = "strategy=dense"
    assert hashes(federated(tmp_path / "dense", *words, "rounds=2"))[0] != hashes(whole)[0]
