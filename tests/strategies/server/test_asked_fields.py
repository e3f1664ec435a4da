"""Fields of one's own: asked for, weighed by, learned from; on both pools, in chunks, in sums."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clients.messages import fields
from clients.messages.answers import Answers
from clients.messages.field import Asked, Field
from clients.messages.round_views import RoundView
from clients.training.losses import kl
from clients.training.objective import Anchors, Objective, Outputs
from strategies.aggregation.scorers import max_prob, uniform
from strategies.teaching.rehearsal import is_reducible
from tests.federations import Run, distillation, open_pool, run_ours, simulated
from tests.federations import tiny_clients as clients_of

pools = pytest.mark.parametrize("kind", ["inline", "ray"])


def said_energy(asked: Asked) -> Tensor:
    return asked.logits.logsumexp(-1).exp()


def by_energy(answers: Answers) -> Tensor:
    return answers["energy"]


def by_counts(answers: Answers) -> Tensor:
    """Trust whoever has many examples of the class that it says."""
    return answers["class_counts"].gather(1, answers.logits.argmax(-1)) + 0.1


ENERGY = {"energy": Field(said_energy)}
COUNTS = {"class_counts": fields.class_counts()}


def run(strategy: Any, clients: Any, kind: str = "inline", **options: Any) -> Run:
    with open_pool(kind, simulated(clients, strategy)) as pool:
        return run_ours(pool, clients, strategy, **options)


def round_of(**changes: Any) -> tuple[Run, RoundView]:
    views: list[RoundView] = []
    clients = clients_of()
    run_ = run(distillation(clients, report=views.append, **changes), clients)
    assert not [e for report in run_.reports for e in report.exchanges if e.failure]
    return run_, views[-1]


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
    ask = ENERGY | COUNTS | {"features": fields.features(codec="uint8")}
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
    ask = {"features": fields.features()}
    sent = [
        [e.reply_bytes for e in run_.reports[0].exchanges if e.phase.startswith("evaluate")]
        for run_, _ in (round_of(ask=each) for each in ({}, ask))
    ]
    assert sent[0] == sent[1]
    tested = {"features": fields.features(tested=True)}
    (run_, _) = round_of(ask=tested)
    more = [e.reply_bytes for e in run_.reports[0].exchanges if e.phase.startswith("evaluate")]
    assert all(after > before + 50 * 8 * 4 for before, after in zip(sent[0], more, strict=True))


def test_a_scorer_of_what_is_not_tested_is_told_before_anybody_trains() -> None:
    untested = {"energy": Field(said_energy, tested=False)}
    clients = clients_of()
    with pytest.raises(ValueError, match=r"no 'energy'.*strategy\.ask\.energy\.tested"):
        distillation(clients, scorer=by_energy, ask=untested)
    with pytest.raises(ValueError, match=r"answers have no 'energy', .*strategy/ask=\[energy\]"):
        distillation(clients, scorer=by_energy)


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
    with pytest.raises(Exception, match=r"(?s)may keep nothing|quorum"):
        run(distillation(clients, ask={"energy": Field(Hoarding())}), clients, kind)


@pools
def test_what_a_field_draws_is_of_its_client_and_round(kind: str) -> None:
    clients = clients_of()
    make = partial(distillation, clients, scorer=by_energy, ask={"energy": Field(drawn)})
    assert run(make(), clients).sha256 == run(make(), clients, kind).sha256
    _, view = round_of(scorer=by_energy, ask={"energy": Field(drawn)})
    rows = view.teachers["energy"]
    assert len({tuple(row) for row in rows.tolist()}) == len(rows)


# --- the student's objective ---


def by_hand(outputs: Outputs, targets: Tensor, anchors: Anchors, *, temperature: float) -> Tensor:
    """Imitate, and see that anchors are in the order of the examples."""
    probs = anchors["logits"][:, outputs.rows].softmax(-1)
    weights = anchors["weights"][:, outputs.rows]
    torch.testing.assert_close((weights[..., None] * probs).sum(0), targets)
    assert anchors["energy"][:, outputs.rows].shape == weights.shape
    assert anchors["class_counts"].shape[1:] == (4,)
    return kl(outputs.logits, targets, temperature)


NAMES = ("logits", "weights", "energy", "class_counts")


def half_silent(answers: Answers) -> Tensor:
    """Leave every example that client 0 is unsure of to nobody: it is dropped."""
    sure = max_prob(answers)
    return sure * (sure[:1] > 0.5)


@pytest.mark.parametrize("scorer", [uniform, half_silent])
def test_an_objective_compares_with_all_answers(scorer: Any) -> None:
    ask = ENERGY | COUNTS
    objective = Objective(by_hand, anchors=NAMES)
    run_, view = round_of(scorer=scorer, ask=ask, loss=objective)
    plain, _ = round_of(scorer=scorer, ask=ask)
    for name, array in plain.parameters.items():
        np.testing.assert_allclose(run_.parameters[name], array, atol=1e-5)
    assert bool((view.weights.sum(0) == 0).any()) == (scorer is half_silent)


def multi_teacher(
    outputs: Outputs, targets: Tensor, anchors: Anchors, *, temperature: float
) -> Any:
    """sum_k w_k CE(q_k, p): the gradient of CE(sum_k w_k q_k, p)."""
    rows = outputs.rows
    probs, weights = anchors["logits"][:, rows].softmax(-1), anchors["weights"][:, rows]
    each = torch.stack([cross_entropy(outputs.logits, p, reduction="none") for p in probs])
    return (weights * each).sum(0)


def test_learning_from_each_teacher_is_learning_from_their_mean() -> None:
    each, _ = round_of(
        scorer=max_prob, loss=Objective(multi_teacher, anchors=("logits", "weights"))
    )
    mean, _ = round_of(scorer=max_prob)
    for name, array in mean.parameters.items():
        np.testing.assert_allclose(each.parameters[name], array, atol=1e-5)


def test_an_anchor_that_nobody_is_asked_for_is_refused_by_name() -> None:
    objective = Objective(by_hand, anchors=("energies",))
    with pytest.raises(ValueError, match=r"anchor 'energies' is not among weights, logits, energy"):
        distillation(clients_of(), ask=ENERGY, loss=objective)
