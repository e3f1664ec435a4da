"""DistillationStrategy: driven by fabricated replies, then by simulated clients."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Error, Message
from torch import Tensor, nn

from clients.messages.arrays import write_arrays
from clients.messages.requests import node_id_of, read_request
from clients.messages.round_views import RoundView
from clients.models.discriminator import DiscriminatorRecipe
from clients.models.factory import parameters_of
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, generator
from clients.training.evaluation import evaluate, predict
from clients.training.losses import kl
from sim.engine.grid import PoolGrid
from sim.workers.process_setup import assume_task_identity
from strategies.aggregation.scorers import max_prob, own_odds, uniform
from strategies.server.distillation import DistillationStrategy
from tests.distilling import (
    DISTIL,
    PROXY,
    SEED,
    SPLITS,
    TEST,
    asked,
    bits,
    distil_round,
    federation,
    fresh_student,
    make,
    random_logits,
    reduced,
    reply_to,
)
from tests.federations import inline, simulated


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


def taught(targets: Tensor, ids: np.ndarray, temperature: float = 1.0) -> nn.Module:
    """Distil these targets into the same student without any strategy."""
    student = fresh_student()
    rng = generator(SEED, Purpose.DISTILLATION, 1)
    DISTIL(student, PROXY, ids, targets, partial(kl, temperature=temperature), rng)
    return student


# --- degenerate cohorts ---


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_one_client_is_ordinary_distillation_bit_for_bit(temperature: float) -> None:
    strategy = make(temperature=temperature)
    logits = random_logits(strategy, 1)
    metrics = distil_round(strategy, logits)
    targets = (logits[0] / temperature).softmax(-1)
    alone = taught(targets, strategy.split.distilled_ids, temperature)
    assert bits(strategy.student) == bits(alone)
    assert bits(strategy.student) != bits(fresh_student())
    assert metrics["num-teachers"] == 1
    assert metrics["dropped-examples"] == 0


@pytest.mark.parametrize("scorer", [uniform, max_prob])
def test_identical_clients_are_a_single_teacher(scorer: Any) -> None:
    # Weights 1/2 and 1/2: halving and adding two equal numbers rounds nothing.
    strategy = make(scorer=scorer)
    logits = random_logits(strategy, 1)
    distil_round(strategy, logits.expand(2, -1, -1))
    assert bits(strategy.student) == bits(
        taught(logits[0].softmax(-1), strategy.split.distilled_ids)
    )


def test_the_order_of_arrival_does_not_change_a_bit() -> None:
    one, other = make(), make()
    logits = random_logits(one, 5)
    distil_round(one, logits)
    distil_round(other, logits, reverse=True)
    assert bits(one.student) == bits(other.student)


def test_without_a_reply_the_round_aggregates_to_nothing() -> None:
    strategy = make()
    assert strategy.aggregate_train(1, []) == (None, None)
    assert strategy.aggregate_evaluate(1, []) is None
    assert bits(strategy.student) == bits(fresh_student())


# --- coverage ---


def test_examples_that_nobody_answers_for_are_dropped_and_counted() -> None:
    strategy = make()
    logits = random_logits(strategy, 2)
    mask = torch.ones(logits.shape[:2], dtype=torch.bool)
    mask[:, :7] = False  # nobody
    mask[0, 10:20] = False  # the other one still does
    metrics = distil_round(strategy, logits, mask)
    assert metrics["dropped-examples"] == 7
    targets = logits.softmax(-1).mean(0)
    targets[10:20] = logits[1, 10:20].softmax(-1)
    alone = taught(targets[7:], strategy.split.distilled_ids[7:])
    for mine, theirs in zip(strategy.student.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def test_a_round_in_which_nobody_covers_anything_leaves_the_student_as_it_was() -> None:
    # A cohort of one that masks everything must not end the run.
    strategy = make()
    logits = random_logits(strategy, 1)
    metrics = distil_round(strategy, logits, torch.zeros(logits.shape[:2], dtype=torch.bool))
    assert metrics["dropped-examples"] == len(strategy.split.distilled_ids)
    assert bits(strategy.student) == bits(fresh_student())


# --- what is reported ---


def test_the_view_shows_what_the_student_imitated() -> None:
    views: list[RoundView] = []
    strategy = make(report=views.append, scorer=max_prob, weight_cap=0.6, temperature=2.0)
    logits = random_logits(strategy, 3)
    distil_round(strategy, logits)
    (view,) = views
    assert view.server_round == 1
    assert view.teachers.client_ids == (0, 1, 2)
    assert torch.equal(view.teachers.logits, logits)
    assert view.weights.max() <= 0.6 + 1e-6
    torch.testing.assert_close(view.weights.sum(0), torch.ones(logits.shape[1]))
    by_hand = (view.weights[..., None] * (logits / 2.0).softmax(-1)).sum(0)
    torch.testing.assert_close(view.targets, by_hand)
    assert len(view.losses) == 3


def test_the_ensemble_is_measured_on_the_test_set() -> None:
    # The first client is right on every example, the second never, with a smaller margin:
    # probabilities e/(e + 3) = .475 for the truth, beside .4 at most for the wrong class.
    strategy = make()
    truth = torch.nn.functional.one_hot(torch.tensor(TEST.labels), 4).float()
    grid: Any = SimpleNamespace(get_node_ids=lambda: [node_id_of(0), node_id_of(1)])
    arrays = write_arrays(parameters_of(strategy.student))
    distil_round(strategy, random_logits(strategy, 2))
    requests = list(strategy.configure_evaluate(1, arrays, ConfigRecord(), grid))
    assert read_request(requests[0].content).proxy_ids is None
    wrong = 0.5 * truth.roll(1, dims=-1)
    for answers, accuracy in (([truth, wrong], 1.0), ([wrong, wrong], 0.0)):
        replies = [reply_to(*parts) for parts in zip(requests, answers, strict=True)]
        metrics = strategy.aggregate_evaluate(1, replies)
        assert metrics is not None
        assert metrics["ensemble-accuracy"] == accuracy


# --- answers that were summed on the way ---


@pytest.mark.parametrize("scorer", [uniform, max_prob])
def test_a_round_of_sums_is_a_round_of_answers(scorer: Any) -> None:
    grid: Any = SimpleNamespace(get_node_ids=lambda: [node_id_of(k) for k in range(5)])
    views: list[RoundView] = []
    found = []
    for summed in (False, True):
        strategy = make(scorer=scorer, report=views.append, probe_examples=20)
        logits = random_logits(strategy, 5)
        requests = asked(strategy, 5)
        replies = [reply_to(*parts) for parts in zip(requests, logits, strict=True)]
        replies[3] = Message(Error(2, "raised"), reply_to=requests[3])
        if summed:
            replies = reduced(strategy, "train", replies)
        arrays, metrics = strategy.aggregate_train(1, replies)
        assert arrays is not None
        assert metrics is not None
        questions = list(strategy.configure_evaluate(1, arrays, ConfigRecord(), grid))
        assert [m.metadata.dst_node_id for m in questions] == [node_id_of(k) for k in (0, 1, 2, 4)]
        rng = torch.Generator().manual_seed(2)
        said = torch.randn(4, len(TEST), 4, generator=rng)
        replies = [reply_to(*parts) for parts in zip(questions, said, strict=True)]
        if summed:
            replies = reduced(strategy, "evaluate", replies)
        evaluated = strategy.aggregate_evaluate(1, replies)
        assert evaluated is not None
        found.append((dict(metrics), dict(evaluated), parameters_of(strategy.student)))
    (metrics, evaluated, student), (sum_metrics, sum_evaluated, sum_student) = found
    assert sum_metrics == pytest.approx(metrics, abs=1e-5)
    assert sum_evaluated == pytest.approx(evaluated, abs=1e-5)
    for name, value in student.items():
        np.testing.assert_allclose(sum_student[name], value, rtol=0, atol=1e-4)
    plain, summed_view = views
    assert plain.teachers.client_ids == summed_view.teachers.client_ids == (0, 1, 2, 4)
    assert plain.proxy_ids == summed_view.proxy_ids
    assert torch.equal(plain.teachers.logits, summed_view.teachers.logits)
    torch.testing.assert_close(summed_view.weights, plain.weights, rtol=0, atol=1e-6)
    torch.testing.assert_close(summed_view.targets, plain.targets, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [{"weight_cap": 0.5}, {"combiner": lambda z, w, t: z.median(0).values.softmax(-1)}],
    ids=["cap", "median"],
)
def test_who_needs_every_answer_is_given_every_answer(changes: dict[str, Any]) -> None:
    strategy = make(**changes)
    assert strategy.intake(1, "train") is None
    assert strategy.intake(1, "evaluate") is None


# --- with simulated clients ---


def run(strategy: DistillationStrategy, clients: SimulatedClients, rounds: int = 1) -> PoolGrid:
    grid = PoolGrid(inline(simulated(clients)), clients.architectures)
    arrays = write_arrays(parameters_of(strategy.student))
    for server_round in range(1, rounds + 1):
        grid.begin_round(server_round)
        requests = strategy.configure_train(server_round, arrays, ConfigRecord(), grid)
        aggregated, _ = strategy.aggregate_train(server_round, grid.send_and_receive(requests))
        assert aggregated is not None, [exchange.failure for exchange in grid.exchanges]
        arrays = aggregated
    return grid


@pytest.mark.parametrize("inputs", ["features", "pixels"])
def test_who_owns_the_classes_has_the_weight_on_them(inputs: str) -> None:
    # By chance a teacher would have half of the weight.
    views: list[RoundView] = []
    recipe = DiscriminatorRecipe(inputs)
    strategy = make(scorer=own_odds, discriminator=recipe, report=views.append)
    run(strategy, federation())
    owner = torch.from_numpy((PROXY.labels[strategy.split.distilled_ids] >= 2).astype(np.int64))
    mass = views[0].weights.gather(0, owner[None])[0]
    for client in (0, 1):
        assert mass[owner == client].mean() > 0.9
    right = views[0].targets.argmax(-1).numpy() == PROXY.labels[strategy.split.distilled_ids]
    assert right.mean() > 0.95


def test_the_student_learns_classes_that_no_single_client_has() -> None:
    # A client alone can reach 1/2, guessing gives 1/4.
    strategy = make(
        scorer=own_odds, discriminator=DiscriminatorRecipe(), distil=partial(DISTIL, epochs=40)
    )
    run(strategy, federation())
    assert evaluate(strategy.student, TEST)["accuracy"] > 0.9


def test_labels_of_the_proxy_set_are_never_used() -> None:
    wrong = replace(PROXY, labels=(PROXY.labels + 1) % 4)
    students = []
    for splits in (SPLITS, replace(SPLITS, proxy=wrong)):
        strategy = make(
            proxy=splits.proxy,
            scorer=own_odds,
            discriminator=DiscriminatorRecipe(),
            feed_back=True,
        )
        run(strategy, federation(splits, local_epochs=2), rounds=2)
        students.append(bits(strategy.student))
    assert students[0] == students[1]


def test_a_client_like_the_student_becomes_it_and_any_other_imitates_it() -> None:
    # Without local training client 0 answers exactly what the student it was sent answers.
    views: list[RoundView] = []
    strategy = make(feed_back=True, digest_epochs=60, report=views.append)
    teacher = fresh_student()
    labels = torch.tensor(TEST.labels)
    cross = partial(torch.nn.functional.cross_entropy, reduction="none")
    rng = np.random.default_rng(0)
    DISTIL(teacher, TEST, np.arange(len(TEST)), labels, cross, rng, epochs=60)
    strategy.student.load_state_dict(teacher.state_dict())

    clients = federation(local_epochs=0)
    grid = PoolGrid(inline(simulated(clients)), clients.architectures)
    grid.begin_round(2)
    arrays = write_arrays(parameters_of(strategy.student))
    requests = strategy.configure_train(2, arrays, ConfigRecord(), grid)
    strategy.aggregate_train(2, grid.send_and_receive(requests))
    expected = predict(teacher, PROXY, strategy.split.distilled_ids)
    same, other = views[0].teachers.logits
    assert torch.equal(same, expected)
    assert not torch.equal(other, expected)
    assert (other.argmax(-1) == expected.argmax(-1)).float().mean() > 0.9
