"""Parameters that the server sends by a codec: what arrives, is counted, drawn, and refused."""

from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg
from torch import nn

import run
from clients.app import SimulatedApp
from clients.handlers.coded_requests import decode_request, encoded_request
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.chain import Chain
from clients.messages.codecs import Precision
from clients.messages.compression import QSGD, Deflate, GaussianMechanism, TopK
from clients.messages.sizes import size_bytes
from clients.models import mlp
from clients.models.factory import build, parameters_of
from clients.population.profiles import alike
from sim.engine.grid import PoolGrid
from sim.topology import graphs
from strategies.server.averaging import Averaging
from strategies.server.distillation import DistillationStrategy
from strategies.server.requirements import require_codec_down, require_fitting
from tests.coded import SAME, apart, averaged, failures, trained
from tests.federations import (
    ALONE,
    SEED,
    distillation,
    inline,
    run_ours,
    simulated,
    tiny_clients,
)
from tests.mutual_learning import mutual
from tests.peers import alike as peers_of
from tests.peers import averaging as gossip_of
from tests.peers import topology
from tests.saved_configs import resumed
from tests.tiny_runs import BASES, composed


def normed(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    inner = (nn.Linear(prod(input_shape), 8), nn.BatchNorm1d(8), nn.ReLU())
    return nn.Sequential(nn.Flatten(), *inner, nn.Linear(8, num_classes))


def request_of(arrays: Any, server_round: int = 3, number: int = 0, kind: str = "train") -> Message:
    about = ConfigRecord({"server-round": server_round})
    content = RecordDict({"arrays": write_arrays(arrays), "config": about})
    message = Message(content, dst_node_id=1, message_type=kind)
    message.metadata.__dict__["_message_id"] = f"{server_round}-0-{number}"
    return message


def own_arrays(clients: Any) -> Any:
    rng = np.random.default_rng(5)
    return parameters_of(build(clients.student, clients.splits.private.task, rng))


# --- what arrives ---


def test_what_a_client_decodes_is_what_was_encoded_in_its_order_and_buffers_as_they_are() -> None:
    clients = tiny_clients(2, codec_down="float16", models={"mlp": normed}, student=normed)
    arrays = own_arrays(clients)
    request = request_of(arrays)
    sent = encoded_request(clients, request)
    assert set(sent) == {"arrays.coded", "arrays.buffers", "config"}
    assert set(read_arrays(sent["arrays.buffers"])) == {n for n in arrays if "running" in n} | {
        n for n in arrays if "tracked" in n
    }
    assert set(request.content) == {"arrays", "config"}  # others' is as it was
    for _ in range(2):  # who is asked again has it decoded
        decode_request(clients, sent, "cpu")
        assert set(sent) == {"arrays", "config"}
    found = read_arrays(sent["arrays"])
    assert [*found] == [*arrays]
    for name, array in arrays.items():
        half = array.astype(np.float16) if array.dtype == np.float32 else array
        assert (found[name] == half).all()
        assert found[name].dtype == array.dtype


class Telling:
    """Notes the first number of what was received, and sends parameters as they are."""

    def encode(self, arrays: Any, *, received: Any, note: Any) -> Any:
        note(first=received["classifier.bias"][0])
        return arrays

    def decode(self, arrays: Any) -> Any:
        return arrays


class Sevens:
    """Sends a shape, and a model of sevens arrives."""

    def encode(self, arrays: Any) -> Any:
        return {name: np.array(array.shape) for name, array in arrays.items()}

    def decode(self, arrays: Any) -> Any:
        return {name: np.full(shape, 7, np.float32) for name, shape in arrays.items()}


def test_clients_begin_with_what_they_decoded_and_their_codec_has_received_that() -> None:
    run = averaged(Telling(), rounds=2, codec_down=Sevens())
    for server_round in (1, 2):
        noted = [e.metrics["note.first"] for e in trained(run, server_round)]
        assert noted == [7] * 4
    plain = averaged(Telling(), rounds=1)
    assert trained(plain)[0].metrics["note.first"] != 7
    assert apart(plain, run) > 1


def test_bits_are_the_same_on_both_pools_and_another_codec_gives_others() -> None:
    plain = averaged()
    top = TopK(0.5, memory=False)  # which need not remember
    for codec in ("float16", QSGD(4), Chain([QSGD(6), Deflate()]), top):
        found, ray = (averaged(QSGD(4), pool, codec_down=codec) for pool in ("inline", "ray"))
        assert not failures(found)
        assert found.sha256 == ray.sha256 != plain.sha256
        sizes = [[e.request_bytes for e in trained(each, 2)] for each in (found, ray)]
        assert sizes[0] == sizes[1]
    assert averaged(codec_down="float32").sha256 == plain.sha256


@pytest.mark.parametrize("kind", [FedAvg, FedAdam])
def test_flowers_own_strategies_send_by_it_too(kind: Any) -> None:
    make = partial(kind, fraction_evaluate=0.0, **ALONE)
    found, plain = averaged(make=make, codec_down="float16"), averaged(make=make)
    assert not failures(found)
    assert 0 < apart(found, plain) < 0.2
    assert trained(found)[0].request_bytes < trained(plain)[0].request_bytes


def test_a_student_that_is_fed_back_travels_by_it() -> None:
    def fed(**more: Any) -> Any:
        clients = tiny_clients(4, **SAME, **more)
        strategy = distillation(clients, feed_back=True)
        app = simulated(clients, strategy)
        opened = inline(app)
        grid = PoolGrid(opened, clients.architectures, encode=app.encode_request)
        return run_ours(opened, clients, strategy, rounds=2, grid=grid)

    plain, found = fed(), fed(codec_down="float16")
    assert not failures(found)
    sizes = [[e.request_bytes for r in each.reports for e in r.exchanges if "train" in e.phase]
             for each in (plain, found)]  # fmt: skip
    assert sizes[0][:4] == sizes[1][:4]  # in round 1 nothing is
    assert all(few < many for many, few in zip(*(each[4:] for each in sizes), strict=True))
    assert 0 < apart(plain, found) < 0.2


# --- what is counted, and drawn ---


def test_bytes_and_seconds_are_those_of_what_is_encoded_once() -> None:
    slow = partial(alike, multiplications_per_s=1e18, download_bytes_per_s=1.0,
                   upload_bytes_per_s=1e18, latency_s=0.0)  # fmt: skip
    plain, half = averaged(profile=slow), averaged(profile=slow, codec_down="float16")
    size = sum(array.size for array in plain.parameters.values())
    for many, few in zip(trained(plain), trained(half), strict=True):
        assert many.request_bytes - few.request_bytes == pytest.approx(2 * size, abs=40)
        assert few.simulated_time_s == pytest.approx(few.request_bytes, rel=1e-6)
    measured = [[e.request_bytes for r in each.reports for e in r.exchanges
                 if e.phase == "evaluate"] for each in (plain, half)]  # fmt: skip
    assert measured[0] == measured[1]


def test_it_is_encoded_once_for_all_who_get_it() -> None:
    clients = tiny_clients(4, codec_down=QSGD(), **SAME)
    app, asked = SimulatedApp(clients), list[Message]()
    opened = inline(app)

    def encode(request: Message) -> RecordDict:
        asked.append(request)
        return app.encode_request(request)

    grid = PoolGrid(opened, clients.architectures, group_size=1, encode=encode)
    run_ours(opened, clients, Averaging(seed=SEED, fraction_evaluate=0), rounds=2, grid=grid)
    assert len(asked) == 2


def test_it_draws_by_round_and_message() -> None:
    clients = tiny_clients(2, codec_down=QSGD(2), **SAME)
    arrays = own_arrays(clients)
    keys = ((3, 0), (3, 0), (4, 0), (3, 1))
    sent = [encoded_request(clients, request_of(arrays, *key)) for key in keys]
    levels = [read_arrays(each["arrays.coded"])["levels"].tobytes() for each in sent]
    assert levels[0] == levels[1]
    assert len(set(levels)) == 3


def test_a_measurement_and_what_no_handler_knows_go_as_they_are() -> None:
    clients = tiny_clients(2, codec_down="float16", **SAME)
    app, arrays = SimulatedApp(clients), own_arrays(clients)
    for kind in ("evaluate", "train.unknown"):
        request = request_of(arrays, kind=kind)
        assert app.encode_request(request) is request.content
    few = app.encode_request(request_of(arrays))
    assert size_bytes(few) < size_bytes(request_of(arrays).content)
    plain = SimulatedApp(tiny_clients(2, **SAME))
    assert plain.encode_request(request := request_of(arrays)) is request.content


def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    codec = "clients.codec_down={_target_: clients.messages.compression.QSGD, bits: 3}"
    results = []
    for name, rounds in (("whole", 3), ("half", 2)):
        (tmp_path / name).mkdir()
        words = (*BASES["averaging"], codec, "checkpoint_every=1", f"rounds={rounds}")
        results.append(run.federate(composed(words), tmp_path / name))
    again = resumed(tmp_path / "half", "rounds=3")
    results.append(run.federate(again, tmp_path / "half", resume=True))
    for what in ("student_sha256", "metrics_sha256", "clients_sha256"):
        assert results[2][what] == results[0][what] != results[1][what]


# --- what is refused, and who fails ---


class Broken(Sevens):
    def decode(self, arrays: Any) -> Any:
        raise MemoryError("a bomb")


def test_what_cannot_be_decoded_is_each_clients_failure() -> None:
    with pytest.raises(Exception, match=r"clients\.codec_down: MemoryError: a bomb"):
        averaged(codec_down=Broken())


class Needy(Sevens):
    def encode(self, arrays: Any, *, received: Any) -> Any:  # type: ignore[override]
        return arrays


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ("uint7", r"clients\.codec_down: codec 'uint7': expected one of float32, float16, uint8"),
        (Needy(), r"clients\.codec_down: codec Needy: encode needs 'received', which nobody gives"),
        (GaussianMechanism(), "encode needs 'note', .*: expected of rng, server_round"),
        (TopK(), r"clients\.codec_down: TopK names 'state', what a client keeps"),
        (Chain([TopK(), "uint8"]), r"clients\.codec_down: Chain names 'state'"),
        (Broken(), r"clients\.codec_down: MemoryError: a bomb"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_codec_down_is_refused_before_anybody_trains(codec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_codec_down(FedAvg(), tiny_clients(2, codec_down=codec))


def test_a_strategy_whose_server_sends_no_parameters_is_refused() -> None:
    clients = tiny_clients(2, codec_down="uint8", **SAME)
    distils = partial(DistillationStrategy, distil=None, feed_back=False)
    peers = peers_of(codec_down="uint8")
    about: dict[str, Any] = {"student_workers": 1, "topology": False, "availability": {}}
    with pytest.raises(ValueError, match="the server of this strategy, if it has one, sends no"):
        require_fitting(distils, clients, **about)
    for strategy, own in (
        (gossip_of(peers, topology(graphs.ring)), peers),
        (mutual(tiny_clients()), clients),
    ):
        with pytest.raises(ValueError, match="sends no parameters: expected one that does"):
            require_codec_down(partial(type(strategy)), own)
    require_codec_down(partial(DistillationStrategy, distil=None, feed_back=True), clients)
    require_codec_down(FedAvg(), clients)
    assert clients.codec_down == Precision("uint8")
    assert SAME["student"].func is mlp
