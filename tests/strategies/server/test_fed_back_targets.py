"""Targets that are fed back: what clients get of the round before, and learn before they train."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord

from clients.handlers.compute_cost import forward
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.codecs import Precision
from clients.messages.replies import read_reply
from clients.messages.requests import TARGETS, read_request
from clients.models.factory import build, parameters_of
from clients.population.profiles import alike
from clients.seeding import Purpose, generator, stream
from clients.training.evaluation import predict
from clients.training.losses import kl
from clients.training.objective import Objective
from sim.engine.grid import PoolGrid
from strategies.server.codec_requirements import require_codec_down
from strategies.server.distillation import DistillationStrategy
from strategies.teaching.selection import random
from tests.asking import run
from tests.federations import (
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

FED = {"feed_back": "targets"}


def fed(kind: str = "inline", rounds: int = 3, clients: Any = None, **changes: Any) -> Run:
    clients = clients or tiny_clients()
    found = run(distillation(clients, **{**FED, **changes}), clients, kind, rounds=rounds)
    assert not [e.failure for report in found.reports for e in report.exchanges if e.failure]
    return found


def requests_of(strategy: DistillationStrategy, clients: Any, server_round: int) -> list[Any]:
    grid = PoolGrid(inline(simulated(clients, strategy)), clients.architectures)
    grid.begin_round(server_round)
    arrays = write_arrays(parameters_of(strategy.student))
    return list(strategy.configure_train(server_round, arrays, ConfigRecord(), grid))


# --- what is sent ---


@pytest.mark.parametrize("chunks", [1, 3])
def test_from_round_two_on_the_targets_of_the_round_before_come_along(chunks: int) -> None:
    clients = tiny_clients()
    strategy = distillation(clients, chunks=chunks, **FED)
    assert read_request(requests_of(strategy, clients, 1)[0].content).targets is None
    run_ours(inline(simulated(clients, strategy)), clients, strategy)
    asked = read_request(requests_of(strategy, clients, 2)[0].content)
    assert asked.student is None
    assert asked.targets is not None
    assert asked.digest_ids is not None
    assert sorted(asked.digest_ids.tolist()) == strategy.split.distilled_ids.tolist()
    assert asked.targets.shape == (len(asked.digest_ids), 4)
    np.testing.assert_allclose(asked.targets.sum(1), 1, atol=1e-6)


def test_what_is_sent_is_what_the_student_learned() -> None:
    learned: list[Any] = []

    def watching(model: Any, data: Any, ids: Any, targets: Any, *rest: Any, **more: Any) -> Any:
        learned[:] = [ids, targets]
        return [0.0]

    clients = tiny_clients()
    strategy = distillation(
        clients, distil=watching, selection=partial(random, share=0.3), probe_examples=4, **FED
    )
    learned.clear()
    run_ours(inline(simulated(clients, strategy)), clients, strategy)
    asked = read_request(requests_of(strategy, clients, 2)[0].content)
    assert asked.digest_ids is not None
    assert asked.digest_ids.tolist() == learned[0].tolist()
    assert len(asked.digest_ids) == 7  # 30 percent of 24
    assert np.array_equal(asked.targets, learned[1].numpy())  # type: ignore[arg-type]


def test_a_client_imitates_them_by_the_loss_of_the_strategy_before_it_trains() -> None:
    clients = tiny_clients(2, train=partial(trainer(), epochs=0))
    strategy = distillation(clients, digest_epochs=3, temperature=2.0, loss=half_kl, **FED)
    found = run_ours(inline(simulated(clients, strategy)), clients, strategy)
    assert found.reports
    (_, request) = requests_of(strategy, clients, 2)
    asked, splits = read_request(request.content), clients.splits
    expected = build(clients.models["mlp"], splits.proxy.task, generator(SEED, *FIRST, 1))
    rng = np.random.default_rng(stream(SEED, Purpose.DIGEST, 2, 1))
    targets = torch.from_numpy(asked.targets.copy())  # type: ignore[union-attr]
    loss = partial(half_kl, temperature=2.0)
    trainer()(expected, splits.proxy, asked.digest_ids, targets, loss, rng, epochs=3)
    grid = PoolGrid(inline(simulated(clients, strategy)), clients.architectures)
    grid.begin_round(2)
    (reply,) = grid.send_and_receive([request])
    assert asked.proxy_ids is not None
    said = torch.from_numpy(read_reply(reply.content).logits)
    assert torch.equal(said, predict(expected, splits.proxy, asked.proxy_ids))


FIRST = (Purpose.INITIALISE, 0)


def half_kl(logits: Any, targets: Any, temperature: float) -> Any:
    return kl(logits, targets, temperature) / 2


def test_targets_come_to_every_client_of_a_cohort_that_changes() -> None:
    found = fed(fraction=0.4, rounds=4)
    cohorts = found.cohorts()
    assert any(set(one) != set(cohorts[0]) for one in cohorts)
    for report in found.reports[1:]:
        told = [e.metrics for e in report.exchanges if e.phase.startswith("train")]
        assert all(each["digest-loss"] >= 0 for each in told)


# --- bits ---


def test_the_bits_are_the_same_on_both_pools_and_clients_move() -> None:
    here, there = fed("inline"), fed("ray")
    assert here.sha256 == there.sha256
    assert here.sha256 != fed(feed_back=False).sha256
    assert here.sha256 != fed(feed_back="student").sha256
    assert here.sha256 != fed(digest_epochs=4).sha256


def test_student_is_what_true_was() -> None:
    assert fed(feed_back=True).sha256 == fed(feed_back="student").sha256


def test_answers_are_what_the_student_says_once_it_is_taught() -> None:
    clients = tiny_clients()
    strategy = distillation(clients, feed_back="answers", temperature=2.0)
    run_ours(inline(simulated(clients, strategy)), clients, strategy)
    asked = read_request(requests_of(strategy, clients, 2)[0].content)
    assert asked.digest_ids is not None
    said = predict(strategy.student, clients.splits.proxy, asked.digest_ids)
    np.testing.assert_allclose(asked.targets, (said / 2).softmax(-1))
    here, there = (fed(kind, feed_back="answers").sha256 for kind in ("inline", "ray"))
    assert here == there != fed().sha256


def test_what_is_to_be_fed_back_is_in_the_state() -> None:
    clients = tiny_clients()
    strategy = distillation(clients, **FED)
    assert read_arrays(strategy.state()[TARGETS]) == {}  # type: ignore[arg-type]
    run_ours(inline(simulated(clients, strategy)), clients, strategy)
    other = distillation(clients, **FED)
    other.restore(strategy.state())
    one, two = (read_request(requests_of(s, clients, 2)[0].content) for s in (strategy, other))
    assert np.array_equal(one.targets, two.targets)  # type: ignore[arg-type]
    assert TARGETS not in distillation(clients).state()


# --- without a student ---


def test_without_a_student_clients_learn_from_each_other_and_are_measured() -> None:
    views: list[Any] = []
    clients = tiny_clients()
    strategy = distillation(clients, distil=None, report=views.append, **FED)
    assert not strategy.has_student
    before = {name: value.tobytes() for name, value in parameters_of(strategy.student).items()}
    found = run(strategy, clients, "inline", rounds=3)
    after = {name: value.tobytes() for name, value in parameters_of(strategy.student).items()}
    assert before == after
    assert views[-1].student_after is None
    assert views[-1].losses == []
    measured = [e.metrics for e in found.reports[-1].exchanges if "accuracy" in e.metrics]
    assert len(measured) == 5
    alone = fed(feed_back=False, rounds=3).reports[-1]
    assert measured != [e.metrics for e in alone.exchanges if "accuracy" in e.metrics]


def test_with_digests_clients_agree_more() -> None:
    def spread(epochs: int) -> float:
        views: list[Any] = []
        clients = tiny_clients()
        more = {"distil": None, "digest_epochs": epochs, "report": views.append}
        run(distillation(clients, **FED, **more), clients, "inline", rounds=3)
        probs = views[-1].teachers.logits.softmax(-1)
        return float((probs - probs.mean(0)).abs().mean())

    assert spread(20) < 0.8 * spread(0)


# --- codecs, and the clock ---


def coded(kind: str, codec: Any) -> Run:
    clients = tiny_clients(codec_down=codec)
    strategy = distillation(clients, **FED)
    app = simulated(clients, strategy)
    with open_pool(kind, app) as pool:
        grid = PoolGrid(pool, clients.architectures, encode=app.encode_request)
        return run_ours(pool, clients, strategy, rounds=2, grid=grid)


def test_a_codec_down_is_on_them_and_bytes_are_those_after_it() -> None:
    plain, half, there = coded("inline", None), *(coded(k, HALF) for k in ("inline", "ray"))
    sizes = [each.reports[1].exchanges[0].request_bytes for each in (plain, half)]
    assert sizes[0] - sizes[1] == 24 * 4 * 2  # of 24 targets, 2 bytes a number
    assert plain.sha256 != half.sha256 == there.sha256


HALF = Precision("float16")


def test_targets_that_a_codec_rounded_are_on_the_simplex_again() -> None:
    class Shifted:
        def encode(self, arrays: Any) -> Any:
            return {name: array - np.float32(0.3) for name, array in arrays.items()}

        def decode(self, arrays: Any) -> Any:
            return arrays

    told: list[Any] = []

    def loss(logits: Any, targets: Any, temperature: float) -> Any:
        told.append(targets)
        return kl(logits, targets, temperature)

    clients = tiny_clients(2, codec_down=Shifted())
    strategy = distillation(clients, loss=loss, distil=None, **FED)
    app = simulated(clients, strategy)
    grid = PoolGrid(inline(app), clients.architectures, encode=app.encode_request)
    told.clear()
    run_ours(inline(app), clients, strategy, rounds=2, grid=grid)
    assert told
    for targets in told:
        assert (targets > 0).all()
        torch.testing.assert_close(targets.sum(1), torch.ones(len(targets)))


def test_a_codec_down_is_tried_on_targets() -> None:
    class Refusing:
        def encode(self, arrays: Any) -> Any:
            assert set(arrays) == {"targets"}
            return arrays

        def decode(self, arrays: Any) -> Any:
            return arrays

    clients = tiny_clients(codec_down=Refusing())
    require_codec_down(partial(DistillationStrategy, distil=None, **FED), clients)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="clients.codec_down: AssertionError"):
        require_codec_down(partial(DistillationStrategy, distil=None, feed_back=True), clients)


def test_the_clock_counts_the_digest() -> None:
    def seconds(epochs: int) -> float:
        slow = partial(alike, multiplications_per_s=1.0, download_bytes_per_s=1e18,
                       upload_bytes_per_s=1e18, latency_s=0.0)  # fmt: skip
        clients = tiny_clients(2, profile=slow)
        strategy = distillation(clients, digest_epochs=epochs, **FED)
        grid = PoolGrid(
            inline(simulated(clients, strategy)), clients.architectures, profiles=clients.profiles
        )
        found = run_ours(inline(None), clients, strategy, rounds=2, grid=grid)
        asked = [e for e in found.reports[1].exchanges if e.client_id == 0]
        return sum(e.simulated_time_s or 0.0 for e in asked)

    once = forward(tiny_clients(2), 0)  # of client 0's network; a step is three passes
    assert seconds(3) - seconds(1) == pytest.approx(2 * 3 * 24 * once)


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feed_back": "logits"}, "feed_back=logits: expected false, student, targets"),
        ({"feed_back": False, "distil": None}, "nobody learns from the answers"),
        ({"feed_back": "student", "distil": None}, "nobody learns from the answers"),
        ({**FED, "local_training": False}, "local_training=false: expected"),
        ({**FED, "loss": Objective(lambda o, t, a: t, anchors=("weights",))}, "has the anchor"),
    ],
    ids=["unknown", "nobody", "student", "untrained", "anchors"],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distillation(tiny_clients(), **changes)
