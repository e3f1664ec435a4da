"""A part of the parameters stays with each client: by hand, on both pools, resumed, refused."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from clients.app import SimulatedApp
from clients.messages.arrays import read_arrays
from clients.models import logistic_regression, mlp, resnet8
from clients.models.factory import build, load_parameters
from clients.models.parameter_patterns import chosen
from clients.population.clients import SimulatedClients
from clients.training.evaluation import evaluate
from clients.training.losses import cross_entropy
from clients.training.objective import Objective, OnLogits
from sim.analysis.probes import Ask
from sim.analysis.probes.asking import Asking
from sim.analysis.probes.findings import Findings
from sim.engine.grid import PoolGrid
from sim.tracking.round_metrics import RESERVED
from strategies.server.averaging import Averaging
from strategies.server.partial_averaging import PartialAveraging
from tests.baselines import alike, close, kept, mean, played, sgd, sizes, start_of, trained
from tests.commands import run_py
from tests.federations import SEED, handlers_of, inline, run_ours, student_of, tiny_clients
from tests.quick_runs import federated, hashes

CLASSIFIER, FEATURES = ("classifier.*",), ("features.*",)


def sharing(clients: SimulatedClients, *own: str, **numbers: Any) -> PartialAveraging:
    about = {"student": student_of(clients), "models": clients.models, "seed": SEED}
    return PartialAveraging(**about, test=clients.splits.test, own=own, **numbers)


def halves(parameters: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Cut a network into what is shared and the classifier."""
    own = {name: array for name, array in parameters.items() if name.startswith("classifier")}
    return {n: a for n, a in parameters.items() if n not in own}, own


# --- by hand ---


def test_nothing_of_ones_own_is_federated_averaging_to_the_bit() -> None:
    clients = alike()
    one, other = played(clients, sharing(clients), 2), played(clients, Averaging(seed=SEED), 2)
    assert one.sha256 == other.sha256


@pytest.mark.parametrize("weigh_by", ["examples", "clients"])
def test_two_rounds_by_hand(weigh_by: Any) -> None:
    clients = alike()
    run = played(clients, sharing(clients, *CLASSIFIER, weigh_by=weigh_by), rounds=2)
    start = start_of(clients)
    shared, own = halves(start)[0], [halves(start)[1]] * 4
    for server_round in (1, 2):
        after = [trained(clients, k, server_round, {**shared, **own[k]}) for k in range(4)]
        weights = sizes(clients) if weigh_by == "examples" else [1] * 4
        shared = mean([halves(each)[0] for each in after], weights)
        shared = {name: array.astype(np.float32) for name, array in shared.items()}
        own = [halves(each)[1] for each in after]
    close(run.parameters, {**shared, **halves(start)[1]})  # its own part is as it was drawn
    for k in range(4):
        close(kept(run, k), own[k])


@pytest.mark.parametrize("group_size", [1, 4])
def test_everything_of_ones_own_is_local_training(group_size: int) -> None:
    clients = tiny_clients(train=sgd())
    strategy = sharing(clients, "*")
    pool = inline(SimulatedApp(clients, handlers_of(strategy)))
    grid = PoolGrid(pool, clients.architectures, group_size=group_size)
    run = run_ours(pool, clients, strategy, rounds=2, grid=grid)
    assert not strategy.has_student
    for k in (0, 1):
        alone = start_of(clients) if k == 0 else None  # the student's architecture, or another
        if alone is None:
            first = played(clients, sharing(clients, "*"), rounds=1)
            alone = trained(clients, k, 2, kept(first, k))
        else:
            alone = trained(clients, k, 2, trained(clients, k, 1, alone))
        close(kept(run, k), alone)
    sent = [e for e in run.reports[1].exchanges if e.phase == "train"]
    assert all(max(e.request_bytes, e.reply_bytes) < 400 for e in sent)
    assert 0 < run.reports[1].evaluated["accuracy"] <= 1


def test_the_classifier_is_trained_first_with_the_rest_held() -> None:
    clients = alike(train=sgd(momentum=0.9, weight_decay=0.1))
    run = played(clients, sharing(clients, *CLASSIFIER, own_epochs=3))
    start = start_of(clients)
    rest, own = (tuple(part) for part in halves(start))
    after = []
    for k in range(4):
        goal = OnLogits(cross_entropy)
        first = trained(clients, k, 1, start, Objective(goal, only=own), epochs=3)
        close(halves(first)[0], halves(start)[0], atol=0, rtol=0)
        after.append(trained(clients, k, 1, first, Objective(goal, only=rest)))
        close(halves(after[k])[1], halves(first)[1], atol=0, rtol=0)
        close(kept(run, k), halves(after[k])[1])
    shared = mean([halves(each)[0] for each in after], sizes(clients))
    close(run.parameters, {**shared, **halves(start)[1]})


@pytest.mark.parametrize("own_epochs", [None, 2])
def test_groups_learn_what_each_learns_alone(own_epochs: int | None) -> None:
    clients, found = alike(), []
    for group_size in (1, 4):
        strategy = sharing(clients, *CLASSIFIER, own_epochs=own_epochs)
        pool = inline(SimulatedApp(clients, handlers_of(strategy)))
        grid = PoolGrid(pool, clients.architectures, group_size=group_size)
        found.append(run_ours(pool, clients, strategy, rounds=2, grid=grid))
    close(found[0].parameters, found[1].parameters)
    close(kept(found[0], 3), kept(found[1], 3))


def test_architectures_may_differ_in_what_is_their_own() -> None:
    models = {"mlp": partial(mlp, hidden=(8,)), "deep": partial(mlp, hidden=(6, 8))}
    kinds = ["mlp", "deep", "mlp", "deep"]
    clients = alike(models=models, architectures=kinds)
    run = played(clients, sharing(clients, *FEATURES), rounds=2)
    assert not run.reports[1].first_failure()
    assert {*kept(run, 1)} == {f"features.{i}.{n}" for i in (1, 3) for n in ("weight", "bias")}
    close(halves(run.parameters)[0], halves(start_of(clients))[0], atol=0, rtol=0)
    assert not np.array_equal(
        run.parameters["classifier.weight"], start_of(clients)["classifier.weight"]
    )


def test_a_probe_sees_what_is_shared_now_and_what_is_ones_own() -> None:
    clients = alike()
    strategy = sharing(clients, *CLASSIFIER)
    asking = Asking({"mine": Ask(right, inputs="test", examples=None)}, clients, True, RESERVED)
    pool = inline(SimulatedApp(clients, [*handlers_of(strategy), *asking.handlers]))
    grid, found = PoolGrid(pool, clients.architectures), Findings()

    def ask(server_round: int, arrays: Any) -> None:
        shared = read_arrays(strategy.shared_of(arrays))
        asking(server_round, None, grid, found, print, shared)

    run = run_ours(pool, clients, strategy, grid=grid, ask=ask)
    measured = {
        e.client_id: e.metrics["accuracy"]
        for e in run.reports[0].exchanges
        if "accuracy" in e.metrics
    }
    assert found.clients["right"] == pytest.approx(measured)
    assert len({*measured.values()}) > 1


def right(network: Any, inputs: Any, labels: Any) -> dict[str, Any]:
    return {"right": (network(inputs).argmax(1) == labels).double().mean()}


def test_fine_tuned_networks_are_kept_to_be_measured_and_not_to_go_on_from() -> None:
    clients = alike()
    strategy = sharing(clients, *CLASSIFIER, keep_trained=True)
    run, plain = played(clients, strategy, 2), played(clients, sharing(clients, *CLASSIFIER), 2)
    assert run.sha256 == plain.sha256
    first = played(clients, sharing(clients, *CLASSIFIER))
    start = {**halves(first.parameters)[0], **kept(first, 3)}
    close(kept(run, 3), trained(clients, 3, 2, start))
    found, other = (
        {
            e.client_id: e.metrics["accuracy"]
            for e in r.reports[1].exchanges
            if "accuracy" in e.metrics
        }
        for r in (run, plain)
    )
    assert found != other
    network = build(clients.student, clients.splits.test.task, np.random.default_rng(0))
    load_parameters(network, kept(run, 3))
    assert found[3] == pytest.approx(evaluate(network, clients.splits.test)["accuracy"])


# --- patterns ---


def test_patterns_by_hand() -> None:
    task = tiny_clients().splits.test.task
    network = build(resnet8, task, np.random.default_rng(0))
    norms, buffers = chosen("@norm", network), chosen("@buffers", network)
    assert chosen("classifier.*", network) == {"classifier.weight", "classifier.bias"}
    assert {name.rpartition(".")[2] for name in norms} == {
        *("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert buffers == {n for n in norms if "running" in n or "num_batches" in n}
    assert len(norms) == 5 * 9  # two in each of three blocks, two of shortcuts, one of the stem
    grouped = build(partial(resnet8, norm="group"), task, np.random.default_rng(0))
    assert len(chosen("@norm", grouped)) == 2 * 9
    assert not chosen("@buffers", grouped)
    assert chosen("*", network) == {*network.state_dict()}


def test_what_cannot_be_is_refused_by_name() -> None:
    clients = alike()
    with pytest.raises(ValueError, match=r"strategy.own: 'head.\*' matches no .*classifier.bias, "):
        sharing(clients, "head.*")
    other = alike(models={"mlp": logistic_regression})
    said = r"'features.1.bias' would be shared, and is absent in architecture 'mlp' and \(8,\) in"
    with pytest.raises(ValueError, match=said):
        sharing(other, *CLASSIFIER)
    with pytest.raises(ValueError, match=r"own_epochs=1: of architecture 'mlp' all .* are shared"):
        sharing(clients, own_epochs=1)
    with pytest.raises(ValueError, match="own_epochs=2: of architecture 'mlp' all .* are own"):
        sharing(clients, "*", own_epochs=2)
    with pytest.raises(ValueError, match="own_epochs=0: expected >= 1"):
        sharing(clients, *CLASSIFIER, own_epochs=0)
    done = run_py("strategy=fedbn", "clients=same", "student=mlp", "data=blobs", "sim=inline")
    assert done.returncode == 1
    assert "strategy.own: '@norm' matches no parameter or buffer" in done.stderr


# --- as it ships ---

QUICK = [f"seed={SEED}", "clients=same", "clients.num_clients=4", "clients.training.epochs=1",
         "data=blobs", "partition=iid", "student=mlp", "student.hidden=[4]"]  # fmt: skip


def test_both_pools_and_a_resumed_run_have_the_same_bits(tmp_path: Path) -> None:
    words = ["strategy=fedrep", "strategy.own_epochs=2", "probes=personal", *QUICK]
    words += ["clients/codec=uint8", "clients.codec_down=float16", "strategy.fraction_train=0.5"]
    whole = federated(tmp_path / "whole", *words, "rounds=3")
    assert hashes(federated(tmp_path / "ray", *words, "rounds=3", sim="ray")) == hashes(whole)
    federated(tmp_path / "begun", *words, "rounds=2", "checkpoint_every=1")
    again = federated(tmp_path / "begun", resumed=["rounds=3"])
    assert hashes(again) == hashes(whole)
    line = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < line["clients"]["own_accuracy"]["mean"] <= 1


@pytest.mark.parametrize(("name", "kept"), [("fedbn", "@norm"), ("silobn", "@buffers")])
def test_norms_stay_with_the_client(name: str, kept: str, tmp_path: Path) -> None:
    words = [*QUICK[:-2], "student=resnet8", "+student.width=4", "clients.num_clients=2"]
    student, bytes_of = {}, {}
    for strategy in ("averaging", name):
        federated(tmp_path / strategy, f"strategy={strategy}", *words)
        student[strategy] = load_file(tmp_path / strategy / "student.safetensors")
        lines = (tmp_path / strategy / "metrics.jsonl").read_text().splitlines()
        bytes_of[strategy] = json.loads(lines[-1])["bytes"]
    network = build(partial(resnet8, width=4), alike().splits.test.task, np.random.default_rng(0))
    own = chosen(kept, network)
    for each, array in student[name].items():
        fresh = network.state_dict()[each].numpy()  # norms begin alike, whatever the seed
        assert np.array_equal(array, fresh) == (each in own)
    assert not all(np.array_equal(a, student[name][n]) for n, a in student["averaging"].items())
    assert all(bytes_of[name][way] < bytes_of["averaging"][way] for way in ("request", "reply"))


@pytest.mark.parametrize("name", ["fedper", "lg_fedavg"])
def test_the_other_part_is_shared(name: str, tmp_path: Path) -> None:
    federated(tmp_path / name, f"strategy={name}", *QUICK)
    federated(tmp_path / "plain", "strategy=averaging", *QUICK)
    found, plain = (load_file(tmp_path / n / "student.safetensors") for n in (name, "plain"))
    for each, array in plain.items():
        shared = each.startswith("features") == (name == "fedper")
        assert np.array_equal(array, found[each]) == shared  # in the first round all begin alike


def test_local_training_alone_makes_no_student(tmp_path: Path) -> None:
    words = [word for word in QUICK if "same" not in word]
    found = federated(tmp_path / "alone", "strategy=local_only", "probes=personal", *words)
    line = json.loads((tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()[-1])
    assert "student" not in line or not line["student"]
    assert line["bytes"]["reply"] < 4 * 2 * 500
    assert line["clients"]["accuracy"]["min"] > 0
    assert found["rounds"] == 1
