"""The mutual strategy and messengers: what goes where in a round, on both pools."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from torch import nn

from clients.app import SimulatedApp
from clients.handlers.screening import fault_of
from clients.messages.accumulator import Reducer
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import (
    ARRAYS,
    PredictionReply,
    client_id_of,
    node_id_of,
    read_request,
    write_reply,
)
from clients.models import lenet5, logistic_regression, mlp
from clients.models.factory import build, parameters_of
from clients.mutual import heads, rules
from clients.mutual.lockstep import train_peers
from clients.mutual.messenger import Messenger, Pair, learn_together
from clients.mutual.terms import Terms
from clients.population.clients import SimulatedClients
from clients.population.rehearsal import rehearse_messenger
from clients.seeding import Purpose, generator
from clients.training.loop import train
from clients.training.losses import cross_entropy
from sim.engine.grid import PoolGrid
from strategies.aggregation.combiners import mean_of_logits, mean_of_probs
from strategies.aggregation.parameters import averaging_too, fault_in_parameters, forms_of, means_of
from strategies.aggregation.scorers import max_prob, uniform
from strategies.server.averaging import Averaging
from strategies.server.distillation import DistillationStrategy
from strategies.server.mutual import MutualStrategy
from strategies.teaching.rehearsal import require_distil
from tests.federations import (
    SEED,
    Run,
    distillation,
    inline,
    open_pool,
    run_ours,
    student_of,
    tiny_clients,
)

SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
FFL = partial(rules.ffl, ramp_epochs=1)


def normed(image_shape: Any, num_classes: int) -> nn.Module:
    size = int(np.prod(image_shape))
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(size), nn.Linear(size, num_classes))


def mutual(
    clients: SimulatedClients, train_peers: Any = train_peers, **changes: Any
) -> MutualStrategy:
    parts: dict[str, Any] = {
        "student": student_of(clients),
        "student_model": clients.student,
        "models": clients.models,
        "architectures": clients.architectures,
        "proxy": clients.splits.proxy,
        "test": clients.splits.test,
        "seed": SEED,
        "train_peers": train_peers,
        "rule": FFL,
        "head": heads.Fusion,
        "optimizer": SGD,
        "epochs": 2,
        "batch_size": 8,
        "scorer": uniform,
        "combiner": mean_of_probs,
    }
    return MutualStrategy(**(parts | changes))


def run(kind: str, rounds: int = 2, **changes: Any) -> tuple[Run, MutualStrategy]:
    clients = tiny_clients()
    with open_pool(kind, SimulatedApp(clients)) as pool:
        strategy = mutual(clients, pool.train_peers(print), **changes)
        return run_ours(pool, clients, strategy, rounds), strategy


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
    pool = inline(SimulatedApp(clients))
    strategy = mutual(clients)
    grid = Watched(pool, clients.architectures, fault_of)
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
    pool = inline(SimulatedApp(clients))
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
    grid = Watched(inline(SimulatedApp(clients)), clients.architectures, fault_of)
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
    pool = inline(SimulatedApp(clients))
    whole = run_ours(pool, clients, mutual(clients), 3)
    begun = mutual(clients)
    half = run_ours(pool, clients, begun, 2)
    resumed = mutual(clients)
    resumed.restore(begun.state())
    rest = run_ours(pool, clients, resumed, 3, arrays=half.arrays, grid=half.grid, first_round=3)
    assert rest.sha256 == whole.sha256


def test_without_mutual_learning_the_student_is_the_distilled_one_bit_for_bit() -> None:
    """`alone` is cross-entropy with the ensemble's soft labels, on the group's batches."""
    clients = tiny_clients()
    pool = inline(SimulatedApp(clients))

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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peers": "everybody"}, "^strategy.peers=everybody"),
        ({"most_peers": 0}, "^strategy.most_peers=0"),
        ({"update": "bogus"}, "^strategy.update=bogus: expected simultaneous or sequential"),
        ({"taps": {"resnet": "layer3"}}, r"^strategy\.taps\.resnet: no such peer; .* linear, mlp"),
        (
            {"rule": rules.dml, "head": None, "taps": {"mlp": "hidden"}},
            r"^strategy\.taps: nobody looks at features where there is no head",
        ),
        ({"models": {"head": mlp}}, r"^clients\.architectures\.head: among peers the head itself"),
        ({"batch_size": 1}, r"^strategy\.batch_size=1: the head cannot learn from a batch of one"),
        (
            {"batch_size": 1, "rule": rules.dml, "head": None, "models": {"linear": normed}},
            r"^strategy\.batch_size=1: peer 'linear' cannot learn from a batch of one",
        ),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"taps": {"mlp": "nose"}}, r"strategy\.taps: peer 'mlp': tap 'nose': .* has only"),
        ({"head": None}, r"strategy\.rule: ValueError: the rule 'ffl' needs a head: 'fusion'"),
        ({"head": heads.Gate}, r"strategy\.rule: RuntimeError"),
        ({"rule": rules.dml}, r"strategy\.head: the rule does not look at it"),
        ({"rule": rules.codistillation, "head": None}, r"strategy\.rule: .* set refresh_epochs"),
        ({"rule": rules.adaptive_mutual, "head": None}, r"strategy\.rule: .* expected 2"),
        ({"head": partial(heads.Fusion, channels=0)}, r"strategy\.head: "),
        ({"rule": lambda *given: Terms([given[0].logits[0]]), "head": None}, "expected a scalar"),
        (
            {"optimizer": partial(torch.optim.Muon, lr=0.1)},
            r"strategy\.optimizer: peer 'linear': Val.*Muon",
        ),
        ({"head_optimizer": torch.optim.LBFGS}, r"strategy\.head_optimizer: the head: Type.*clos"),
    ],
)
def test_what_cannot_be_is_refused_before_anybody_trains(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mutual(tiny_clients(), **changes)


def test_batches_of_one_are_learnt_from_where_nobody_has_batch_norm() -> None:
    clients = tiny_clients()
    strategy = mutual(clients, batch_size=1, rule=rules.dml, head=None, epochs=1)
    result = run_ours(inline(SimulatedApp(clients)), clients, strategy, 1)
    assert result.reports[0].train["peer-loss-mlp"] > 0


@pytest.mark.parametrize(
    ("offered", "workers", "messenger", "message"),
    [
        ({"distil": train}, 1, True, "clients.messenger: needs .*set strategy=averaging, or one"),
        ({"rule": rules.dml}, 2, False, "student_workers=2: .*spread by sim.peer_workers"),
        ({}, 2, False, "student_workers=2: .*leave it out"),
    ],
)
def test_options_that_a_strategy_would_not_look_at_come_with_a_cure(
    offered: Any, workers: int, messenger: bool, message: str
) -> None:
    strategy: Any = DistillationStrategy if "distil" in offered else MutualStrategy
    with pytest.raises(ValueError, match=message):
        require_distil(partial(strategy, **offered), workers, messenger)


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


def test_a_peer_whose_loss_is_not_finite_ends_the_run_with_its_name() -> None:
    with pytest.raises(FloatingPointError, match=r"student, round 1: peer '"):
        run("inline", 1, optimizer=partial(torch.optim.SGD, lr=1e30))


# --- means of parameters ---


FORM = {"w": "float32[2]", "n": "int64[]"}
FAULT = partial(
    fault_in_parameters, architectures=["a", "a", "b", "b"], forms={"a": FORM, "b": FORM}
)


def reply_with(parameters: Any, client_id: int, architecture: str, examples: int) -> Message:
    reply = PredictionReply(
        server_round=1,
        client_id=client_id,
        inputs_crc32=0,
        num_examples=examples,
        logits=np.zeros((2, 4), dtype=np.float32),
        own_probs=None,
        mask=None,
        metrics={},
        parameters=parameters,
        architecture=architecture,
    )
    request = Message(RecordDict(), dst_node_id=node_id_of(client_id), message_type="train")
    return Message(write_reply(reply), reply_to=request)


def three() -> list[Message]:
    def parameters(value: float, count: int) -> Any:
        return {"w": np.full(2, value, dtype=np.float32), "n": np.array(count)}

    return [
        reply_with(parameters(1.0, 3), 0, "a", 10),
        reply_with(parameters(4.0, 6), 1, "a", 20),
        reply_with(parameters(7.0, 9), 2, "b", 5),
        reply_with(None, 3, "b", 500),
    ]


def test_parameters_are_averaged_each_with_its_like_weighed_by_examples() -> None:
    means = means_of(three(), False, FAULT)
    np.testing.assert_allclose(means["a"]["w"], 3.0)
    assert means["a"]["n"] == 5
    assert means["a"]["n"].dtype == np.int64
    np.testing.assert_allclose(means["b"]["w"], 7.0)
    alone = means_of(three(), True, FAULT)
    assert sorted(alone) == ["a-0", "a-1", "b-2"]
    np.testing.assert_allclose(alone["a-1"]["w"], 4.0)


def test_folded_in_parts_the_means_are_the_same() -> None:
    inner = Reducer(
        lambda contents: next(RecordDict() for _ in contents), lambda parts: next(iter(parts))
    )
    reducer = averaging_too(inner, by_client=False, fault=FAULT)
    replies = three()
    contents = [message.content for message in replies]
    assert isinstance(reducer, Reducer)
    part = reducer.merge([reducer.fold(contents[:1]), reducer.fold(contents[1:])])
    folded = means_of([Message(part, reply_to=replies[0])], False, FAULT)
    for key, mean in means_of(replies, False, FAULT).items():
        for name, value in mean.items():
            np.testing.assert_allclose(folded[key][name], value, rtol=1e-6)


def test_parameters_that_are_not_the_clients_own_kind_are_named() -> None:
    good, _, other, none = three()
    assert FAULT(good, good) is None
    assert FAULT(none, none) is None
    liar = partial(FAULT, architectures=["a", "a", "a"])
    assert liar(other, other) == "parameters of architecture 'b', expected of 'a'"
    stranger = partial(FAULT, architectures=["a"])
    assert "expected of 'nobody'" in str(stranger(other, other))
    for array, found in (
        (np.zeros(3, dtype=np.float32), "float32[3]"),
        (np.zeros(2, dtype=np.float64), "float64[2]"),
    ):
        wrong = reply_with({"w": array, "n": np.array(1)}, 0, "a", 1)
        assert FAULT(wrong, wrong) == f"'w' is {found}, expected float32[2]"
    models = {"m": partial(mlp, hidden=(3,))}
    forms = forms_of(models, tiny_clients().splits.test)
    assert forms["m"]["classifier.bias"] == "float32[4]"


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
    with open_pool(kind, Doubling(clients)) as pool:
        strategy = mutual(clients, pool.train_peers(print), combiner=combiner)
        ran = run_ours(pool, clients, strategy, 1)
    failed = {e.client_id: e.failure for e in ran.reports[0].exchanges if e.failure}
    assert list(failed) == [1]
    assert "is float64[" in failed[1]


def unfolded_mean(logits: Any, weights: Any, temperature: float) -> Any:
    """Combine as `mean_of_probs` does, without saying that it is a mean."""
    return mean_of_probs(logits, weights, temperature)


# --- messengers ---


def messengers(**changes: Any) -> SimulatedClients:
    how = Messenger(
        rule=partial(rules.dml, hard_loss_weight=0.5, soft_loss_weight=0.5),
        optimizer=SGD,
        epochs=3,
        batch_size=8,
    )
    return tiny_clients(messenger=how, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": heads.Projection}, r"clients\.messenger\.head: the rule does not look at it"),
        ({"rule": rules.ffl}, r"clients\.messenger\.rule: .*'fusion'.*architecture 'mlp'"),
        (
            {"rule": rules.ffl, "head": heads.Fusion, "batch_size": 1},
            r"clients\.messenger\.batch_size=1: the head cannot learn .*architecture 'mlp'",
        ),
    ],
)
def test_a_messenger_that_cannot_learn_is_refused(changes: Any, message: str) -> None:
    clients = messengers()
    assert clients.messenger is not None
    how = replace(clients.messenger, **changes)
    with pytest.raises(ValueError, match=message):
        rehearse_messenger(how, clients.student, {"mlp": mlp}, clients.splits.private)


@pytest.mark.parametrize("kind", ["inline", "ray"])
def test_fml_keeps_private_networks_and_averages_messengers(kind: str) -> None:
    clients = messengers()
    with open_pool(kind, SimulatedApp(clients)) as pool:
        result = run_ours(pool, clients, Averaging(seed=SEED), 3)
        states = [result.grid.states.of(k).array_records["model"] for k in range(5)]
    shapes = [{name: tuple(a.shape) for name, a in state.items()} for state in states]
    assert shapes[0] != shapes[1]  # two architectures
    assert shapes[0] == shapes[2] == {k: v.shape for k, v in result.parameters.items()}
    assert read_arrays(states[0])["classifier.weight"].tobytes() != (
        read_arrays(states[2])["classifier.weight"].tobytes()
    )
    evaluated = result.reports[-1].evaluated
    assert evaluated["accuracy"] > 0.5  # of the private networks on the test set
    assert result.reports[-1].student["accuracy"] > 0.5
    reference = run_ours(inline(SimulatedApp(clients)), clients, Averaging(seed=SEED), 3)
    assert result.sha256 == reference.sha256


def test_fedkds_projection_stays_with_its_client() -> None:
    how = Messenger(
        rule=rules.adaptive_mutual, optimizer=SGD, epochs=1, batch_size=8, head=heads.Projection
    )
    clients = tiny_clients(
        messenger=how,
        models={"linear": lenet5, "mlp": partial(mlp, hidden=(8,))},
        student=logistic_regression,
    )
    result = run_ours(inline(SimulatedApp(clients)), clients, Averaging(seed=SEED), 2)
    heads_ = [read_arrays(result.grid.states.of(k).array_records["head"]) for k in range(5)]
    assert not np.array_equal(heads_[0]["linear.weight"], heads_[2]["linear.weight"])
    assert ARRAYS not in result.grid.states.of(0)


def test_a_messenger_with_the_soft_loss_off_is_its_own_solo_training() -> None:
    """The hard loss alone: what both become is plain local training, bit for bit."""
    numbers: dict[str, Any] = {"optimizer": SGD, "epochs": 2, "batch_size": 16}
    how = Messenger(rule=partial(rules.dml, soft_loss_weight=0.0), **numbers)
    private, ids = tiny_clients().splits.private, np.arange(37)
    models = (partial(mlp, hidden=(3,)), logistic_regression)
    networks = [
        build(m, private.image_shape, private.num_classes, np.random.default_rng(1)) for m in models
    ]
    pair = Pair(*(parameters_of(network) for network in networks), None)
    learned, _ = learn_together(how, models, pair, private, ids, SEED, (1, 0))
    labels = torch.from_numpy(private.labels[ids])
    for network, found in zip(networks, (learned.private, learned.messenger), strict=True):
        rng = generator(SEED, Purpose.PEER_BATCHES, 1, 0)
        train(network, private, ids, labels, cross_entropy, rng, **numbers)
        for name, value in parameters_of(network).items():
            np.testing.assert_array_equal(found[name], value)


def test_answers_without_folding_are_averaged_too() -> None:
    one, _ = run("inline", 1, combiner=mean_of_logits)
    other, _ = run("inline", 1, combiner=mean_of_logits, weight_cap=0.99)
    # A cap that never binds changes how answers travel, and nothing else but rounding.
    for name, value in one.parameters.items():
        np.testing.assert_allclose(value, other.parameters[name], atol=1e-4)
