"""The virtual clock: profiles, work of each message, seconds by hand, and no other bit changed."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from hydra import compose, initialize_config_dir

from clients.app import NEIGHBOURLY, SimulatedApp
from clients.handlers.cost import COUNTS, multiplications
from clients.handlers.features import feature_request
from clients.handlers.screening import fault_of
from clients.messages.arrays import write_arrays
from clients.messages.requests import (
    RELAY,
    SEND_OWN,
    SHOW_OWN,
    TAKE_MIXED,
    PredictionRequest,
    node_id_of,
    write_request,
)
from clients.messages.routing import Letter, Post
from clients.models import logistic_regression, mlp
from clients.models.discriminator import DiscriminatorRecipe
from clients.mutual import rules
from clients.mutual.from_neighbours import Digest, Transfer
from clients.mutual.messenger import Messenger
from clients.population.clients import SimulatedClients
from clients.population.profiles import Profiles, alike, lognormal, two_speeds
from clients.population.rehearsal import rehearse
from clients.seeding import Purpose, generator
from clients.training.loop import train
from clients.training.losses import kl
from run import federate
from sim.engine.clock import exchange_s, is_measurement, letters_s
from sim.engine.exchanges import Exchange
from sim.engine.grid import PoolGrid
from sim.topology import graphs
from sim.tracking.clients_table import ClientsTable, client_rows
from sim.workers.tasks import Answer
from strategies.aggregation.scorers import own_odds
from strategies.server.averaging import Averaging
from tests.federations import SEED, Run, distillation, open_pool, student_of, tiny_clients
from tests.federations import run_ours as run_federation
from tests.places import CONF
from tests.sim.analysis.probes.test_in_a_run import Noisy
from tests.sim.tracking.test_run_folder import exchange
from tests.strategies.decentralised.test_gossip_averaging import alike as like_clients
from tests.strategies.decentralised.test_gossip_averaging import (
    averaging,
    gossip,
    topology,
    transfer,
)

SGD = partial(torch.optim.SGD, lr=0.1)
PHONE = {
    "multiplications_per_s": 1000.0,
    "download_bytes_per_s": 400.0,
    "upload_bytes_per_s": 50.0,
    "latency_s": 0.5,
}

# Forward passes on 1x4x4 images of 4 classes, one more each for what `work_of` begins with:
# 16 -> 4 has 68 parameters, 16 -> 8 -> 4 has 136 + 36.
LINEAR, MLP = 69.0, 173.0
EXAMPLES, PROXY, TEST, EPOCHS = 24, 30, 50, 2
"""Of each of five tiny clients, of all, of all, and of local training."""


def profiles(*speeds: float, up: Any = None) -> Profiles:
    """Clients of these speeds; 400 bytes/s down, 50 up unless told otherwise, half a second."""
    n = len(speeds)
    upload = np.full(n, 50.0) if up is None else np.array(up)
    return Profiles(np.array(speeds), np.full(n, 400.0), upload, np.full(n, 0.5))


def drawn(found: Any) -> Any:
    """A rule that draws these."""
    return lambda num_clients, rng: found


# --- profiles ---


def test_alike_and_two_speeds_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    same = alike(3, rng, **PHONE)
    assert same.multiplications_per_s.tolist() == [1000.0] * 3
    assert (same.upload_bytes_per_s[0], same.latency_s[2]) == (50.0, 0.5)
    two = two_speeds(5, rng, slow_share=0.4, slowdown=4, **PHONE)
    slow = two.multiplications_per_s == 250.0
    assert slow.sum() == 2
    assert (two.download_bytes_per_s == np.where(slow, 100.0, 400.0)).all()
    assert (two.upload_bytes_per_s == np.where(slow, 12.5, 50.0)).all()
    assert (two.latency_s == 0.5).all()
    who = {tuple(two_speeds(5, np.random.default_rng(k), slow_share=0.4, slowdown=4, **PHONE)
                 .multiplications_per_s) for k in range(20)}  # fmt: skip
    assert len(who) > 1


def test_lognormal_speeds_have_their_median_and_spread_and_links_a_draw_of_their_own() -> None:
    drawn = lognormal(4001, np.random.default_rng(0), spread=0.7, **PHONE)
    logs = np.log(drawn.multiplications_per_s / 1000.0)
    # The standard error of a standard deviation of 4,001 draws is 0.7 / sqrt(2 * 4001) = 0.008.
    assert abs(logs.std() - 0.7) < 0.04
    assert abs(np.median(logs)) < 0.06
    down, up = np.log(drawn.download_bytes_per_s / 400), np.log(drawn.upload_bytes_per_s / 50)
    np.testing.assert_allclose(down, up, atol=1e-12)
    assert abs(np.corrcoef(logs, down)[0, 1]) < 0.08
    even = lognormal(3, np.random.default_rng(0), spread=0.0, **PHONE)
    assert vars(even).keys() == PHONE.keys()
    assert all((vars(even)[name] == value).all() for name, value in PHONE.items())


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("multiplications_per_s", [1.0, 0.0], r"multiplications_per_s=0.0 of client 1: expected >"),
        ("upload_bytes_per_s", [np.nan, 1.0], r"upload_bytes_per_s=nan of client 0: expected > 0"),
        ("latency_s", [0.0, np.inf], r"latency_s=inf of client 1: expected >= 0 and finite"),
        ("latency_s", [0.0], r": latency_s has shape \(1,\), expected \(2,\)"),
        ("download_bytes_per_s", [[1.0], [1.0]], r": download_bytes_per_s has shape \(2, 1\), exp"),
    ],
)
def test_profiles_out_of_range_name_key_and_client(name: str, values: Any, message: str) -> None:
    good = {key: np.ones(2) for key in PHONE}
    with pytest.raises(ValueError, match=r"clients\.profile.?" + message):
        Profiles(**(good | {name: np.array(values)}))


def test_there_is_a_profile_for_each_client_and_local_epochs_to_count() -> None:
    with pytest.raises(ValueError, match=r"clients\.profile: 2 profiles for 5 clients"):
        tiny_clients(profile=drawn(profiles(1.0, 1.0)))
    odd = tiny_clients(1, train=lambda *args, **kwargs: [], profile=drawn(profiles(1.0)))
    with pytest.raises(ValueError, match=r"clients\.profile: .*expected clients.training.epochs"):
        rehearse(odd)
    how = Messenger(rule=rules.dml, optimizer=SGD, epochs=1, batch_size=8)
    rehearse(tiny_clients(1, messenger=how, train=odd.local_training, profile=drawn(profiles(1.0))))


# --- work ---


def asking(kind: str, content: RecordDict | None = None, client_id: int = 1) -> Message:
    return Message(content or RecordDict(), dst_node_id=node_id_of(client_id), message_type=kind)


def questions(proxy: int | None = 10, **changes: Any) -> RecordDict:
    """Ask for answers to so many proxy examples, or to the test set."""
    ids = None if proxy is None else np.arange(proxy)
    number = TEST if proxy is None else proxy
    return write_request(PredictionRequest(1, number, 4, proxy_ids=ids, **changes))


def parameters(model: Any) -> dict[str, Any]:
    return dict(read_state(student_of(tiny_clients(student=model))))


def read_state(network: torch.nn.Module) -> Any:
    return {k: v.numpy() for k, v in network.state_dict().items()}


SENT = parameters(logistic_regression)
OWN = parameters(partial(mlp, hidden=(8,)))
FIT = {"negative_ids": np.arange(7), "recipe": DiscriminatorRecipe("features")}
PIXELS = FIT | {"recipe": DiscriminatorRecipe("pixels")}
LOCAL = 3 * EPOCHS * EXAMPLES * MLP
"""Of client 1, an MLP: three passes for an example in training."""


TAUGHT = RecordDict(
    {"targets": write_arrays({"proxy-ids": np.arange(6), "targets": np.ones((6, 4))})}
)


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("train", None, LOCAL),
        ("evaluate", None, EXAMPLES * MLP),
        ("train.predictions", questions(), LOCAL + 10 * MLP),
        ("train.predictions", questions(**FIT), LOCAL + (10 + EXAMPLES + 7) * MLP),
        ("train.predictions", questions(**PIXELS), LOCAL + 10 * MLP),
        # Fed back and of another architecture: ask it, then imitate it for two epochs.
        (
            "train.predictions",
            questions(student=SENT, digest_epochs=2),
            10 * LINEAR + 3 * 2 * 10 * MLP + LOCAL + 10 * MLP,
        ),
        # The ten are a chunk of the 24 that are distilled.
        (
            "train.predictions",
            questions(student=SENT, digest_epochs=2, digest_ids=np.arange(24)),
            24 * LINEAR + 3 * 2 * 24 * MLP + LOCAL + 10 * MLP,
        ),
        ("train.predictions", questions(student=OWN, digest_epochs=2), LOCAL + 10 * MLP),
        ("evaluate.predictions", questions(), 10 * MLP),
        ("evaluate.predictions", questions(None), TEST * MLP),
        ("train.targets", TAUGHT, 3 * 5 * 6 * MLP),
        ("train.own", None, LOCAL),
        ("train.mixed", None, LOCAL),
        ("train.received", None, 0.0),  # this strategy has none
        ("evaluate.own", None, TEST * MLP),
        ("evaluate.features", feature_request(np.arange(9)), 9 * MLP),
        ("query.own", None, 0.0),
        ("query.relay", None, 0.0),
        ("train.take", None, 0.0),
        ("evaluate.parameters", None, 0.0),
        ("train.dreams", None, 0.0),
        ("train.predictions", None, 0.0),  # cannot be read
    ],
)
def test_the_work_of_each_message_by_hand(
    kind: str, content: RecordDict | None, expected: float
) -> None:
    clients = tiny_clients(
        peer_lesson=Digest(kl, {"epochs": 5}), profile=drawn(profiles(*[1.0] * 5))
    )
    assert clients.forward == {"linear": LINEAR, "mlp": MLP, "(student)": LINEAR}
    request = asking(kind, content)
    assert multiplications(clients, request) == expected
    assert SimulatedApp(clients).multiplications(request) == expected
    assert SimulatedApp(tiny_clients()).multiplications(request) == 0.0  # nobody wants to know


def test_work_is_that_of_the_clients_own_architecture_and_examples() -> None:
    clients = tiny_clients(2, [np.arange(5), np.arange(100)])
    assert multiplications(clients, asking("train", client_id=0)) == 3 * EPOCHS * 5 * LINEAR
    assert multiplications(clients, asking("train", client_id=1)) == 3 * EPOCHS * 100 * MLP


def test_the_work_of_networks_that_learn_together() -> None:
    how = Messenger(rule=rules.dml, optimizer=SGD, epochs=4, batch_size=8)
    clients = tiny_clients(messenger=how)
    both = 3 * 4 * EXAMPLES * (MLP + LINEAR)
    for kind in ("train", "train.own", "train.mixed"):
        assert multiplications(clients, asking(kind)) == both
    assert multiplications(clients, asking("evaluate")) == EXAMPLES * LINEAR + TEST * MLP
    assert multiplications(clients, asking("evaluate.own")) == TEST * (MLP + LINEAR)
    paired = tiny_clients(peer_lesson=Transfer(how, "received"))
    assert multiplications(paired, asking("train.received")) == 3 * 4 * EXAMPLES * 2 * MLP
    assert multiplications(paired, asking("train.targets")) == 0.0


def test_every_message_that_clients_know_is_counted_or_known_to_be_free() -> None:
    free = {SEND_OWN, SHOW_OWN, TAKE_MIXED, RELAY}
    others = {"train", "evaluate", "train.predictions", "evaluate.predictions", "evaluate.features"}
    assert others | NEIGHBOURLY.keys() == COUNTS.keys() | free
    assert not COUNTS.keys() & free


# --- seconds ---


def test_the_seconds_of_one_request_by_hand() -> None:
    known = profiles(100.0, 1000.0)
    done = Answer(1, None, reply_bytes=100, multiplications=3000.0)
    ask = asking("train")
    assert exchange_s(known, ask, done, 800) == 2 * 0.5 + 2 + 3 + 2
    assert exchange_s(known, ask, done, 800, kept=True) == 2 * 0.5 + 2 + 3
    assert exchange_s(known, ask, done, 800, letters_s=1.5) == 2 * 0.5 + 2 + 3 + 2
    assert exchange_s(known, ask, done, 800, letters_s=7.0) == 2 * 0.5 + 7 + 3 + 2
    assert exchange_s(known, asking("evaluate"), done, 800, letters_s=7.0) == 0
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
    assert is_measurement(asking(kind, content)) == measures


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
    with open_pool(pool_kind, SimulatedApp(tiny_clients())) as opened:
        yield opened


def run_timed(pool: Any, clients: SimulatedClients, strategy: Any, **options: Any) -> Run:
    from clients.handlers.screening import fault_of
    from sim.engine.grid import PoolGrid

    clients.peer_lesson = getattr(strategy, "peer_lesson", None)
    pool.load(SimulatedApp(clients))
    grid = PoolGrid(pool, clients.architectures, fault_of, profiles=clients.profiles, group_size=2)
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
    strategy = distillation(clients, proxy_chunks=3, local_training=trains)
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
    epochs = clients.peer_lesson.how.epochs  # type: ignore[union-attr]
    work = 3 * epochs * 60 * 2 * LINEAR / 1000
    assert got.simulated_time_s == pytest.approx(1 + edge / 50 + work + got.reply_bytes / 50)
    both = sent.simulated_time_s + got.simulated_time_s
    assert run.reports[0].simulated_time_s == pytest.approx(both, rel=1e-12)


# --- the run folder ---


def test_rows_sum_a_clients_seconds_and_the_column_is_there_only_with_a_clock() -> None:
    exchanges = [
        exchange(1, simulated_time_s=1.5, metrics={"simulated-time-s": 9.0}),
        exchange(0, simulated_time_s=0.0),
        exchange(1, "evaluate.predictions", simulated_time_s=2.0),
    ]
    rows = client_rows(exchanges)
    assert [row["simulated_time_s"] for row in rows] == [0.0, 3.5]
    assert rows[1]["client_simulated_time_s"] == 9.0  # what a client says of itself
    table = ClientsTable()
    table.add(rows)
    assert str(table.since(0).schema.field("simulated_time_s").type) == "double"
    assert table.since(0)["simulated_time_s"].to_pylist() == [0.0, 3.5]
    untimed = ClientsTable()
    untimed.add(client_rows([exchange(0)]))
    assert "simulated_time_s" not in untimed.since(0).column_names


SHORT = ("sim=inline", "clients.num_clients=5", "clients.training.epochs=2", "checkpoint_every=1",
         "strategy.distil.epochs=1", "data.limit=400", "tracking.figures_every=0")  # fmt: skip


def federated(folder: Path, *words: str, resume: bool = False) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [*SHORT, *words])
    folder.mkdir(exist_ok=True)
    return federate(config, folder, resume)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_clock_changes_nothing_else_and_is_right_after_a_resume(tmp_path: Path) -> None:
    timed = ("rounds=2", "clients/profile=lognormal")
    plain = federated(tmp_path / "plain", "rounds=2")
    whole = federated(tmp_path / "whole", *timed)
    federated(tmp_path / "half", timed[1], "rounds=1")
    resumed = federated(tmp_path / "half", *timed, resume=True)

    assert "simulated_time_s" not in plain
    assert whole["student_sha256"] == plain["student_sha256"]
    lines, bare = lines_of(tmp_path / "whole"), lines_of(tmp_path / "plain")
    seconds = [line.pop("simulated_time_s") for line in lines]
    assert lines == bare
    assert whole["simulated_time_s"] == sum(seconds)
    assert min(seconds) > 0
    table = pq.read_table(tmp_path / "whole" / "clients.parquet")
    assert table.drop_columns(["simulated_time_s"]) == pq.read_table(
        tmp_path / "plain" / "clients.parquet"
    )
    # No client's requests take longer than the round, and some client is the slowest in all waves
    # of DLAD: there is one.
    frame = table.to_pandas().groupby("round")["simulated_time_s"].max()
    np.testing.assert_allclose(frame, seconds, rtol=1e-12)

    for result in (whole, resumed):
        del result["wall_time_s"]
    assert resumed == whole
    for name in ("metrics.jsonl", "clients.parquet", "student.safetensors"):
        assert (tmp_path / "half" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_draws_are_the_seeds_and_no_other_stream() -> None:
    one, again, other = (
        lognormal(4, generator(seed, Purpose.PROFILES), spread=1.0, **PHONE) for seed in (1, 1, 2)
    )
    assert one.multiplications_per_s.tolist() == again.multiplications_per_s.tolist()
    assert one.multiplications_per_s.tolist() != other.multiplications_per_s.tolist()


def test_counting_work_draws_from_no_tasks_generators() -> None:
    """With a clock of any kind, or none, the bits are those of config and seed."""
    models, hashes = {"linear": Noisy}, set()
    for rule in (None, drawn(profiles(*[1000.0] * 3))):
        clients = tiny_clients(
            3, models=models, architectures=["linear"] * 3, together=False, profile=rule
        )
        with open_pool("inline", SimulatedApp(clients)) as pool:
            grid = PoolGrid(
                pool,
                clients.architectures,
                fault_of,
                group_size=3,
                profiles=clients.profiles,
            )
            hashes.add(run_federation(pool, clients, distillation(clients), grid=grid).sha256)
    assert len(hashes) == 1
