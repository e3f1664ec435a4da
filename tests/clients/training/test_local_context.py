"""The local context of trainers: what they are told, what a client keeps, what it notes."""

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from clients.execution.trainer_calls import require_offered
from clients.handlers.reply_faults import fault_of
from clients.messages.requests import node_id_of
from clients.population.rehearsal import rehearse
from clients.signatures import named_of, names, unoffered
from clients.training.local_context import LocalContext, array_of
from clients.training.loop import train
from sim.tracking.clients_table import client_rows
from sim.tracking.round_metrics import summarise
from strategies.server.averaging import Averaging
from tests.federations import (
    ALONE,
    SEED,
    Run,
    distillation,
    inline,
    open_pool,
    run_ours,
    simulated,
    tiny_clients,
    trainer,
)

NUMBERS = trainer().keywords


def counting(model: Any, *what: Any, local: LocalContext, odd: str = "", **numbers: Any) -> Any:
    """Train as ours does; keep how often, and a random number of each time."""
    calls = local.state.setdefault("calls", np.zeros((), np.int64))
    local.state["calls"] = calls + 1
    local.note(calls=float(calls) + 1, client=local.client_id or 0)
    if odd == "sometimes" and local.client_id == 1:
        local.note(alone=1.0)
    if odd == "fails" and local.client_id == 1 and local.server_round == 1:
        raise ValueError("not in round 1")
    if odd == "keeps" and local.client_id == 1:
        local.state["words"] = {"a": "dictionary"}
    return train(model, *what, **numbers)


def moving_average(model: Any, *what: Any, local: LocalContext, **numbers: Any) -> Any:
    """Train, and keep the mean of all parameters that there were, as a network has them."""
    losses = train(model, *what, **numbers)
    for name, value in model.state_dict().items():
        before = local.state.get(name)
        local.state[name] = value if before is None else (torch.from_numpy(before) + value) / 2
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.as_tensor(local.state[name]))
    return losses


def run(pool: str, strategy: Any, rounds: int = 3, **bound: Any) -> Run:
    clients = tiny_clients(4, train=partial(counting, **NUMBERS, **bound))
    made = strategy(clients)
    with open_pool(pool, simulated(clients, made)) as opened:
        return run_ours(opened, clients, made, rounds=rounds)


def fedavg(clients: Any) -> Any:
    clients.architectures = ["linear"] * 4
    return FedAvg(**ALONE)


def averaging(clients: Any) -> Any:
    clients.architectures = ["linear"] * 4
    return Averaging(seed=SEED)


# --- what a trainer is told ---


@pytest.mark.parametrize("pool", ["inline", "ray"])
@pytest.mark.parametrize("strategy", [fedavg, averaging, distillation])
def test_a_client_has_again_what_it_kept_and_its_notes_are_columns_and_curves(
    strategy: Any, pool: str
) -> None:
    found = run(pool, strategy)
    for number, report in enumerate(found.reports, start=1):
        rows = client_rows(report.exchanges)
        assert [(row["client"], row["calls"]) for row in rows] == [(k, number) for k in range(4)]
        assert [row["client_client"] for row in rows] == [0, 1, 2, 3]  # a note of a taken name
        line = summarise(report, rows, {})
        assert line["clients"]["calls"] == dict.fromkeys(
            ("mean", "min", "q25", "median", "q75", "max"), float(number)
        )
        assert "calls" not in line["strategy"]


def test_notes_of_some_clients_cost_nobody_the_round() -> None:
    """Flower's strategies refuse replies whose metrics are not named alike."""
    found = run("inline", fedavg, rounds=1, odd="sometimes")
    assert not any(each.failure for each in found.reports[0].exchanges)
    rows = client_rows(found.reports[0].exchanges)
    assert ["alone" in row for row in rows] == [False, True, False, False]


def test_a_trainer_is_told_what_came_the_round_and_the_phase() -> None:
    told: list[Any] = []

    def asking(model: Any, *what: Any, local: LocalContext, **numbers: Any) -> Any:
        sent = {name: sorted(arrays) for name, arrays in local.received.items()}
        told.append((local.client_id, local.server_round, local.phase, sent))
        return train(model, *what, **numbers)

    for make, count in ((fedavg, 1), (partial(distillation, feed_back=True), 2)):
        clients = tiny_clients(4, train=partial(asking, **NUMBERS))
        strategy = make(clients)
        run_ours(inline(simulated(clients, strategy)), clients, strategy, rounds=count)
    averaged, distilled = told[:4], told[4:]
    names_of = ["classifier.bias", "classifier.weight"]
    assert averaged[2] == (2, 1, "train", {"arrays": names_of})
    second = [each for each in distilled if each[1] == 2 and each[0] == 1]  # of another network
    assert [each[2] for each in second] == ["digest", "train"]
    assert second[0][3] == {"inputs": ["proxy-ids"], "student": names_of}


def test_a_moving_average_of_two_rounds_by_hand() -> None:
    """The second round ends at the mean of where both would have ended alone."""
    clients = tiny_clients(1, architectures=["linear"])
    network = clients.place("cpu").networks.of("linear")
    start = {name: value.clone() for name, value in network.state_dict().items()}
    labels = torch.tensor(clients.splits.private.labels[:32])
    loss = partial(torch.nn.functional.cross_entropy, reduction="none")

    def ended(how: Any, seed: int) -> dict[str, torch.Tensor]:
        network.load_state_dict(start)
        rng = np.random.default_rng(seed)
        what = clients.splits.private, np.arange(32), labels, loss, rng
        how(network, *what, **NUMBERS)
        return {name: value.clone() for name, value in network.state_dict().items()}

    first = LocalContext(0, 1)
    ended(first.told(moving_average), 1)
    second = LocalContext(0, 2, state=lambda: first.kept or {})
    found = ended(second.told(moving_average), 2)
    one, two = ended(train, 1), ended(train, 2)
    for name, value in found.items():
        assert not torch.equal(one[name], two[name])
        torch.testing.assert_close(value, (one[name] + two[name]) / 2)


# --- what may be kept and noted ---


def test_a_client_that_fails_keeps_nothing_and_one_that_keeps_words_fails_by_name() -> None:
    found = run("inline", fedavg, rounds=2, odd="fails")
    rows = [client_rows(report.exchanges) for report in found.reports]
    assert "not in round 1" in rows[0][1]["failure"]
    assert [row["calls"] for row in rows[1]] == [2, 1, 2, 2]
    (first, *_) = run("inline", fedavg, rounds=1, odd="keeps").reports
    failures = [exchange.failure for exchange in first.exchanges if exchange.failure]
    (failure,) = failures
    assert failure.endswith("local.state['words'] is of dict: expected an array of numbers")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(2, dtype=torch.bfloat16), "of torch.bfloat16: expected an array of numbers as "
         "numpy has them; .float() is one"),
        (torch.zeros(2).to_sparse(), "of torch.float32: expected an array of numbers as numpy has"),
        ([[1], [2, 3]], "of list: expected an array of numbers as numpy has them"),
        (np.zeros(1, complex), "of complex128: expected an array of numbers"),
        ("word", "of str: expected an array of numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_told_by_its_name(value: Any, said: str) -> None:
    """It was torch's own line, which names no key."""
    with pytest.raises(ValueError, match=rf"^local\.state\['m'\] is {re.escape(said)}"):
        array_of("local.state['m']", "m", value)
    with pytest.raises(ValueError, match=r"its name is of int, expected a text"):
        array_of("local.state[3]", 3, np.zeros(2))


def test_a_trainer_may_keep_what_is_not_finite() -> None:
    kept = array_of("local.state['m']", "m", torch.tensor([torch.nan, torch.inf]))
    assert np.array_equal(kept, [np.nan, np.inf], equal_nan=True)


@pytest.mark.parametrize(
    ("value", "said"),
    [("1", "expected a number"), (True, "expected a number"), (None, "expected a number"),
     (float("nan"), "finite"), (torch.ones(2), "expected a number"), (np.inf, "finite")],
)  # fmt: skip
def test_what_is_no_finite_number_is_not_noted(value: Any, said: str) -> None:
    local = LocalContext(3, 1)
    with pytest.raises(ValueError, match=r"local\.note\(mine=.*" + said):
        local.note(mine=value)
    local.note(mine=1, other=torch.tensor(2.5), third=np.float32(0.5))
    assert local.notes == {"mine": 1.0, "other": 2.5, "third": 0.5}


def test_a_state_is_the_clients_own_copy_and_is_written_only_if_it_was_looked_at() -> None:
    array = np.zeros(3)
    array.flags.writeable = False
    local = LocalContext(3, 1, state=lambda: {"memory": array})
    assert local.kept is None
    digest = local.during("digest")
    digest.state["memory"][0] = 5  # it may be written to
    assert array[0] == 0
    assert local.state["memory"][0] == 5  # one state for all phases of a call
    assert local.kept is not None
    assert local.kept["memory"].tolist() == [5, 0, 0]


@pytest.mark.parametrize("value", [float("inf"), 1e31, "many", [1.0, 1e31]])
def test_notes_of_a_client_that_are_no_numbers_are_a_fault(value: Any) -> None:
    request = Message(RecordDict(), node_id_of(0), "train")
    reply = Message(RecordDict({"notes": ConfigRecord({"mine": value})}), reply_to=request)
    assert "metric 'notes/mine'" in str(fault_of(request, reply))


# --- of the student ---


def noting(model: Any, *what: Any, local: LocalContext, **numbers: Any) -> Any:
    assert (local.client_id, local.phase) == (None, "distil")
    local.state["rounds"] = local.state.get("rounds", np.zeros(())) + 1
    local.note(lessons=local.state["rounds"])
    return train(model, *what, **numbers)


@pytest.mark.parametrize("chunks", [1, 3])
def test_a_student_has_again_what_its_trainer_kept_also_in_another_strategy(chunks: int) -> None:
    clients = tiny_clients(3)
    more = {} if chunks == 1 else {"chunks": chunks}
    strategy = distillation(clients, distil=partial(noting, **NUMBERS), **more)
    found = run_ours(inline(simulated(clients, strategy)), clients, strategy, rounds=2)
    calls = 1 if chunks == 1 else chunks + 1  # an epoch chunk by chunk, one on all
    assert [report.train["lessons"] for report in found.reports] == [calls, 2 * calls]
    other = distillation(clients, distil=partial(noting, **NUMBERS), **more)
    other.restore(strategy.state())
    again = run_ours(inline(simulated(clients, other)), clients, other, rounds=1)
    assert again.reports[0].train["lessons"] == 3 * calls


# --- what nobody gives ---


def needy(
    model: Any, data: Any, ids: Any, targets: Any, loss: Any, rng: Any, *, memory: int
) -> Any:
    return [0.0]


def test_a_trainer_that_needs_what_nobody_gives_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"clients\.training\.memory is not set.*anchors, local"):
        rehearse(tiny_clients(2, train=needy))
    with pytest.raises(ValueError, match=r"strategy\.distil\.memory is not set"):
        distillation(tiny_clients(2), distil=needy)
    require_offered(partial(needy, memory=3), "clients.training")
    require_offered(counting, "clients.training")


def test_which_arguments_of_a_function_are_free() -> None:
    def function(one: int, two: int, *, local: int, size: int = 3, **others: int) -> None: ...

    assert names(function, "local")
    assert not names(partial(function, local=1), "local")
    assert not names(function, "others")
    made: list[str] = []
    offered = {"local": lambda: 5, "rng": lambda: made.append("rng")}
    assert named_of(function, offered) == {"local": 5}
    assert not made  # what is not named is not made
    assert unoffered(function, 2, ["local"]) is None
    assert unoffered(function, 2, []) == "local"
    assert unoffered(function, 1, ["local"]) == "two"
    assert unoffered(partial(function, 1, two=2, local=3), 0, []) is None
