"""Tasks with several rows of answers per input: chunks, sums, fields, anchors, what is measured."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.data import Dataset, classification, dense_labelling, several_heads
from clients.messages.answers import Answers, rows_at
from clients.messages.field import Field
from clients.messages.replies import PredictionReply, read_reply, stack_answers, write_reply
from clients.training.loop import train
from clients.training.losses import kl, mse
from clients.training.objective import Objective
from strategies.aggregation.combiners import mean_of_outputs, mean_of_probs
from strategies.aggregation.ensemble import (
    Ensemble,
    EnsembleRule,
)
from strategies.aggregation.scorers import max_prob, uniform
from strategies.aggregation.streaming import read_part
from strategies.aggregation.targets import covered_inputs, targets_by_input
from strategies.aggregation.task_compatibility import of_task
from strategies.teaching.rehearsal import is_reducible, rehearse, rehearse_student
from strategies.teaching.student import anchors_of

K, N, S, C = 3, 5, 4, 3
R = N * S
PER_INPUT = Field(lambda asked: None, ("N",))
WIDE = Field(lambda asked: None, ("N", 2))
PER_ROW = Field(lambda asked: None, ("R", 2))
FIELDS = {"once": PER_INPUT, "wide": WIDE, "rows": PER_ROW}
TASK = dense_labelling((1, 2, 2), C)


def replies() -> list[PredictionReply]:
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    return [
        PredictionReply(
            server_round=1, client_id=k, inputs_crc32=0, num_examples=7 + k, logits=numbers(R, C),
            own_probs=rng.random(N).astype(np.float32), mask=rng.random(N) < 0.7, metrics={},
            fields={"once": numbers(N), "wide": numbers(N, 2), "rows": numbers(R, 2)}, sites=S,
        )
        for k in range(K)
    ]  # fmt: skip


def answers() -> Answers:
    back = [read_reply(write_reply(each, FIELDS), FIELDS) for each in replies()]
    return stack_answers(range(K), back, FIELDS)


def test_what_is_said_once_of_an_input_is_there_for_each_of_its_rows() -> None:
    said, found = replies(), answers()
    assert (found.sites, found.logits.shape) == (S, (K, R, C))
    for k in range(K):
        assert said[k].own_probs is not None
        np.testing.assert_array_equal(found["own_probs"][k], said[k].own_probs.repeat(S))
        np.testing.assert_array_equal(found["once"][k], said[k].fields["once"].repeat(S))
    assert found["wide"].shape == (K, N, 2)
    assert found["rows"].shape == (K, R, 2)


@pytest.mark.parametrize("inputs", [slice(1, 3), torch.tensor([4, 0, 2])], ids=["slice", "some"])
def test_some_inputs_are_all_their_rows(inputs: Any) -> None:
    whole, some = answers(), answers().of(1).at(inputs)
    which = torch.arange(N)[inputs]
    for name in ("logits", "own_probs", "once", "rows"):
        by_input = torch.unflatten(whole[name][1], 0, (N, S))[which].flatten(0, 1)
        torch.testing.assert_close(some[name][0], by_input)
    torch.testing.assert_close(some["wide"][0], whole["wide"][1, which])
    rows = torch.arange(R)[rows_at(inputs, S)]
    assert rows.tolist() == [S * int(n) + s for n in which for s in range(S)]


def of_inputs(teachers: Answers) -> Tensor:
    """Trust a client by the mean confidence over an input's rows."""
    sure = torch.unflatten(teachers.logits.softmax(-1).amax(-1), 1, (-1, teachers.sites))
    return sure.mean(-1).repeat_interleave(teachers.sites, 1)


def of_neighbours(teachers: Answers) -> Tensor:
    """Trust a client on an input by what it says of the one before, which parts do not have."""
    return of_inputs(teachers).roll(teachers.sites, 1)


@pytest.mark.parametrize("scorer", [uniform, max_prob, of_inputs])
def test_sums_made_in_parts_are_the_whole(scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of one input, by two workers."""
    monkeypatch.setattr("strategies.aggregation.streaming.BLOCK_NUMBERS", C * (S + 1))
    rule = EnsembleRule(scorer, mean_of_probs, temperature=2.0)
    assert is_reducible(rule, C, S)
    probe = np.array([3, 1])
    whole = rule(answers(), probe)
    reducer = rule.reducer(probe)
    contents = [write_reply(replace(each, fields={})) for each in replies()]
    part = reducer.merge([reducer.fold(contents[:1]), reducer.fold(contents[1:])])
    summed = rule(read_part(part), probe)
    torch.testing.assert_close(summed.targets, whole.targets)
    assert torch.equal(summed.covered, whole.covered)
    torch.testing.assert_close(summed.teachers.logits, whole.teachers.logits)
    torch.testing.assert_close(summed.weights, whole.weights)
    assert summed.teachers.sites == S


def test_a_scorer_that_looks_at_other_inputs_is_not_summed() -> None:
    assert not is_reducible(EnsembleRule(of_neighbours, mean_of_probs), C, S)


def test_a_scorer_of_a_field_per_input_is_refused_before_anybody_trains() -> None:
    rule = EnsembleRule(lambda t: t["wide"].exp().sum(-1), mean_of_probs, ask={"wide": WIDE})
    rehearse(rule, C)
    with pytest.raises(ValueError, match=r"scores \(3, 24\): expected \(3, 96\)"):
        rehearse(rule, C, S)


def test_targets_of_rows_that_nobody_covers() -> None:
    targets, covered = torch.rand(R, C), torch.ones(R, dtype=torch.bool)
    covered[:S], covered[S + 1] = False, False
    there, own = covered_inputs(covered, S), targets_by_input(targets, covered, S)
    assert there.tolist() == [False, True, True, True, True]
    assert own.shape == (4, S, C)
    assert own[0, 1].isnan().all()
    torch.testing.assert_close(own[1:].flatten(0, 1), targets[2 * S :])


def test_anchors_are_sorted_by_input_and_what_is_of_a_client_stays() -> None:
    # Two inputs of three rows are covered: 6 counts of classes are no rows.
    own = answers()
    whole = replace(own, per_client={"counts": torch.rand(K, 2 * S)})
    covered = torch.zeros(R, dtype=torch.bool)
    covered[S : 3 * S] = True
    weights = torch.rand(K, R)
    ensemble = Ensemble(torch.rand(R, C), covered, whole, weights, (whole, weights))
    names = ("logits", "weights", "counts", "wide", "once")
    objective = Objective(lambda *each: each[0], anchors=names)
    found = anchors_of(objective, ensemble, nn.Linear(1, 1))
    assert found["logits"].shape == (K, 2, S, C)
    torch.testing.assert_close(found["logits"][:, 1, 2], own.logits[:, 2 * S + 2])
    torch.testing.assert_close(found["weights"][:, 0, 3], weights[:, S + 3])
    assert found["counts"].shape == (K, 2 * S)
    assert found["wide"].shape == (K, 2, 2)
    assert found["once"].shape == (K, 2, S)


def test_a_students_objective_may_compare_rows_with_each_teacher() -> None:
    def loss(outputs: Any, targets: Tensor, anchors: Any, temperature: float) -> Tensor:
        said = anchors["logits"][:, outputs.rows].flatten(1, 2)  # [K, B*S, C]
        assert said.shape[1:] == outputs.logits.shape == targets.shape
        return kl(outputs.logits, targets, temperature) + (outputs.logits - said).square().mean(
            (0, 2)
        )

    task = several_heads((4,), {"a": 3, "b": 2})
    labels = np.zeros((6, 2), np.int64)
    inputs = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    proxy = Dataset("own", inputs, labels, task, 1.0, (0.0,) * 4, (1.0,) * 4)
    how = partial(train, epochs=1, batch_size=2, optimizer=partial(torch.optim.SGD, lr=0.1))
    rule = EnsembleRule(uniform, mean_of_probs)
    rehearse_student(how, nn.Linear(4, 5), proxy, Objective(loss, anchors=("logits",)), rule)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (several_heads((4,), {"a": 3, "b": 2}), {"answers": "uint8"}, "answers=uint8: heads with"),
        (replace(TASK, soft=False), {"temperature": 2.0}, "temperature=2.0: expected 1, numbers"),
    ],
)
def test_what_a_task_cannot_bear_is_named(task: Any, changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_task(EnsembleRule(uniform, mean_of_outputs, **changes), task)
    assert of_task(EnsembleRule(uniform, mean_of_outputs), task).soft is task.soft


def test_a_loss_of_numbers_is_one() -> None:
    values = mse(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]]), 1.0)
    torch.testing.assert_close(values, torch.tensor([2.5]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sites": 0}, "sites=0, expected an integer >= 1"),
        ({"input_shape": ()}, r"input_shape=\(\), expected one axis or more"),
    ],
)
def test_a_task_that_is_none_is_named(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"task classification: {message}"):
        replace(classification((4,), 3), **changes)
