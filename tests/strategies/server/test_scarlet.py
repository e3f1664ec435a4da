"""SCARLET: soft labels that are kept: who is asked, what is sent, both pools, resumed."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message

from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import TARGETS, client_id_of, read_request
from clients.models.discriminator import DiscriminatorRecipe
from clients.models.factory import build, load_parameters, parameters_of
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, stream
from clients.training.losses import kl
from sim.engine.grid import PoolGrid
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.ensemble import EnsembleRule
from strategies.aggregation.scorers import own_probability, uniform
from strategies.server.scarlet import CACHE, IDS, Scarlet
from tests.baselines import close, kept, played
from tests.federations import (
    SEED,
    distillation,
    inline,
    simulated,
    student_of,
    tiny_clients,
    trainer,
)
from tests.quick_runs import federated, hashes


def made(clients: SimulatedClients, **changes: Any) -> Scarlet:
    about: dict[str, Any] = {
        "student": student_of(clients),
        "proxy": clients.splits.proxy,
        "seed": SEED,
        "ensemble": EnsembleRule(uniform, mean_of_probs),
        "loss": kl,
        "distil": trainer(),
        "digest_epochs": 2,
    }
    return Scarlet(**(about | changes))


class Rounds:
    """A grid on which rounds of a strategy are played one by one."""

    def __init__(self, clients: SimulatedClients, strategy: Scarlet) -> None:
        self.strategy = strategy
        self.grid = PoolGrid(inline(simulated(clients, strategy)), clients.architectures)
        self.number = 0

    def asked(self) -> list[Message]:
        self.number += 1
        self.grid.begin_round(self.number)
        start = write_arrays(parameters_of(self.strategy.student))
        what = self.number, start, ConfigRecord(), self.grid
        return list(self.strategy.configure_train(*what))

    def learned(self, requests: list[Message]) -> None:
        self.strategy.aggregate_train(self.number, self.grid.send_and_receive(requests))


def new_in(request: Message) -> list[int]:
    record = request.content.array_records.get(CACHE)
    return [] if record is None else read_arrays(record)[IDS].tolist()


# --- what crosses the wire ---


def test_what_is_known_is_neither_asked_for_nor_sent_again_until_it_is_old() -> None:
    clients = tiny_clients(2)
    strategy = made(clients, keep_rounds=3)
    rounds, size = Rounds(clients, strategy), len(clients.splits.proxy)
    answered, sent = [], []
    for _ in range(5):
        requests = rounds.asked()
        assert len({id(request.content) for request in requests}) == 1
        answered.append(read_request(requests[0].content).num_inputs)
        sent.append(len(new_in(requests[0])))
        rounds.learned(requests)
    # The oldest is asked about where all are known; in round 4 those of round 1 are old.
    assert answered == [size, 1, 1, size - 2, 1]
    assert sent == [0, size, 1, 1, size - 2]


def test_who_was_absent_catches_up() -> None:
    clients = tiny_clients(4)
    strategy = made(clients, fraction=0.5, examples=12, keep_rounds=4)
    rounds, differ = Rounds(clients, strategy), 0
    for _ in range(6):
        requests, learned = rounds.asked(), strategy._learned.copy()
        targets = strategy._targets.copy()
        differ += len({tuple(new_in(request)) for request in requests}) > 1
        rounds.learned(requests)
        for request in requests:
            if rounds.number > 1:
                state = rounds.grid.states.of(client_id_of(request.metadata.dst_node_id))
                cache = read_arrays(state.array_records[CACHE])
                places = np.searchsorted(cache[IDS], learned)
                assert np.array_equal(cache[TARGETS][places], targets[learned])
    assert differ


def test_a_client_without_what_the_server_takes_it_to_have_says_so() -> None:
    clients = tiny_clients(2)
    strategy = made(clients)
    rounds = Rounds(clients, strategy)
    rounds.learned(rounds.asked())
    strategy._holds[1] = strategy._since.copy()
    replies = list(rounds.grid.send_and_receive(rounds.asked()))
    (error,) = [reply.error.reason for reply in replies if reply.has_error()]
    assert f"its cache lacks soft labels of {len(strategy._since)} proxy examples" in error


# --- what is learned ---


def test_without_a_cache_it_is_distillation_with_targets_fed_back() -> None:
    clients = tiny_clients(3)
    plain = distillation(clients, feed_back="targets", digest_epochs=2, negative_share=0.0)
    wanted, found = played(clients, plain, 3), played(clients, made(clients, keep_rounds=1), 3)
    close(found.parameters, wanted.parameters)
    for k in range(3):
        close(kept(found, k), kept(wanted, k))
    assert played(clients, made(clients), 3).sha256 != found.sha256


def test_a_client_imitates_what_it_has_kept_by_hand() -> None:
    clients = tiny_clients(2)
    strategy = made(clients, ensemble=EnsembleRule(uniform, mean_of_probs, temperature=2.0))
    before = played(clients, strategy, 2)
    ids, targets = strategy._learned, torch.tensor(strategy._targets)
    assert (strategy._since == 1).sum() == len(ids) - 1
    expected = build(clients.models["mlp"], clients.splits.proxy.task, np.random.default_rng(0))
    load_parameters(expected, kept(before, 1))
    rng = np.random.default_rng(stream(SEED, Purpose.DIGEST, 3, 1))
    what = clients.splits.proxy, ids, targets[ids], partial(kl, temperature=2.0), rng
    trainer()(expected, *what, epochs=2)
    clients.learn(expected, 1, 3)
    again = made(clients, ensemble=EnsembleRule(uniform, mean_of_probs, temperature=2.0))
    close(kept(played(clients, again, 3), 1), parameters_of(expected))


# --- what is refused ---


@pytest.mark.parametrize("name", ["examples", "keep_rounds", "digest_epochs", "fraction"])
def test_numbers_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"strategy.{name}=-1: expected"):
        made(tiny_clients(2), **{name: -1})


def test_discriminators_are_refused() -> None:
    rule = EnsembleRule(own_probability, mean_of_probs, discriminator=DiscriminatorRecipe())
    with pytest.raises(ValueError, match="strategy.discriminator: SCARLET"):
        made(tiny_clients(2), ensemble=rule)


# --- bits ---


def test_both_pools_and_a_resumed_run_have_the_same_bits(tmp_path: Path) -> None:
    words = ["strategy=scarlet", f"seed={SEED}", "clients.num_clients=4", "data=blobs",
             "clients.training.epochs=1", "partition=iid", "strategy.fraction=0.75",
             "strategy.distil.epochs=1", "strategy.examples=20"]  # fmt: skip
    whole = federated(tmp_path / "whole", *words, "rounds=4")
    assert hashes(federated(tmp_path / "ray", *words, "rounds=4", sim="ray")) == hashes(whole)
    federated(tmp_path / "begun", *words, "rounds=2", "checkpoint_every=1")
    again = federated(tmp_path / "begun", resumed=["rounds=4"])
    assert hashes(again) == hashes(whole)
