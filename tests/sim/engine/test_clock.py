"""The virtual clock: seconds by hand, on both pools, with a server and without."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, RecordDict

from clients.handlers.base import by_kind
from clients.handlers.feature_probes import feature_request
from clients.messages.payload_routing import Letter, Post
from clients.models.discriminator import DiscriminatorRecipe
from clients.population.clients import SimulatedClients
from clients.population.profiles import Profiles
from clients.training.loop import train
from sim.engine.clock import exchange_s, letters_s, takes_time
from sim.engine.exchanges import Exchange
from sim.engine.grid import PoolGrid
from sim.topology import graphs
from sim.workers.tasks import Answer
from strategies.aggregation.scorers import own_odds
from strategies.server.averaging import Averaging
from tests.federations import HANDLERS, SEED, Run, distillation, open_pool, simulated, tiny_clients
from tests.federations import run_ours as run_federation
from tests.peers import alike as like_clients
from tests.peers import averaging, gossip, pair_learning, topology, transfer
from tests.timed import LINEAR, MLP, asking, drawn, profiles, questions

# --- seconds ---


def test_the_seconds_of_one_request_by_hand() -> None:
    known = profiles(100.0, 1000.0)
    done = Answer(1, None, reply_bytes=100, multiplications=3000.0)
    ask = asking("train")
    assert exchange_s(known, ask, done, 800) == 2 * 0.5 + 2 + 3 + 2
    assert exchange_s(known, ask, done, 800, kept=True) == 2 * 0.5 + 2 + 3
    assert exchange_s(known, ask, done, 800, letters_s=1.5) == 2 * 0.5 + 2 + 3 + 2
    assert exchange_s(known, ask, done, 800, letters_s=7.0) == 2 * 0.5 + 7 + 3 + 2
    free = Profiles(*(np.full(2, np.inf) for _ in range(3)), np.zeros(2))
    assert exchange_s(free, ask, done, 800) == 0


@pytest.mark.parametrize(
    ("kind", "content", "measures"),
    [
        ("train", None, False),
        ("query.own", None, False),
        ("evaluate", None, True),
        ("evaluate.own", None, True),
        ("evaluate.features", feature_request(np.arange(3)), True),
        ("evaluate.parameters", None, True),
        ("evaluate.mine", None, True),
        ("evaluate.predictions", questions(None), True),
        ("evaluate.predictions", questions(), False),  # a chunk of what teaches
        ("train.predictions", questions(), False),
    ],
)
def test_what_is_asked_only_to_measure(
    kind: str, content: RecordDict | None, measures: bool
) -> None:
    assert takes_time(asking(kind, content), by_kind(HANDLERS)) != measures


class Sizes:
    """Payloads of 100 bytes, those called "big" of 1,000."""

    def size(self, name: str, client_id: int) -> int:
        return 1000 if name == "big" else 100

    read = keep = forget = None


def test_receivers_wait_for_the_uploads_of_their_senders() -> None:
    # Client 1 sends 100 bytes to 0 and 1,000 to 2: 1,100 at 100 bytes/s. Client 2 sends 100 to 0
    # at 50 bytes/s. What 0 has for itself is not sent.
    letters = {
        0: [Letter(0, "big", 0.3), Letter(1, "small", 0.3), Letter(2, "small", 0.4)],
        2: [Letter(1, "big", 1.0)],
        3: [Letter(3, "small", 1.0)],
        4: [Letter(2, "small", 1.0)],
    }
    known = profiles(*[1.0] * 5, up=[1.0, 100.0, 50.0, 1.0, 1.0])
    post = Post(letters, mix=lambda receiver, own: RecordDict())
    assert letters_s(known, post, Sizes()) == {0: 11.0, 2: 11.0, 4: 4.0}  # type: ignore[arg-type]


# --- rounds, on both pools ---


@pytest.fixture(scope="module")
def pool(pool_kind: str) -> Any:
    with open_pool(pool_kind, simulated(tiny_clients())) as opened:
        yield opened


def run_timed(pool: Any, clients: SimulatedClients, strategy: Any, **options: Any) -> Run:
    pool.load(simulated(clients, strategy))
    grid = PoolGrid(pool, clients.architectures, profiles=clients.profiles, group_size=2)
    return run_federation(pool, clients, strategy, grid=grid, **options)


def by_phase(run: Run) -> dict[tuple[str, int], Exchange]:
    return {(e.phase, e.client_id): e for e in run.reports[-1].exchanges}


def test_a_round_of_dlad_by_hand(pool: Any) -> None:
    """Two clients of 60 examples; 24 proxy examples distilled, 6 for discriminators."""
    clients = tiny_clients(2, profile=drawn(profiles(1000.0, 500.0)))
    strategy = distillation(clients, scorer=own_odds, discriminator=DiscriminatorRecipe("features"))
    run = run_timed(pool, clients, strategy)
    seconds = []
    for k, (speed, forward) in enumerate([(1000.0, LINEAR), (500.0, MLP)]):
        found = by_phase(run)["train.predictions", k]
        # Three passes for each of 60 examples and 2 epochs, 24 answers, 60 + 6 features.
        work = (3 * 2 * 60 + 24 + 60 + 6) * forward
        up = found.reply_bytes / 50
        seconds.append(1.0 + found.request_bytes / 400 + work / speed + up)
        # Answers are 4 + 1 numbers of 4 bytes, what the request has is 30 ids of 8 bytes.
        assert 0 < found.reply_bytes - 24 * 5 * 4 < 600
        assert 0 < found.request_bytes - 30 * 8 < 600
        assert found.simulated_time_s == pytest.approx(seconds[k], rel=1e-12)
        assert by_phase(run)["evaluate.predictions", k].simulated_time_s == 0
    assert seconds[1] > 450 * MLP / 500  # 155.7 s of computing, and client 0's 31.05
    assert run.reports[0].simulated_time_s == max(
        e.simulated_time_s for e in run.reports[0].exchanges if e.simulated_time_s is not None
    )
    assert run.reports[0].simulated_time_s == pytest.approx(seconds[1], rel=1e-12)


def test_two_rounds_of_averaging_by_hand(pool: Any) -> None:
    """The slowest client decides; folded replies count each."""
    clients = like_clients(2, profile=drawn(profiles(200.0, 1000.0)))
    run = run_timed(pool, clients, Averaging(seed=SEED), rounds=2)
    for report in run.reports:
        training = [e for e in report.exchanges if e.phase == "train"]
        # 60 examples, 2 epochs: 360 passes of 69, 24,840 multiplications, 124.2 s and 24.84 s.
        for e, computing in zip(training, (124.2, 24.84), strict=True):
            expected = 1 + e.request_bytes / 400 + computing + e.reply_bytes / 50
            assert e.simulated_time_s == pytest.approx(expected, rel=1e-12)
            assert e.reply_bytes > 68 * 4  # parameters went up
        assert report.simulated_time_s == training[0].simulated_time_s
        measured = [e.simulated_time_s for e in report.exchanges if e.phase == "evaluate"]
        assert measured == [0.0, 0.0]


@pytest.mark.parametrize("trains", [True, False])
def test_chunks_follow_each_other_and_answers_that_teach_take_time(pool: Any, trains: bool) -> None:
    clients = tiny_clients(2, profile=drawn(profiles(1000.0, 1000.0)))
    strategy = distillation(clients, chunks=3, local_training=trains)
    (report,) = run_timed(pool, clients, strategy).reports
    first = "train.predictions" if trains else "evaluate.predictions"
    own = [e for e in report.exchanges if e.client_id == 1]
    assert [e.phase for e in own] == [first] + 3 * ["evaluate.predictions"]
    assert own[-1].simulated_time_s == 0  # the test set
    assert all((e.simulated_time_s or 0) > 1 for e in own[:-1])
    # The MLP is slower with every chunk.
    total = sum(e.simulated_time_s or 0 for e in own)
    assert report.simulated_time_s == pytest.approx(total, rel=1e-12)


def test_a_client_that_fails_costs_its_download_and_its_work(pool: Any) -> None:
    diverging = partial(train, epochs=2, batch_size=16, optimizer=partial(torch.optim.SGD, lr=1e38))
    clients = tiny_clients(2, train=diverging, profile=drawn(profiles(1000.0, 1000.0)))
    with pytest.raises(RuntimeError, match="quorum"):
        run_timed(pool, clients, distillation(clients), report=(reports := []).append)
    (report,) = reports
    for e, forward in zip(report.exchanges, (LINEAR, MLP), strict=True):
        assert "FloatingPointError" in e.failure
        expected = 1 + e.request_bytes / 400 + (3 * 2 * 60 + 24) * forward / 1000
        assert e.simulated_time_s == pytest.approx(expected, rel=1e-12)
    assert report.simulated_time_s == report.exchanges[1].simulated_time_s


def test_clients_without_a_clock_have_no_seconds(pool: Any) -> None:
    run = run_timed(pool, clients := tiny_clients(2), distillation(clients))
    assert run.reports[0].simulated_time_s is None
    assert {e.simulated_time_s for e in run.reports[0].exchanges} == {None}


# --- without a server ---


def test_neighbours_parameters_are_letters(pool: Any) -> None:
    """On a path 0 - 1 - 2 the middle one sends twice; nobody waits for the measured mean."""
    clients = like_clients(3, profile=drawn(profiles(1e9, 1e9, 1e9, up=[50.0, 10.0, 50.0])))
    run = run_timed(pool, clients, averaging(clients, topology(graphs.line, n=3)))
    found = by_phase(run)
    trained = [found["train.own", k] for k in range(3)]
    work = 3 * 2 * 40 * LINEAR / 1e9
    for e in trained:  # what was made stays there
        assert e.simulated_time_s == pytest.approx(1 + e.request_bytes / 400 + work, rel=1e-12)
    ends, middle = [found["train.take", k] for k in (0, 2)], found["train.take", 1]
    # The middle one's request holds two letters, the ends' one: the difference is a letter. What
    # all begin with was in the first request.
    letter = middle.request_bytes - ends[0].request_bytes
    assert letter > 68 * 4
    for e in ends:  # 2 letters at 10 bytes/s; the download at 400 is done before
        assert e.simulated_time_s == pytest.approx(1 + 2 * letter / 10 + e.reply_bytes / 50)
    expected = 1 + max(letter / 50, middle.request_bytes / 400) + middle.reply_bytes / 50
    assert middle.simulated_time_s == pytest.approx(expected)
    assert run.reports[0].train["edge-bytes"] == 4 * letter
    assert {found[kind, k].simulated_time_s for kind in ("evaluate.own", "evaluate.parameters")
            for k in range(3)} == {0.0}  # fmt: skip
    slowest = max(e.simulated_time_s for e in trained) + max(e.simulated_time_s for e in ends)
    assert run.reports[0].simulated_time_s == pytest.approx(slowest, rel=1e-12)


def test_peers_that_teach_each_other_digest_and_relay(pool: Any) -> None:
    clients = tiny_clients(2, profile=drawn(profiles(1000.0, 1000.0)))
    run = run_timed(pool, clients, gossip(clients, topology(graphs.complete, n=2), sweeps=2))
    found = by_phase(run)
    for k, forward in enumerate((LINEAR, MLP)):
        trained, relayed = found["train.predictions", k], found["query.relay", k]
        taught = found["train.targets", k]
        work = (3 * 2 * 60 + 24) * forward / 1000
        assert trained.simulated_time_s == pytest.approx(1 + trained.request_bytes / 400 + work)
        asked = len_of_config(relayed)
        sent = (relayed.request_bytes - asked) / 50  # the other's answers, at its upload
        assert relayed.simulated_time_s == pytest.approx(1 + sent)
        digest = 3 * 2 * 24 * forward / 1000  # two epochs of 24 soft labels
        sums = (taught.request_bytes - asked) / 50
        assert taught.simulated_time_s == pytest.approx(1 + sums + digest + taught.reply_bytes / 50)


def len_of_config(e: Exchange) -> int:
    from clients.messages.sizes import size_bytes

    config = ConfigRecord({"server-round": e.server_round})
    return size_bytes(RecordDict({"config": config}))


def test_who_receives_a_network_waits_for_its_sender(pool: Any) -> None:
    clients = like_clients(2, profile=drawn(profiles(1000.0, 1000.0)))
    run = run_timed(pool, clients, transfer(clients))
    (sent,) = [e for e in run.reports[0].exchanges if e.phase == "train.own"]
    (got,) = [e for e in run.reports[0].exchanges if e.phase == "train.received"]
    assert sent.client_id != got.client_id
    assert sent.simulated_time_s is not None
    assert got.simulated_time_s is not None
    edge = run.reports[0].train["edge-bytes"]
    work = 3 * pair_learning().epochs * 60 * 2 * LINEAR / 1000
    assert got.simulated_time_s == pytest.approx(1 + edge / 50 + work + got.reply_bytes / 50)
    both = sent.simulated_time_s + got.simulated_time_s
    assert run.reports[0].simulated_time_s == pytest.approx(both, rel=1e-12)
