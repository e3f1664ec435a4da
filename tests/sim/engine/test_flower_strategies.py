"""Flower's own strategies, unmodified, on our grid: with foreign clients and with ours."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, MultiKrum

from clients.models.factory import parameters_of
from clients.seeding import Purpose, generator
from clients.training.losses import cross_entropy
from sim.engine.quorum import QuorumLost
from sim.workers.pools import Pool
from tests.federations import (
    ALONE,
    SEED,
    Run,
    inline,
    populations,
    run_foreign,
    run_ours,
    simulated,
    student_of,
    tiny_clients,
    trainer,
    vector,
)
from tests.foreign_clients import foreign_app

# --- foreign clients: client k adds (1, 2, 4, 8, 100)[k] and claims k + 1 examples ---


def moved(pool: Pool, strategy: FedAvg, name: str = "w", size: int = 4) -> Run:
    return run_foreign(pool, strategy, vector(name), size)


def test_fedavg_takes_the_mean_weighted_by_examples(everyone_pool: Pool) -> None:
    run = moved(everyone_pool, FedAvg())
    # (1*1 + 2*2 + 3*4 + 4*8) / (1 + 2 + 3 + 4) = 49 / 10
    np.testing.assert_allclose(run.parameters["w"], [4.9, 4.9], rtol=1e-12)
    (report,) = run.reports
    # Client k's train-loss is k: (1*0 + 2*1 + 3*2 + 4*3) / 10; its loss is mean(w) + k.
    assert report.train == {"train-loss": pytest.approx(2.0)}
    assert report.evaluated == {"loss": pytest.approx(4.9 + 2.0)}
    assert [e.phase for e in report.exchanges] == ["train"] * 4 + ["evaluate"] * 4


def test_fedavg_goes_on_from_its_own_result(everyone_pool: Pool) -> None:
    run = run_foreign(everyone_pool, FedAvg(), vector(), rounds=3)
    np.testing.assert_allclose(run.parameters["w"], [14.7, 14.7], rtol=1e-12)


# --- cohorts ---


def cohorts(seed: int, rounds: int = 4) -> list[list[int]]:
    pool = inline(foreign_app())
    strategy = FedAvg(fraction_train=0.5, fraction_evaluate=0.0)
    run = run_foreign(pool, strategy, vector(), 6, rounds=rounds, seed=seed)
    return run.cohorts()


def test_a_cohort_depends_on_seed_and_round() -> None:
    first = cohorts(seed=1)
    assert [len(cohort) for cohort in first] == [3, 3, 3, 3]
    assert first == cohorts(seed=1)
    assert first != cohorts(seed=2)
    assert len({tuple(cohort) for cohort in first}) > 1
    assert cohorts(seed=1, rounds=2) == first[:2]


def test_a_cohort_does_not_depend_on_pythons_hash_seed() -> None:
    script = "from tests.sim.engine.test_flower_strategies import cohorts; print(cohorts(seed=1))"
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.getcwd()}  # here another
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == str(cohorts(seed=1)), done.stderr


# --- our clients ---


def trained_centrally(size: int) -> dict[str, Any]:
    """Train the student of round 0 on client 0's data by the training loop alone."""
    clients = populations()[size]
    model = student_of(clients)
    indices = clients.partitions[0]
    labels = torch.tensor(clients.splits.private.labels[indices])
    rng = generator(SEED, Purpose.LOCAL_TRAINING, 1, 0)
    trainer()(model, clients.splits.private, indices, labels, cross_entropy, rng)
    return parameters_of(model)


@pytest.mark.parametrize("size", [1, 2])
def test_equal_clients_average_to_central_training_bit_for_bit(
    everyone_pool: Pool, size: int
) -> None:
    clients = populations()[size]
    run = run_ours(everyone_pool, clients, FedAvg(**ALONE))
    central, start = trained_centrally(size), parameters_of(student_of(clients))
    for name, array in run.parameters.items():
        assert array.dtype == np.float32
        assert array.tobytes() == central[name].tobytes()
        assert array.tobytes() != start[name].tobytes()


@pytest.mark.parametrize("strategy", [FedAvg, FedMedian, FedAdam, MultiKrum])
def test_unlike_clients_fail_by_name_and_the_others_go_on(
    everyone_pool: Pool, strategy: type[FedAvg]
) -> None:
    clients = populations()[5]  # clients 1 and 3 are perceptrons, the student is linear
    run = run_ours(everyone_pool, clients, strategy(), rounds=2)
    for report in run.reports:
        failed = {e.client_id: e for e in report.exchanges if e.failure}
        assert set(failed) == {1, 3}
        assert failed[1].architecture == "mlp"
        assert "do not fit" in failed[1].failure
        assert "features.1.weight" in failed[1].failure
        assert "in loaded" in failed[1].traceback
        assert len([e for e in report.exchanges if not e.failure]) == 6
    assert run.reports[1].student["accuracy"] > 0.5  # chance is 0.25


def test_fedavg_over_some_unlike_clients_is_the_mean_of_the_like(everyone_pool: Pool) -> None:
    clients = populations()[5]
    run = run_ours(everyone_pool, clients, FedAvg())
    like = [one_clients_answer(k) for k in (0, 2, 4)]  # 24 examples each
    for name, array in run.parameters.items():
        np.testing.assert_allclose(array, np.mean([a[name] for a in like], axis=0), rtol=1e-5)


def one_clients_answer(client_id: int) -> dict[str, Any]:
    clients = populations()[5]
    model = student_of(clients)
    indices, private = clients.partitions[client_id], clients.splits.private
    labels = torch.tensor(private.labels[indices])
    rng = generator(clients.seed, Purpose.LOCAL_TRAINING, 1, client_id)
    clients.local_training(model, private, indices, labels, cross_entropy, rng)
    return parameters_of(model)


def test_all_clients_unlike_is_a_lost_quorum_that_says_so() -> None:
    clients = tiny_clients(3, architectures=["mlp"] * 3)
    with pytest.raises(QuorumLost, match=r"0 of 3.*client 0 \(mlp\), round 1, phase train.*fit"):
        run_ours(inline(simulated(clients)), clients, FedAvg())
