"""What clients are measured on: a sample of the test set, and in the last round all of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.data import Splits, blobs, split
from clients.models import logistic_regression
from clients.partition import iid
from clients.population.clients import SimulatedClients
from clients.population.drawing import LEAST_SAMPLE, MEASURING, draw_clients, with_sample
from clients.seeding import Purpose, generator
from tests.federations import SEED, Run, distillation, open_pool, run_ours, simulated, tiny_clients
from tests.federations import trainer as two_epochs
from tests.tiny_runs import BASES, composed, played


def large(num_examples: int = 6000) -> Splits:
    """Cut so many blobs into private, proxy and test examples; a quarter of them are the test's."""
    limits = {"proxy_share": 0.5, "proxy_source": None, "limit": None, "proxy_limit": None}
    sets = blobs(num_examples=num_examples, seed=1)
    return split(*sets, **limits, rng=generator(SEED, Purpose.SPLIT))


def drawn(splits: Splits, **changes: Any) -> SimulatedClients:
    kinds = {"linear": {"share": 1.0, "model": logistic_regression}}
    about: dict[str, Any] = {
        **{"num_clients": 3, "architectures": kinds, "training": two_epochs()},
        **{"condition": None, "student": logistic_regression, "rounds": 3},
    }
    return draw_clients(splits, SEED, iid, **(about | changes))


def test_a_sample_is_of_the_test_set_and_the_last_round_has_all_of_it() -> None:
    splits = with_sample(large(), 3, 20, usual=0, rounds=4)
    assert [len(splits.tested(r)) for r in (1, 3, 4, 5)] == [20, 20, *[len(splits.test)] * 2]
    assert splits.tested(1) is splits.tested(3)  # in each round the same: curves can be compared
    rows = {row.tobytes() for row in splits.test.inputs}
    assert all(row.tobytes() in rows for row in splits.tested(1).inputs)
    other = with_sample(large(), 4, 20, usual=0, rounds=4)
    assert not np.array_equal(other.tested(1).inputs, splits.tested(1).inputs)


def test_without_one_all_rounds_have_the_whole_set() -> None:
    splits = large()
    for examples, rounds in ((0, 9), (len(splits.test), 9), (10**9, 9), (20, 1)):
        assert with_sample(splits, 3, examples, usual=7, rounds=rounds).sample is None
    with pytest.raises(ValueError, match=r"^evaluation.examples=-1: expected >= 0"):
        with_sample(splits, 3, -1, usual=7, rounds=2)


def test_by_default_it_costs_a_tenth_of_a_round_and_is_never_tiny() -> None:
    # Two epochs of three passes each over the own examples, and one over the proxy set.
    splits = large()
    own, proxy = len(splits.private) / 3, len(splits.proxy)
    expected = round(MEASURING * (2 * 3 * own + proxy))
    assert LEAST_SAMPLE < expected < len(splits.test)
    assert len(drawn(splits).splits.tested(1)) == expected
    assert len(drawn(splits, num_clients=2000).splits.tested(1)) == LEAST_SAMPLE
    assert drawn(splits, rounds=1).splits.sample is None


def federation(examples: int) -> SimulatedClients:
    plain = tiny_clients()
    return tiny_clients(splits=with_sample(plain.splits, SEED, examples, usual=0, rounds=2))


def run(pool_kind: str, examples: int) -> Run:
    clients = federation(examples)
    strategy = distillation(clients, tested=clients.splits.tested)
    with open_pool(pool_kind, simulated(clients, strategy)) as pool:
        return run_ours(pool, clients, strategy, rounds=2)


def test_the_student_and_the_last_round_are_what_they_are_without(pool_kind: str) -> None:
    whole, sampled = run("inline", 0), run(pool_kind, 7)
    assert whole.sha256 == sampled.sha256
    assert whole.reports[0].evaluated != sampled.reports[0].evaluated
    assert whole.reports[1].evaluated == sampled.reports[1].evaluated
    sevenths = sampled.reports[0].evaluated["ensemble-accuracy"] * 7
    assert sevenths == pytest.approx(round(sevenths), abs=1e-5)
    for of_whole, of_sample in zip(whole.reports, sampled.reports, strict=True):
        measured = [e for e in of_sample.exchanges if e.phase == "evaluate.predictions"]
        before = [e for e in of_whole.exchanges if e.phase == "evaluate.predictions"]
        assert len(measured) == len(before) == 5
        smaller = [a.reply_bytes < b.reply_bytes for a, b in zip(measured, before, strict=True)]
        assert smaller == [of_sample.server_round == 1] * 5


def test_a_clients_accuracy_is_of_the_sample() -> None:
    sampled = run("inline", 7)
    first, last = (
        [e.metrics["accuracy"] for e in report.exchanges if e.phase == "evaluate.predictions"]
        for report in sampled.reports
    )
    assert all(value * 7 == pytest.approx(round(value * 7), abs=1e-5) for value in first)
    number = len(federation(0).splits.test)
    assert all(value * number == pytest.approx(round(value * number), abs=1e-4) for value in last)
    assert first != last


@pytest.mark.parametrize("base", ["gossip", "peers", "fml", "mutual", "ffl", "defkt"])
def test_whoever_has_a_network_is_measured_on_it(base: str, tmp_path: Path) -> None:
    """Peers without a server, clients beside a messenger, groups that learn together."""
    found = []
    for examples in (0, 7):
        words = (*BASES[base], "rounds=2", f"evaluation.examples={examples}")
        seen = played(composed(words), tmp_path / str(examples))
        assert not seen.error
        text = (seen.folder / "metrics.jsonl").read_text()
        found.append([json.loads(line) for line in text.splitlines()])
    whole, sampled = found
    assert whole[1]["clients"]["accuracy"] == sampled[1]["clients"]["accuracy"]
    assert whole[0]["clients"]["accuracy"] != sampled[0]["clients"]["accuracy"]
    worst = sampled[0]["clients"]["accuracy"]["min"] * 7
    assert worst == pytest.approx(round(worst), abs=1e-5)
    assert whole[1]["strategy"] == sampled[1]["strategy"]
