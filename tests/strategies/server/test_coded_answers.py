"""Answers that travel by a codec of anyone's: summed where they are made, by peers too."""

from typing import Any

import numpy as np
import pytest
import torch

from clients.messages.codecs import Precision
from clients.messages.compression import QSGD, Deflate, GaussianMechanism, TopK
from clients.messages.field import Field
from clients.messages.round_views import RoundView
from sim.topology import graphs
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.ensemble import EnsembleRule
from strategies.aggregation.scorers import max_prob
from tests.asking import run, said_energy
from tests.federations import Run, distillation
from tests.federations import tiny_clients as clients_of
from tests.mutual_learning import mutual
from tests.peers import gossip, topology

CODECS = {
    "top-k": TopK(0.5),
    "qsgd": QSGD(6),
    "deflate": Deflate(),
    "gaussian": GaussianMechanism(1e6, 0.01),
}
each_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)


def seen(make: Any, kind: str = "inline", rounds: int = 1, **changes: Any) -> tuple[Run, RoundView]:
    clients, views = clients_of(), list[RoundView]()
    strategy = make(clients, report=views.append, **changes)
    found = run(strategy, clients, kind, rounds=rounds)
    assert not [e.failure for report in found.reports for e in report.exchanges if e.failure]
    return found, views[-1]


def of_peers(clients: Any, **changes: Any) -> Any:
    return gossip(clients, topology(graphs.complete), **changes)


def replies(found: Run) -> int:
    return sum(e.reply_bytes for e in found.reports[0].exchanges if e.phase == "train.predictions")


@each_codec
@pytest.mark.parametrize("make", [distillation, of_peers, mutual])
def test_what_is_combined_is_what_was_decoded(make: Any, codec: Any) -> None:
    (_, plain), (_, view) = (seen(make, answers=each) for each in ("float32", codec))
    off = (plain.teachers.logits - view.teachers.logits).abs()
    assert off.max() > 0
    if codec is CODECS["top-k"]:  # half of the numbers are kept as they are
        assert bool((off[view.teachers.logits != 0] == 0).all())
        assert float((view.teachers.logits == 0).float().mean()) == pytest.approx(0.5, abs=0.1)
    else:
        assert off.max() < 0.5


@pytest.mark.parametrize("changes", [{}, {"scorer": max_prob}, {"chunks": 2}])
def test_answers_are_summed_in_workers_all_the_same(changes: Any) -> None:
    """Summed in groups or all in one place, decoded answers come to the same targets."""
    codec = CODECS["qsgd"]
    clients, views = clients_of(), list[RoundView]()
    strategy = distillation(clients, answers=codec, report=views.append, **changes)
    assert strategy.teachers.intake("train") is not None
    run(strategy, clients)
    whole = distillation(clients, answers=codec, report=views.append, **changes)
    whole.teachers._reducible = False
    run(whole, clients)
    torch.testing.assert_close(views[0].targets, views[1].targets, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [distillation, of_peers])
def test_bits_are_the_same_on_both_pools_and_draws_differ_by_client_and_round(make: Any) -> None:
    codec = GaussianMechanism(1e6, 0.5)
    (one, view), (ray, other) = (seen(make, kind, 2, answers=codec) for kind in ("inline", "ray"))
    assert one.sha256 == ray.sha256
    assert torch.equal(view.teachers.logits, other.teachers.logits)
    metrics = [[e.metrics for e in report.exchanges] for report in one.reports]
    assert metrics == [[e.metrics for e in report.exchanges] for report in ray.reports]
    notes = {each.get("note.noise_multiplier") for row in metrics for each in row}
    assert notes - {None} == {0.5e-6}
    _, plain = seen(make, rounds=2)
    noise = (view.teachers.logits - plain.teachers.logits)[:, :2].flatten(1)
    assert len({tuple(row.tolist()) for row in noise}) == len(noise)


def test_bytes_are_those_of_what_is_encoded() -> None:
    plain = replies(seen(distillation)[0])
    assert plain > replies(seen(distillation, answers=QSGD(2))[0])
    few = [replies(seen(distillation, answers=TopK(share))[0]) for share in (0.1, 0.5)]
    assert few[0] < few[1] < plain + 5 * 3 * 150  # three headers for one


def test_fields_go_beside_and_a_precision_is_its_name() -> None:
    ask = {"energy": Field(said_energy)}
    _, view = seen(distillation, answers=QSGD(8), ask=ask, scorer=lambda a: a["energy"])
    _, plain = seen(distillation, ask=ask, scorer=lambda a: a["energy"])
    assert torch.equal(view.teachers["energy"], plain.teachers["energy"])
    assert not torch.equal(view.teachers.logits, plain.teachers.logits)
    rule = EnsembleRule(max_prob, mean_of_probs, answers=Precision("uint8"))
    assert (rule.answers, rule.fields) == ("uint8", {})
    named, same = (seen(distillation, answers=each)[0] for each in ("uint8", Precision("uint8")))
    assert named.sha256 == same.sha256


# --- what is refused ---


class Odd:
    """Client 1 sends what nobody can decode; client 2 sends too much of it."""

    def encode(self, arrays: Any, *, client_id: int) -> Any:
        if client_id == 2:
            return {name: np.zeros((3, 3), np.float32) for name in arrays}
        return {"odd": np.zeros(3, np.uint8)} if client_id == 1 else arrays

    def decode(self, arrays: Any) -> Any:
        return {"logits": arrays["logits"]}


class Hoarder(Odd):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def encode(self, arrays: Any) -> Any:  # type: ignore[override]
        self.seen.append(1)
        return arrays


@pytest.mark.parametrize("pool", ["inline", "ray"])
def test_what_cannot_be_decoded_is_its_clients_failure(pool: str) -> None:
    clients = clients_of()
    found = run(distillation(clients, answers=Odd()), clients, pool)
    failed = {e.client_id: e.failure for e in found.reports[0].exchanges if e.failure}
    assert failed == {
        1: "array 'predictions/logits' cannot be decoded: 'logits'",
        2: "array 'predictions/logits' is float32 (3, 3), expected float32 (24, 4)",
    }


def test_a_codec_that_keeps_something_is_named() -> None:
    clients = clients_of()
    with pytest.raises(Exception, match="field 'logits': its codec: Hoarder changed its 'seen'"):
        run(distillation(clients, answers=Hoarder()), clients)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ("int4", r"strategy\.ensemble\.answers: codec 'int4': expected one of float32"),
        (7, r"strategy\.ensemble\.answers: codec 7: expected one of float32"),
        (Hoarder, "answers: codec <class .*Hoarder.*: expected one of .*, or an object"),
    ],
)
def test_what_is_no_codec_is_refused(answers: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        distillation(clients_of(), answers=answers)


class Short(Odd):
    def encode(self, arrays: Any) -> Any:  # type: ignore[override]
        return arrays

    def decode(self, arrays: Any) -> Any:
        return {"logits": arrays["logits"][:, :1]}


def test_a_codec_is_tried_before_anybody_trains() -> None:
    with pytest.raises(
        ValueError, match=r"strategy\.ensemble\.answers: decode gave float32 \(4, 1"
    ):
        distillation(clients_of(), answers=Short())
