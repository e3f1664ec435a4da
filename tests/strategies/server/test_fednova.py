"""FedNova: changes per local step: by hand, as federated averaging, both pools, refused."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.app import SimulatedApp
from clients.models import resnet8
from clients.population.clients import SimulatedClients
from clients.training.kept_optimizer import keep_optimizer
from sim.engine.grid import PoolGrid
from strategies.server.averaging import Averaging
from strategies.server.fednova import FedNova, normalized_steps, require_even_steps
from tests.baselines import alike, close, mean, played, sgd, sizes, start_of, trained
from tests.commands import run_py
from tests.federations import SEED, handlers_of, inline, run_ours, student_of
from tests.quick_runs import federated, hashes


def nova(clients: SimulatedClients) -> FedNova:
    return FedNova(student=student_of(clients), seed=SEED)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_norm_is_how_far_a_gradient_of_one_leads(momentum: float) -> None:
    for steps in (1, 2, 7):
        place = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = torch.optim.SGD([place], lr=1.0, momentum=momentum)
        for _ in range(steps):
            place.grad = torch.ones(1, dtype=torch.float64)
            optimizer.step()
        assert normalized_steps(steps, momentum) == pytest.approx(-place.item())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("group_size", [1, 3])
def test_a_round_by_hand(momentum: float, group_size: int) -> None:
    clients = alike(train=sgd(epochs=2, momentum=momentum))
    strategy = nova(clients)
    pool = inline(SimulatedApp(clients, handlers_of(strategy)))
    grid = PoolGrid(pool, clients.architectures, group_size=group_size)
    run = run_ours(pool, clients, strategy, grid=grid)
    start = start_of(clients)
    shares = np.array(sizes(clients)) / sum(sizes(clients))
    norms = [normalized_steps(steps, momentum) for steps in (2, 6, 4, 4)]  # two epochs by 16
    wanted = {name: array.astype(np.float64) for name, array in start.items()}
    tau = float(shares @ norms)
    for k in range(4):
        end = trained(clients, k, 1, start)
        for name in wanted:
            wanted[name] = wanted[name] + tau * shares[k] * (end[name] - start[name]) / norms[k]
    close(run.parameters, wanted)
    assert run.reports[0].train["normalized-steps"] == pytest.approx(tau)


def test_with_as_many_steps_it_is_federated_averaging() -> None:
    cut = np.split(np.arange(120), [30, 60, 90])
    clients = alike(partitions=cut)
    one, other = played(clients, nova(clients), 3), played(clients, Averaging(seed=SEED), 3)
    close(one.parameters, other.parameters, atol=1e-6, rtol=1e-6)
    unequal = alike()
    one, other = played(unequal, nova(unequal)), played(unequal, Averaging(seed=SEED))
    assert not np.allclose(one.parameters["classifier.weight"],
                           other.parameters["classifier.weight"], atol=1e-3)  # fmt: skip


def test_statistics_are_averaged_by_examples() -> None:
    model = partial(resnet8, width=4)
    clients = alike(models={"mlp": model}, student=model)
    run, start = played(clients, nova(clients)), start_of(clients)
    after = mean([trained(clients, k, 1, start) for k in range(4)], sizes(clients))
    found = {name: array for name, array in run.parameters.items() if "running" in name}
    close(found, {name: after[name] for name in found})


@pytest.mark.parametrize(
    "training",
    [
        partial(sgd().func, epochs=1, batch_size=4, optimizer=partial(torch.optim.Adam, lr=0.1)),
        sgd(momentum=0.9, nesterov=True),
        sgd(momentum=0.9, dampening=0.5),
        partial(keep_optimizer, **sgd(momentum=0.9).keywords),
        partial(sgd(), stop_below=0.1),
        partial(sgd(), scheduler=torch.optim.lr_scheduler.ConstantLR, scheduler_by="step"),
    ],
    ids=["adam", "nesterov", "dampening", "kept", "stop_below", "by step"],
)
def test_steps_of_another_length_are_refused(training: Any) -> None:
    with pytest.raises(ValueError, match="clients.training: FedNova counts steps of SGD: expected"):
        require_even_steps(training)
    require_even_steps(sgd(momentum=0.9, weight_decay=0.1))


QUICK = [f"seed={SEED}", "clients=same", "clients.num_clients=4", "clients.training.epochs=1",
         "data=blobs", "student=mlp", "student.hidden=[4]"]  # fmt: skip


def test_both_pools_and_a_resumed_run_have_the_same_bits(tmp_path: Path) -> None:
    words = ["strategy=fednova", "strategy.fraction_train=0.5", *QUICK]
    whole = federated(tmp_path / "whole", *words, "rounds=3")
    assert hashes(federated(tmp_path / "ray", *words, "rounds=3", sim="ray")) == hashes(whole)
    federated(tmp_path / "begun", *words, "rounds=2", "checkpoint_every=1")
    again = federated(tmp_path / "begun", resumed=["rounds=3"])
    assert hashes(again) == hashes(whole)
    said = run_py(*words, "clients/training=adam", "sim=inline", f"hydra.run.dir={tmp_path / 'no'}")
    assert said.returncode == 1
    assert "FedNova counts steps of SGD" in said.stderr
    assert not (tmp_path / "no").exists()


def test_an_objective_that_bends_gradients_is_refused(tmp_path: Path) -> None:
    words = ["strategy=fednova", "clients=same", "data=blobs", "clients/objective=proximal"]
    with pytest.raises(Exception, match="expected one without penalty or correction"):
        federated(tmp_path / "run", *words)
