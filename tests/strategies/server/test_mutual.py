"""The mutual strategy: what goes where in a round, on both pools."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message

from clients.app import SimulatedApp
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import ARRAYS, client_id_of, read_request
from clients.mutual import rules
from clients.seeding import Purpose, generator
from clients.training.loop import train
from clients.training.losses import cross_entropy
from sim.engine.grid import PoolGrid
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.scorers import max_prob
from tests.federations import (
    HANDLERS,
    SEED,
    distillation,
    inline,
    open_pool,
    run_ours,
    simulated,
    tiny_clients,
)
from tests.mutual_learning import SGD, mutual, run


def test_a_round_reports_every_peer_and_the_fused_classifier() -> None:
    result, _strategy = run("inline")
    train_metrics, evaluated = result.reports[-1].train, result.reports[-1].evaluated
    for name in ("linear", "mlp", "global_student"):
        assert train_metrics[f"peer-loss-{name}"] > 0
        assert 0 <= evaluated[f"peer-accuracy-{name}"] <= 1
    assert {"fused-accuracy", "peers-mean-accuracy", "ensemble-accuracy"} <= set(evaluated)
    assert evaluated["peer-accuracy-global_student"] == pytest.approx(
        result.reports[-1].student["accuracy"]
    )
    assert evaluated["peer-accuracy-global_student"] > 0.4  # four classes


@pytest.mark.parametrize("scorer", [max_prob, "whole"])
def test_both_pools_give_the_same_bits(scorer: Any) -> None:
    changes: dict[str, Any] = {"scorer": scorer}
    if scorer == "whole":  # not to be folded: every message comes to the strategy
        changes = {"weight_cap": 0.5}
    one, first = run("inline", **changes)
    other, second = run("ray", **changes)
    assert one.sha256 == other.sha256
    for key, parameters in first.teaching.learned.items():
        for name, value in parameters.items():
            np.testing.assert_array_equal(value, second.teaching.learned[key][name])
    for mine, theirs in zip(one.reports, other.reports, strict=True):
        assert mine.evaluated == theirs.evaluated
        assert mine.train == theirs.train
        assert mine.train["peer-bytes"] > 0


class Watched(PoolGrid):
    """A grid that remembers what was sent."""

    def push_messages(self, messages: Any) -> Any:
        self.sent = list(messages)
        return super().push_messages(self.sent)


def test_what_an_architectures_peer_learned_goes_back_to_its_clients() -> None:
    clients = tiny_clients()
    pool = inline(simulated(clients))
    strategy = mutual(clients)
    grid = Watched(pool, clients.architectures)
    student = write_arrays({k: v.numpy() for k, v in strategy.student.state_dict().items()})
    for server_round in (1, 2):
        grid.begin_round(server_round)
        messages = strategy.configure_train(server_round, student, ConfigRecord(), grid)
        asked = {client_id_of(m.metadata.dst_node_id): read_request(m.content) for m in messages}
        assert all(request.send_parameters for request in asked.values())
        if server_round == 1:  # all of an architecture begin alike
            for name in ("linear", "mlp"):
                own = [asked[k].student for k in asked if clients.architectures[k] == name]
                for key, value in strategy._starts[name].items():
                    for start in own:
                        np.testing.assert_array_equal(value, (start or {})[key])
            replies = list(grid.send_and_receive(messages))
            strategy.aggregate_train(1, replies)
    assert len({id(message.content) for message in messages}) == 2  # one for each architecture
    for client_id, request in asked.items():
        assert request.student is not None
        learned = strategy.teaching.learned[clients.architectures[client_id]]
        for name, value in request.student.items():
            np.testing.assert_array_equal(value, learned[name])


def test_clients_go_on_from_the_peer_that_they_are_sent() -> None:
    """Without local training a client answers with what it was sent."""
    clients = tiny_clients(train=partial(train, epochs=0, batch_size=16, optimizer=SGD))
    pool = inline(simulated(clients))
    strategy = mutual(clients)
    result = run_ours(pool, clients, strategy, 1)
    before = dict(strategy.teaching.learned)
    again = run_ours(pool, clients, strategy, 2, grid=result.grid, first_round=2)
    # All clients of an architecture are equal now, so their mean is what they were sent.
    for key in ("linear", "mlp"):
        for name, value in strategy.teaching._next[1][key].items():
            np.testing.assert_allclose(value, before[key][name], rtol=1e-6)
    assert again.reports[0].train["num-teachers"] == 5


def test_models_of_a_few_clients_can_be_the_peers() -> None:
    result, strategy = run("inline", peers="clients", most_peers=2, rule=rules.dml, head=None)
    assert strategy.teaching.group is not None
    names = [peer.name for peer in strategy.teaching.group[0].peers]
    assert len(names) == 3
    assert names[-1] == "global_student"
    assert all(name.rsplit("-", 1)[0] in ("linear", "mlp") for name in names[:-1])
    up = {e.client_id: e.reply_bytes for e in result.reports[-1].exchanges if "train" in e.phase}
    heavy = sorted(up, key=lambda k: -up[k])[:2]
    assert {name.rsplit("-", 1)[1] for name in names[:-1]} == {str(k) for k in heavy}


def test_a_client_that_was_a_peer_once_goes_on_from_there_by_itself() -> None:
    """What it learned goes back with the next request, and not again."""
    clients = tiny_clients()
    strategy = mutual(clients, peers="clients", most_peers=1, rule=rules.dml, head=None)
    grid = Watched(inline(simulated(clients)), clients.architectures)
    student = write_arrays({k: v.numpy() for k, v in strategy.student.state_dict().items()})
    got: list[set[int]] = []
    peers: list[set[int]] = []
    for server_round in (1, 2, 3, 4):
        grid.begin_round(server_round)
        messages = strategy.configure_train(server_round, student, ConfigRecord(), grid)
        asked = {client_id_of(m.metadata.dst_node_id): read_request(m.content) for m in messages}
        got.append({k for k, request in asked.items() if request.student is not None})
        peers.append({k for k, request in asked.items() if request.send_parameters})
        strategy.aggregate_train(server_round, list(grid.send_and_receive(messages)))
    assert got == [set(), *peers[:-1]]
    assert len(strategy.teaching.learned) == 1


def test_a_run_goes_on_from_its_state() -> None:
    clients = tiny_clients()
    pool = inline(simulated(clients))
    whole = run_ours(pool, clients, mutual(clients), 3)
    begun = mutual(clients)
    half = run_ours(pool, clients, begun, 2)
    names = {"distil.head", "distil.head-of", "distil.peer/linear", "distil.peer/mlp"}
    assert set(begun.state()) == names  # those of checkpoints of one version back
    resumed = mutual(clients)
    resumed.restore(begun.state())
    rest = run_ours(pool, clients, resumed, 3, arrays=half.arrays, grid=half.grid, first_round=3)
    assert rest.sha256 == whole.sha256


def test_without_mutual_learning_the_student_is_the_distilled_one_bit_for_bit() -> None:
    """`alone` is cross-entropy with the ensemble's soft labels, on the group's batches."""
    clients = tiny_clients()
    pool = inline(simulated(clients))

    def taught(model: Any, proxy: Any, ids: Any, targets: Any, loss: Any, rng: Any) -> Any:
        rng = generator(SEED, Purpose.PEER_BATCHES, 1, 0)
        lesson: dict[str, Any] = {"epochs": 2, "batch_size": 8, "optimizer": SGD}
        return train(model, proxy, ids, targets, cross_entropy, rng, **lesson)

    own = {"peers": "clients", "most_peers": 2}  # clients begin apart, as in distillation
    ours = run_ours(pool, clients, mutual(clients, rule=rules.alone, head=None, **own), 1)
    theirs = run_ours(pool, clients, distillation(clients, distil=taught), 1)
    assert ours.sha256 == theirs.sha256
    ours_evaluated, theirs_evaluated = ours.reports[0].evaluated, theirs.reports[0].evaluated
    assert ours_evaluated["ensemble-accuracy"] == theirs_evaluated["ensemble-accuracy"]


def test_it_leaves_every_peer_and_the_head_and_says_so_again_when_restored() -> None:
    _, strategy = run("inline", 1)
    models = strategy.models()
    assert sorted(models) == ["head", "linear", "mlp"]
    assert strategy.teaching.group is not None
    _, state = strategy.teaching.group
    for name, snapshot in zip(
        ["linear", "mlp", "head"], [*state.peers[:-1], state.head], strict=True
    ):
        assert snapshot is not None
        assert all(np.array_equal(v, snapshot.parameters[k]) for k, v in models[name].items())
    restored = mutual(tiny_clients())
    restored.restore(strategy.state())
    for name, parameters in restored.models().items():
        assert all(np.array_equal(value, models[name][k]) for k, value in parameters.items())
    assert sorted(restored.models()) == sorted(models)


class Doubling(SimulatedApp):
    """Clients that send parameters of another dtype: client 1."""

    def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Any:
        for reply in super().serve(requests, contexts, device):
            asked = isinstance(reply, Message) and ARRAYS in reply.content
            if asked and reply.content["config"]["client-id"] == 1:
                arrays = read_arrays(reply.content[ARRAYS])
                doubles = {name: array.astype(np.float64) for name, array in arrays.items()}
                reply.content[ARRAYS] = write_arrays(doubles)
            yield reply


@pytest.mark.parametrize("kind", ["inline", "ray"])
@pytest.mark.parametrize("combiner", [mean_of_probs, "unfolded"])
def test_whoever_sends_parameters_that_do_not_fit_is_counted_as_failed(
    kind: str, combiner: Any
) -> None:
    if combiner == "unfolded":
        combiner = unfolded_mean
    clients = tiny_clients()
    with open_pool(kind, Doubling(clients, HANDLERS)) as pool:
        strategy = mutual(clients, pool.train_peers(print), combiner=combiner)
        ran = run_ours(pool, clients, strategy, 1)
    failed = {e.client_id: e.failure for e in ran.reports[0].exchanges if e.failure}
    assert list(failed) == [1]
    assert "is float64[" in failed[1]


def unfolded_mean(logits: Any, weights: Any, temperature: float) -> Any:
    """Combine as `mean_of_probs` does, without saying that it is a mean."""
    return mean_of_probs(logits, weights, temperature)
