"""Fields of one's own: asked for, weighed by, learned from; on both pools, in chunks, in sums."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.handlers.answers_by_field import rehearse_fields
from clients.messages.answers import Answers
from clients.messages.field import Field
from clients.messages.field_source import Asked
from clients.messages.shipped_fields import class_counts, features
from clients.training.losses import kl
from clients.training.objective import Objective
from sim.topology.graphs import complete
from strategies.teaching.rehearsal import is_reducible
from tests.asking import round_of, run, said_energy
from tests.federations import distillation
from tests.federations import tiny_clients as clients_of
from tests.peers import gossip, topology

pools = pytest.mark.parametrize("kind", ["inline", "ray"])


def by_energy(answers: Answers) -> Tensor:
    return answers["energy"]


def by_counts(answers: Answers) -> Tensor:
    """Trust whoever has many examples of the class that it says."""
    return answers["class_counts"].gather(1, answers.logits.argmax(-1)) + 0.1


ENERGY = {"energy": Field(said_energy)}
COUNTS = {"class_counts": class_counts()}


@pools
def test_clients_are_weighed_by_what_they_say(kind: str) -> None:
    clients = clients_of()
    runs = [
        run(distillation(clients, scorer=by_energy, ask=ENERGY), clients, pool, rounds=2)
        for pool in ("inline", kind)
    ]
    assert runs[0].sha256 == runs[1].sha256
    plain = run(distillation(clients), clients, rounds=2)
    assert runs[0].sha256 != plain.sha256


def test_a_scorer_finds_the_field_and_its_weights_are_by_hand() -> None:
    _, view = round_of(scorer=by_energy, ask=ENERGY)
    energies = view.teachers.logits.logsumexp(-1).exp()
    torch.testing.assert_close(view.teachers["energy"], energies)
    torch.testing.assert_close(view.weights, energies / energies.sum(0))
    _, view = round_of(scorer=by_counts, ask=COUNTS)
    sizes = view.teachers["class_counts"]
    assert sizes.sum(1).tolist() == view.teachers.num_examples.tolist()


def test_one_number_for_each_input_can_be_summed_where_it_is_made_and_more_cannot() -> None:
    one, more = (
        distillation(clients_of(), scorer=scorer, ask=ask)
        for scorer, ask in ((by_energy, ENERGY), (by_counts, COUNTS))
    )
    assert is_reducible(one.teachers.rule, 4)
    assert not is_reducible(more.teachers.rule, 4)
    (summed, _), whole = round_of(scorer=by_energy, ask=ENERGY), clients_of()
    strategy = distillation(whole, scorer=by_energy, ask=ENERGY)
    strategy.teachers.want_all(["energy"])
    at_once = run(strategy, whole)
    for name, array in summed.parameters.items():
        np.testing.assert_allclose(at_once.parameters[name], array, atol=1e-5)


def test_chunks_come_to_the_same() -> None:
    ask = ENERGY | COUNTS | {"features": features(codec="uint8")}
    (_, whole), (_, view) = (
        round_of(scorer=by_energy, ask=ask, chunks=number) for number in (1, 3)
    )
    assert view.proxy_ids == whole.proxy_ids
    torch.testing.assert_close(view.teachers["energy"], whole.teachers["energy"], rtol=1e-4, atol=0)
    torch.testing.assert_close(view.weights, whole.weights, rtol=1e-4, atol=1e-6)
    assert (view.teachers["class_counts"] == whole.teachers["class_counts"]).all()
    for k in range(5):
        one, other = (each.teachers.of(k)["features"] for each in (view, whole))
        torch.testing.assert_close(one, other, rtol=0, atol=0.1)
    with pytest.raises(ValueError, match="clients' 'features' are of unlike shapes"):
        view.teachers["features"]


def test_the_test_set_is_asked_for_what_is_tested_only() -> None:
    ask = {"features": features()}
    sent = [
        [e.reply_bytes for e in run_.reports[0].exchanges if e.phase.startswith("evaluate")]
        for run_, _ in (round_of(ask=each) for each in ({}, ask))
    ]
    assert sent[0] == sent[1]
    tested = {"features": features(tested=True)}
    (run_, _) = round_of(ask=tested)
    more = [e.reply_bytes for e in run_.reports[0].exchanges if e.phase.startswith("evaluate")]
    assert all(after > before + 50 * 8 * 4 for before, after in zip(sent[0], more, strict=True))


def test_a_scorer_of_what_is_not_tested_is_told_before_anybody_trains() -> None:
    untested = {"energy": Field(said_energy, tested=False)}
    clients = clients_of()
    with pytest.raises(ValueError, match=r"no 'energy'.*tested=true of that field"):
        distillation(clients, scorer=by_energy, ask=untested)
    with pytest.raises(ValueError, match=r"answers have no 'energy', .*strategy/ask=\[energy\]"):
        distillation(clients, scorer=by_energy)


def test_what_is_not_tested_may_be_summed_too() -> None:
    untested = {"energy": Field(said_energy, tested=False)}
    run_, _ = round_of(ask=untested)
    assert distillation(clients_of(), ask=untested).teachers._reducible
    plain, _ = round_of()
    assert run_.sha256 == plain.sha256


def votes(asked: Asked) -> np.ndarray:
    return np.arange(len(asked.ids)) % 5 * (asked.client_id + 1)


def by_share_of_votes(answers: Answers) -> Tensor:
    """Look across clients, but not where all have said less than two."""
    each = answers["votes"].float()
    return each / each.max(0).values.clamp_min(1.0) + 0.01


@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_a_scorer_that_looks_across_clients_is_seen_whatever_it_looks_at(dtype: str) -> None:
    ask = {"votes": Field(votes, dtype=dtype)}
    strategy = distillation(clients_of(), scorer=by_share_of_votes, ask=ask)
    assert not strategy.teachers._reducible
    _, view = round_of(scorer=by_share_of_votes, ask=ask)
    scores = by_share_of_votes(view.teachers)
    torch.testing.assert_close(view.weights, scores / scores.sum(0))


class Noisy:
    """A codec that adds noise, and knows no rows."""

    def encode(self, arrays: Any, *, rng: np.random.Generator) -> Any:
        return {n: (a + rng.random(a.shape)).astype(np.float32) for n, a in arrays.items()}

    def decode(self, arrays: Any) -> Any:
        return arrays


def test_what_a_client_says_of_itself_is_said_once_in_a_round() -> None:
    ask = {"class_counts": class_counts(codec=Noisy())}
    (one, whole), (three, view) = (
        round_of(scorer=by_counts, ask=ask, chunks=number) for number in (1, 3)
    )
    sent = [{k: e for k in range(5) for e in run_.reports[0].exchanges if e.client_id == k}
            for run_ in (one, three)]  # fmt: skip
    assert [len(each) for each in sent] == [5, 5]
    shown, there = view.teachers["class_counts"], whole.teachers["class_counts"]
    assert bool((shown != there).any())  # other inputs in the first message, and other noise
    scores = by_counts(view.teachers)
    torch.testing.assert_close(view.weights, scores / scores.sum(0))  # in all chunks


def test_all_answers_are_kept_only_where_they_are_wanted() -> None:
    clients = clients_of()
    strategy = distillation(clients, weight_cap=0.3)
    assert strategy.teachers._whole is False
    kept = []
    inner = strategy.teachers.rule

    def noted(*args: Any) -> Any:
        ensemble = type(inner).__call__(inner, *args)
        kept.append(ensemble.whole is not None)
        return ensemble

    strategy.teachers.rule = _Noting(inner, noted)  # type: ignore[assignment]
    run(strategy, clients)
    assert kept == [False]


class _Noting:
    def __init__(self, inner: Any, call: Any) -> None:
        self._inner, self._call = inner, call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_fields_are_tried_with_every_architecture_before_anybody_trains() -> None:
    clients = clients_of()
    counted = Hoarding()
    rehearse_fields(clients, ENERGY | COUNTS | {"seen": Field(counted)})
    assert counted.seen == 0  # a state sees no try
    for field, message in (
        (features(tap="features.1"), r"'linear': tap 'features.1': Sequential has only"),
        (features(shape=(16,)), r"'mlp': field 'x' is of shape \(2, 8\), expected \(2, 16\)"),
        (Field(failing_on_few), "'linear': field 'x': IndexError"),
    ):
        with pytest.raises(ValueError, match=rf"strategy\.ask\.x: architecture {message}"):
            rehearse_fields(clients, {"x": field})


def failing_on_few(asked: Asked) -> Any:
    return asked.logits[:, 99]


@pytest.mark.parametrize("strategy", [distillation, partial(gossip, graph=topology(complete))])
def test_what_is_no_mapping_of_fields_is_refused(strategy: Any) -> None:
    with pytest.raises(ValueError, match=r"strategy\.ask: expected a name over each field"):
        strategy(clients_of(), ask=Field(said_energy))


def test_peers_have_no_answers_to_compare_with() -> None:
    loss = Objective(kl, anchors=("energy",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"strategy\.loss: anchor 'energy': expected none, peers"):
        gossip(clients_of(), topology(complete), ask=ENERGY, loss=loss)


class Hoarding:
    """Says how many clients it has seen."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, asked: Asked) -> np.ndarray:
        self.seen += 1
        return np.full(len(asked.ids), self.seen)


def failing(asked: Asked) -> Any:
    if asked.client_id == 3:
        raise RuntimeError("no sensor")
    return np.ones(len(asked.ids))


def drawn(asked: Asked) -> np.ndarray:
    return asked.rng("energy").random(len(asked.ids)) + 0.1


@pools
def test_a_field_that_fails_is_its_clients_failure_and_one_that_hoards_is_named(kind: str) -> None:
    clients = clients_of()
    ask = {"energy": Field(failing)}
    run_ = run(distillation(clients, scorer=by_energy, ask=ask), clients, kind)
    (failure,) = [e.failure for e in run_.reports[0].exchanges if e.failure]
    assert "field 'energy': RuntimeError: no sensor" in failure
    with pytest.raises(Exception, match=r"(?s)field 'energy': Hoarding changed its 'seen'"):
        run(distillation(clients, ask={"energy": Field(Hoarding())}), clients, kind)


@pools
def test_what_a_field_draws_is_of_its_client_and_round(kind: str) -> None:
    clients = clients_of()
    make = partial(distillation, clients, scorer=by_energy, ask={"energy": Field(drawn)})
    assert run(make(), clients).sha256 == run(make(), clients, kind).sha256
    _, view = round_of(scorer=by_energy, ask={"energy": Field(drawn)})
    rows = view.teachers["energy"]
    assert len({tuple(row) for row in rows.tolist()}) == len(rows)


def hooking(asked: Asked) -> np.ndarray:
    """Leave a hook, take gradients away and overwrite what it was shown: all of it bad manners."""
    network = asked.network()
    network.register_forward_hook(lambda module, inputs, output: output * 0.5)
    network.requires_grad_(False)
    asked.logits.mul_(0)
    return np.ones(len(asked.ids))


def overwriting(asked: Asked) -> np.ndarray:
    asked.indices[:] = 0
    return np.ones(len(asked.ids))


@pools
def test_what_a_field_does_to_what_it_is_shown_is_undone_or_refused(kind: str) -> None:
    clients = clients_of()
    ask = {"energy": Field(hooking)}
    plain = run(distillation(clients), clients, rounds=2)
    meddled = run(distillation(clients, ask=ask), clients, kind, rounds=2)
    for name, array in plain.parameters.items():  # answers come one by one, or are folded alike
        np.testing.assert_allclose(meddled.parameters[name], array, atol=1e-5)
    with pytest.raises(Exception, match="read-only"):
        run(distillation(clients, ask={"energy": Field(overwriting)}), clients, kind)


def test_two_fields_of_one_function_draw_apart() -> None:
    _, view = round_of(ask={"one": Field(drawn), "other": Field(drawn)})
    assert bool((view.teachers["one"] != view.teachers["other"]).all())
