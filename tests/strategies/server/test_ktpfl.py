"""KT-pFL: learned mixtures of answers: by hand, as codistillation, both pools, resumed."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message

from clients.messages.arrays import read_arrays
from clients.messages.codecs import Precision
from clients.messages.replies import PredictionReply, write_reply
from clients.messages.requests import client_id_of, crc32_of, node_id_of, read_request
from clients.messages.soft_labels import SoftLabels
from clients.population.clients import SimulatedClients
from clients.training.losses import kl
from strategies.server.codec_requirements import require_codec, require_codec_down
from strategies.server.ktpfl import KNOWLEDGE, KTpFL, learned_coefficients
from strategies.server.scarlet import Scarlet
from tests.baselines import close, kept, played
from tests.federations import SEED, distillation, tiny_clients
from tests.quick_runs import federated, hashes

LOSS = partial(kl, scale_by_t2=False)


def made(clients: SimulatedClients, **changes: Any) -> KTpFL:
    about = {"proxy": clients.splits.proxy, "num_clients": len(clients.partitions), "seed": SEED}
    return KTpFL(**(about | {"loss": LOSS} | changes))


def asked(strategy: KTpFL, server_round: int, clients: int) -> list[Message]:
    nodes = [node_id_of(k) for k in range(clients)]
    grid: Any = SimpleNamespace(get_node_ids=lambda: nodes)
    return list(strategy.configure_train(server_round, Any, ConfigRecord(), grid))  # type: ignore[arg-type]


def reply(request: Message, logits: Any, mask: Any = None) -> Message:
    told, k = read_request(request.content), client_id_of(request.metadata.dst_node_id)
    answer = PredictionReply(told.server_round, k, crc32_of(told.proxy_ids), 9,
                             np.asarray(logits, np.float32), None, mask, {})  # fmt: skip
    return Message(write_reply(answer), reply_to=request)


# --- the coefficients ---

APART = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
"""Two clients that say the opposite of one example."""


def test_a_step_by_hand() -> None:
    """At equal coefficients there is no pull; g_1 = (-1/2, 1/2), and its mean size is 1/2."""
    equal = torch.full((2, 2), 0.5, dtype=torch.float64)
    found = learned_coefficients(equal, APART, pull=1.0, step=0.01, sharpness=5.0)
    own = 1 / (1 + np.exp(-0.1))  # softmax(5 (0.51, 0.49))
    np.testing.assert_allclose(found, [[own, 1 - own], [1 - own, own]], rtol=1e-12)


@pytest.mark.parametrize(("pull", "moved"), [(0.0, 0.5), (1.0, 0.0), (2.0, -0.5)])
def test_the_pull_by_hand(pull: float, moved: float) -> None:
    """At c_1 = (3/4, 1/4) the data's gradient is (-1/4, 1/4), and the pull's -rho times that."""
    rows = torch.tensor([[0.75, 0.25], [0.25, 0.75]], dtype=torch.float64)
    found = learned_coefficients(rows, APART, pull=pull, step=0.5, sharpness=1.0)
    apart = 0.5 + 2 * moved  # c_11 - c_12 after the step
    np.testing.assert_allclose(found[0, 0], 1 / (1 + np.exp(-apart)), rtol=1e-12)


def test_those_who_say_the_same_stay_equal_and_a_lone_client_listens_to_itself() -> None:
    alike = torch.full((3, 4, 2), 0.5)
    equal = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    found = learned_coefficients(equal, alike, pull=1.0, step=0.01, sharpness=5.0)
    np.testing.assert_allclose(found, equal, rtol=1e-6)
    one = learned_coefficients(equal[:1, :1] * 3, alike[:1], pull=1.0, step=0.01, sharpness=5.0)
    assert one.tolist() == [[1.0]]


# --- the round ---


def test_each_client_is_sent_its_own_mixture_and_an_absent_one_keeps_its_row() -> None:
    clients = tiny_clients(3)
    strategy = made(clients, step=0.1, temperature=2.0, examples=4)
    first = asked(strategy, 1, 3)
    assert len({id(m.content) for m in first}) == 1
    logits = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    strategy.aggregate_train(1, [reply(m, z) for m, z in zip(first, logits, strict=True)][::2])
    probs = torch.tensor(logits / 2).softmax(-1).double()
    rows = read_arrays(strategy.state().array_records[KNOWLEDGE])["coefficients"]
    assert rows[1].tolist() == [1 / 3] * 3
    half = torch.full((2, 2), 0.5, dtype=torch.float64)
    learned = learned_coefficients(half, probs[::2], pull=1.0, step=0.1, sharpness=5.0)
    np.testing.assert_allclose(rows[np.ix_([0, 2], [0, 2])], learned * 2 / 3)
    wanted = {0: learned[0], 1: half[0], 2: learned[1]}
    again = made(clients, step=0.1, temperature=2.0, examples=4)
    again.restore(strategy.state())
    for one, other in zip(asked(strategy, 2, 3), asked(again, 2, 3), strict=True):
        told, k = read_request(one.content), client_id_of(one.metadata.dst_node_id)
        assert told.targets is not None
        np.testing.assert_allclose(
            told.targets, torch.tensordot(wanted[k], probs[::2], 1), rtol=1e-5
        )
        digested, before = told.digest_ids, read_request(first[0].content).proxy_ids
        assert digested is not None
        assert digested.tolist() == before.tolist()  # type: ignore[union-attr]
        assert one.content == other.content


def test_with_equal_coefficients_it_is_codistillation_with_the_mean() -> None:
    clients = tiny_clients(4)
    plain = distillation(clients, distil=None, feed_back="targets", temperature=10.0, loss=LOSS,
                         negative_share=0.0, digest_epochs=2)  # fmt: skip
    mean = played(clients, plain, 3)
    found = played(clients, made(clients, sharpness=0.0, digest_epochs=2), 3)
    for k in range(4):
        close(kept(found, k), kept(mean, k))


def test_each_learns_more_of_itself_than_of_others() -> None:
    run = played(tiny_clients(4), made(tiny_clients(4)), 3)
    own = [report.train["own-coefficient"] for report in run.reports]
    assert own[0] > 1 / 4
    assert all(e.metrics["accuracy"] >= 0 for e in run.reports[-1].exchanges if "own" in e.phase)


# --- what is refused ---


def test_answers_to_some_examples_are_refused() -> None:
    strategy = made(tiny_clients(2), examples=2)
    request = asked(strategy, 1, 1)[0]
    fault = strategy.handlers[0].fault
    assert fault is not None
    said = np.zeros((2, 4))
    assert fault(request, reply(request, said)) is None
    assert fault(request, reply(request, said, np.array([True, True]))) is None
    found = fault(request, reply(request, said, np.array([True, False])))
    assert found == "it answers for 1 of 2 examples, expected all"


@pytest.mark.parametrize("name", ["temperature", "digest_epochs", "examples", "fraction", "pull",
                                  "step", "sharpness"])  # fmt: skip
def test_numbers_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"strategy.{name}=-1: expected"):
        made(tiny_clients(2), **{name: -1})


@pytest.mark.parametrize("kind", [KTpFL, Scarlet])
def test_a_codec_of_parameters_is_refused_and_one_of_targets_is_not(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"clients\.codec: .* answers and no parameters"):
        require_codec(partial(kind), tiny_clients(2, codec=Precision("uint8")))
    labels = SoftLabels(bits=8, logits=False)
    require_codec_down(partial(kind), tiny_clients(2, codec_down=labels))


# --- bits ---


def test_both_pools_and_a_resumed_run_have_the_same_bits(tmp_path: Path) -> None:
    words = ["strategy=ktpfl", f"seed={SEED}", "clients.num_clients=4", "clients.training.epochs=1",
             "data=blobs", "partition=iid", "strategy.fraction=0.75"]  # fmt: skip
    whole = federated(tmp_path / "whole", *words, "rounds=3")
    assert hashes(federated(tmp_path / "ray", *words, "rounds=3", sim="ray")) == hashes(whole)
    federated(tmp_path / "begun", *words, "rounds=2", "checkpoint_every=1")
    again = federated(tmp_path / "begun", resumed=["rounds=3"])
    assert hashes(again) == hashes(whole)
