"""Functions that go to the networks of a run: who is asked, what comes back, what is refused."""

import re
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord

from clients.app import SimulatedApp
from clients.data import blobs, subset
from clients.handlers.function_probes import stream_of
from clients.messages.arrays import read_arrays
from clients.models import logistic_regression
from clients.models.factory import load_parameters
from clients.population.clients import SimulatedClients
from clients.training.evaluation import evaluate
from sim.analysis.probes import Ask, Every, ProbeError
from sim.analysis.probes.asking import Asking
from sim.analysis.probes.findings import Findings
from sim.engine.grid import PoolGrid
from sim.topology.graphs import ring
from sim.tracking.round_metrics import RESERVED
from strategies.server.averaging import Averaging
from tests.federations import (
    SEED,
    Run,
    distillation,
    handlers_of,
    open_pool,
    run_ours,
    simulated,
    student_of,
    tiny_clients,
)
from tests.peers import averaging, gossip, topology


@pytest.fixture(scope="module")
def pool(pool_kind: str) -> Any:
    with open_pool(pool_kind, simulated(tiny_clients())) as opened:
        yield opened


# --- probes ---


def right(
    network: Any, inputs: Any, labels: Any, *, rng: Any, client_id: Any, server_round: Any
) -> dict[str, Any]:
    """Say what the network gets right, and what the function was told."""
    told = -1 if client_id is None else client_id
    accuracy = (network(inputs).argmax(1) == labels).double().mean()
    return {"right": accuracy, "told": 10 * server_round + told, "drawn": rng.random()}


def drawing(network: Any, inputs: Any, labels: Any) -> dict[str, Any]:
    """Draw from the global generators, and train the network, which nobody must notice."""
    network.train()
    network(inputs).sum().backward()
    for parameter in network.parameters():
        parameter.data -= parameter.grad
    return {"global": torch.rand(()) + np.random.rand()}


def choosy(network: Any, inputs: Any, labels: Any, *, client_id: Any, server_round: Any) -> Any:
    """Fail at client 1 and, from the first round on, at the student."""
    if client_id == 1 or (client_id is None and server_round):
        raise ArithmeticError("not this one")
    return {"fine": 1.0 if client_id != 2 else float("nan") if server_round else 0.0}


# --- running them ---


@dataclass
class Watched:
    """A run, what was found in each round, and what a person was told."""

    run: Run
    found: list[Findings] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)


def watched(
    pool: Any, clients: SimulatedClients, strategy: Any = None, rounds: int = 2, **asks: Ask
) -> Watched:
    strategy = strategy or distillation(clients)
    asking, student = Asking(asks, clients, True, RESERVED), student_of(clients)
    pool.load(SimulatedApp(clients, [*handlers_of(strategy), *asking.handlers]))
    grid, seen = PoolGrid(pool, clients.architectures), Watched(Run(ArrayRecord(), None))

    def ask(server_round: int, arrays: Any) -> None:
        load_parameters(student, read_arrays(arrays))
        seen.found.append(Findings())
        asking(server_round, student, grid, seen.found[-1], seen.warned.append)

    seen.run = run_ours(pool, clients, strategy, rounds=rounds, grid=grid, ask=ask)
    return seen


def metrics_of(run: Run, name: str) -> list[dict[int, float]]:
    """A metric of clients' replies, by round and client."""
    return [
        {e.client_id: e.metrics[name] for e in report.exchanges if name in e.metrics}
        for report in run.reports
    ]


WHOLE: Any = {"inputs": "test", "examples": None}


def test_each_network_is_asked_where_it_is_and_the_student_too(pool: Any) -> None:
    clients = tiny_clients()
    seen = watched(pool, clients, mine=Ask(right, **WHOLE))
    accuracies = metrics_of(seen.run, "accuracy")
    for number, (found, accuracy, report) in enumerate(
        zip(seen.found, accuracies, seen.run.reports, strict=True), 1
    ):
        assert found.clients["right"] == pytest.approx(accuracy)
        assert found.numbers["student_right"] == pytest.approx(report.student["accuracy"])
        assert found.clients["told"] == {k: 10 * number + k for k in range(5)}
        assert found.numbers["student_told"] == 10 * number - 1
    drawn = [f.clients["drawn"][k] for f in seen.found for k in range(5)]
    drawn += [found.numbers["student_drawn"] for found in seen.found]
    assert len({*drawn}) == 12
    assert not seen.warned
    streams = [stream_of("mine", SEED, 2, whose) for whose in range(6)]  # the last: the student's
    expected = [np.random.default_rng(each).random() for each in streams]
    assert [*drawn[5:10], drawn[-1]] == expected


def test_a_run_has_the_same_bits_with_and_without(pool: Any) -> None:
    """Whatever the function draws, and does to the network; no bytes, and no turn, are counted."""
    clients = tiny_clients()
    seen = watched(pool, clients, one=Ask(drawing), two=Ask(right, inputs="proxy"))
    without = watched(pool, clients)
    assert seen.run.sha256 == without.run.sha256
    exchanges = [[report.exchanges for report in each.run.reports] for each in (seen, without)]
    assert exchanges[0] == exchanges[1]
    assert [r.student for r in seen.run.reports] == [r.student for r in without.run.reports]
    assert all(set(found.clients) == {"global", "right", "told", "drawn"} for found in seen.found)


def test_when_and_of_whom_is_the_configs(pool: Any) -> None:
    clients = tiny_clients()
    few = Ask(right, every=2, share=0.4)
    seen = watched(pool, clients, rounds=3, mine=few, never=Ask(drawing, every=0))
    assert [sorted(found.clients.get("told", {})) for found in seen.found] == [[0, 4], [], [0, 4]]
    assert all("global" not in found.clients for found in seen.found)


def test_the_examples_are_drawn_once_and_are_those_that_were_chosen(pool: Any) -> None:
    clients = tiny_clients(2)
    other, private = blobs(num_examples=80, seed=9), clients.splits.private
    sources = (("test", clients.splits.test), ("proxy", clients.splits.proxy), (other, other[1]))
    for inputs, source in sources:
        few, every = Ask(sums, inputs, 7), Ask(sums, inputs, None)
        seen = watched(pool, clients, few=few)
        labels = [found.clients["labels"] for found in seen.found]
        assert (
            labels[0] == labels[1] == dict.fromkeys((0, 1), seen.found[0].numbers["student_labels"])
        )
        assert seen.found[0].numbers["student_number"] == 7
        all_of = watched(pool, clients, rounds=1, every=every).found[0].numbers
        # As clients see their own: also what was made with another mean and deviation.
        seen_as = (source.inputs - private.mean[0]) / private.std[0]
        assert all_of["student_number"] == len(source)
        assert all_of["student_least"] == pytest.approx(
            seen_as.reshape(len(source), -1).sum(1).min()
        )


def sums(network: Any, inputs: Any, labels: Any) -> dict[str, Any]:
    places = torch.arange(len(labels))
    least = inputs.flatten(1).sum(1).min()
    return {"labels": (labels * 5**places).sum(), "number": len(labels), "least": least}


def test_what_a_function_cannot_do_is_its_failure_and_not_the_runs_end(pool: Any) -> None:
    seen = watched(pool, tiny_clients(4), mine=Ask(choosy))
    for number, (found, report) in enumerate(zip(seen.found, seen.run.reports, strict=True), 1):
        assert found.clients == {"fine": {0: 1.0, 3: 1.0}}
        assert found.numbers == {}
        failed = [str(each) for each in report.exchanges if each.failure]
        assert failed == [
            f"client 1 (mlp), round {number}, phase evaluate.probe: RuntimeError: probes.mine: "
            "ArithmeticError: not this one",
            f"client 2 (linear), round {number}, phase evaluate.probe: ValueError: probes.mine: "
            "value 'fine' is nan, expected a finite number",
        ]
        assert sum(e.request_bytes + e.reply_bytes for e in report.exchanges if e.failure) == 0
    (said,) = seen.warned  # once
    assert said.startswith("the student, round 1: probes.mine: ArithmeticError: not this one; ")


def test_where_parameters_are_averaged_the_global_model_is_asked(pool: Any) -> None:
    clients = tiny_clients(4, architectures=["linear"] * 4)
    seen = watched(pool, clients, Averaging(seed=SEED), mine=Ask(right, **WHOLE))
    student = student_of(clients)
    load_parameters(student, seen.run.parameters)
    measured = evaluate(student, clients.splits.test)
    assert seen.found[-1].numbers["student_right"] == pytest.approx(measured["accuracy"])
    assert all(found.clients == {} for found in seen.found)


def test_peers_without_a_server_are_asked_what_they_have_come_to(pool: Any) -> None:
    linear = {"linear": logistic_regression}
    alike = tiny_clients(4, architectures=["linear"] * 4, models=linear)
    for clients, made in ((tiny_clients(4), gossip), (alike, averaging)):
        strategy = made(clients, topology(ring, n=4))
        seen = watched(pool, clients, strategy, mine=Ask(right, **WHOLE))
        for found, accuracy in zip(seen.found, metrics_of(seen.run, "accuracy"), strict=True):
            assert sorted(accuracy) == [0, 1, 2, 3]
            assert found.clients["right"] == pytest.approx(accuracy)


# --- what is refused ---


def wanting(network: Any, inputs: Any, labels: Any, *, proxy: Any) -> dict[str, Any]:
    return {}


def named(network: Any, inputs: Any, labels: Any, *, name: str) -> dict[str, Any]:
    return {name: 1.0}


@pytest.mark.parametrize(
    ("of", "changes", "message"),
    [
        (wanting, {}, "of wants 'proxy', which nobody offers: expected network, inputs, labels"),
        (right, {"inputs": "train"}, "inputs=train: expected test, proxy or a reader"),
        (right, {"examples": 0}, "examples=0: expected an integer >= 1, or null"),
        (right, {"every": -1}, "every=-1: expected an integer >= 0, 0 for never"),
        (right, {"share": 0.0}, r"share=0.0: expected in (0, 1]"),
        (right, {"share": 1.5}, r"share=1.5: expected in (0, 1]"),
    ],
)
def test_what_cannot_be_asked_is_refused(of: Any, changes: Any, message: str) -> None:
    with pytest.raises(ProbeError, match=re.escape(message)):
        Ask(of, **changes)
    assert Ask(partial(wanting, proxy=3)).share == 1.0


@pytest.mark.parametrize(
    ("asks", "message"),
    [
        ({"a": Ask(partial(named, name="loss"))}, "probes.a: value 'loss': is a column of cl"),
        ({"a": Ask(partial(named, name="x")), "b": Ask(partial(named, name="x"))},
         "probes.b: value 'x': is that of probes.a too"),
        ({"a": Ask(lambda network, inputs, labels: network.nowhere)},
         "probes.a: AttributeError: 'Sequential' object has no attribute 'nowhere' (tried on two"),
        ({"a": Ask(lambda network, inputs, labels: {"n": len(labels)}, "proxy")},
         "(tried on two examples, whose labels are None, by architecture 'linear')"),
        ({"a": Ask(right, blobs(image_shape=(1, 2, 2)))},
         "probes.a: blobs has inputs of shape (1, 2, 2), tokens below None, expected (1, 4, 4)"),
    ],
    ids=["reserved", "twice", "fails", "unlabelled", "shape"],
)  # fmt: skip
def test_before_round_one_a_function_is_tried(asks: dict[str, Ask], message: str) -> None:
    with pytest.raises(ProbeError, match=re.escape(message)):
        Asking(asks, tiny_clients(2), False, RESERVED)


def test_a_proxy_set_that_is_not_there_shows_nothing() -> None:
    splits = tiny_clients(2).splits
    clients = tiny_clients(2, splits=replace(splits, proxy=subset(splits.proxy, np.arange(0))))
    with pytest.raises(ProbeError, match=r"probes\.a: inputs: there are no proxy examples"):
        Asking({"a": Ask(right, "proxy")}, clients, True, RESERVED)


def test_an_ask_is_no_function_of_a_view() -> None:
    with pytest.raises(ProbeError, match="Every: probe is Ask, expected a function of a round's"):
        Every(2, Ask(right))  # type: ignore[arg-type]
