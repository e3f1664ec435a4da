"""Sums made in parts: any partition of a cohort gives what all its answers together give."""

import pickle
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Error, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.messages.accumulator import part_message
from clients.messages.answers import Answers
from clients.messages.arrays import read_arrays
from clients.messages.codecs import ANSWERS
from clients.messages.requests import node_id_of
from sim.engine.grid import assume_task_identity
from strategies.aggregation import scorers
from strategies.aggregation import streaming as reduction
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.streaming import Part, gather, read_part
from tests.answers_in_parts import (
    MEANS,
    SCORERS,
    answers,
    contents,
    folded,
    messages,
    rule_of,
    together,
)
from tests.predictions import fault_of


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


# --- parts and the whole ---


@settings(max_examples=150, deadline=None)
@given(
    num_clients=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 9), max_size=5),
    scorer=st.sampled_from(SCORERS),
    mean=st.sampled_from(list(MEANS)),
    kind=st.sampled_from(ANSWERS),
    temperature=st.sampled_from([0.5, 1.0, 4.0]),
    masked=st.sampled_from([0.0, 0.3, 0.9]),
    seed=st.integers(0, 2**31),
)
def test_any_partition_of_the_cohort_gives_the_same_targets(
    num_clients: int,
    cuts: list[int],
    scorer: Any,
    mean: str,
    kind: str,
    temperature: float,
    masked: float,
    seed: int,
) -> None:
    rule = rule_of(scorer, MEANS[mean], temperature=temperature)
    replies = contents(answers(num_clients, seed=seed, masked=masked), kind)
    whole = together(rule, replies, [1, 4, 7])
    parts = folded(rule, replies, sorted(min(cut, num_clients) for cut in cuts), [1, 4, 7])
    assert torch.equal(parts.covered, whole.covered)
    torch.testing.assert_close(parts.targets, whole.targets, rtol=0, atol=1.5e-6)
    # What probes see is the same answers, and not other ones of equal sum.
    assert torch.equal(parts.teachers.logits, whole.teachers.logits)
    assert torch.equal(parts.teachers.mask, whole.teachers.mask)
    assert torch.equal(parts.teachers.own_probs, whole.teachers.own_probs)
    assert torch.equal(parts.teachers.num_examples, whole.teachers.num_examples)
    assert parts.teachers.client_ids == whole.teachers.client_ids
    torch.testing.assert_close(parts.weights, whole.weights, rtol=0, atol=1e-6)


def test_by_hand() -> None:
    # One example, odds 9 and 3/7, (.7, .2, .1) and (.1, .8, .1): DLAD's toy vector.
    teachers = Answers(
        client_ids=(0, 1),
        logits=torch.tensor([[[0.7, 0.2, 0.1]], [[0.1, 0.8, 0.1]]]).log(),
        mask=torch.ones(2, 1, dtype=torch.bool),
        own_probs=torch.tensor([[0.9], [0.3]]),
        num_examples=torch.ones(2),
    )
    for cuts in ([], [1]):
        ensemble = folded(rule_of(scorers.own_odds), contents(teachers), cuts, [0])
        target = ensemble.targets[0].tolist()
        assert target == pytest.approx([0.672727, 0.227273, 0.1], abs=1e-6)
        assert ensemble.weights[:, 0].tolist() == pytest.approx([0.954545, 0.045455], abs=1e-6)


def test_equal_grouping_gives_equal_bits_and_another_one_does_not() -> None:
    replies = contents(answers(7, num_inputs=40))
    rule = rule_of(scorers.own_odds)
    first, again = (folded(rule, replies, [3, 5], [0, 9]) for _ in range(2))
    assert torch.equal(first.targets, again.targets)
    assert torch.equal(first.weights, again.weights)
    assert not torch.equal(folded(rule, replies, [1], [0, 9]).targets, first.targets)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 60), scorer=st.sampled_from(SCORERS), mean=st.sampled_from(list(MEANS)))
def test_the_size_of_blocks_changes_nothing(size: int, scorer: Any, mean: str) -> None:
    replies, rule = contents(answers(4, num_inputs=11)), rule_of(scorer, MEANS[mean])
    whole = folded(rule, replies, [2]).targets
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduction, "BLOCK_NUMBERS", size)
        torch.testing.assert_close(folded(rule, replies, [2]).targets, whole, rtol=0, atol=1e-6)


def test_a_lone_client_is_passed_through() -> None:
    teachers = answers(1, masked=0.0)
    for scorer in (scorers.uniform, scorers.own_odds):
        ensemble = folded(rule_of(scorer), contents(teachers), [])
        expected = teachers.logits[0].softmax(-1)
        torch.testing.assert_close(ensemble.targets, expected, rtol=0, atol=3e-7)


# --- coverage and fallback ---


def test_what_nobody_answers_is_not_covered_wherever_it_is() -> None:
    for mean, row in (("probs", 0.0), ("logits", 0.2)):
        teachers = answers(5, masked=0.0)
        teachers.mask[:, 3] = False
        teachers.mask[:4, 5] = False
        ensemble = folded(rule_of(scorers.own_odds, MEANS[mean]), contents(teachers), [2], [3])
        assert ensemble.covered.tolist() == [n != 3 for n in range(9)]
        assert ensemble.targets[3].tolist() == pytest.approx([row] * 5)
        alone = teachers.logits[4, 5].softmax(-1)
        torch.testing.assert_close(ensemble.targets[5], alone, rtol=0, atol=1e-6)
        assert (ensemble.weights == 0).all()


@pytest.mark.parametrize("known_to", [None, 0, 4])
def test_one_client_that_knows_an_example_ends_the_fallback_for_all(known_to: int | None) -> None:
    # Client 2 does not answer, and does not count, whatever it knows.
    teachers = answers(5, num_inputs=1, masked=0.0)
    teachers.own_probs[...] = torch.tensor([[4e-4], [2e-4], [0.9], [1e-4], [8e-4]])
    teachers.mask[2] = False
    if known_to is not None:
        teachers.own_probs[known_to] = 0.5
    ensemble = folded(rule_of(scorers.own_odds), contents(teachers), [1, 3], [0])
    shares = torch.tensor([1.0, 1, 0, 1, 1])
    if known_to is not None:
        c = teachers.own_probs[:, 0].clamp(1e-4, 1 - 1e-4)
        shares = torch.where(teachers.mask[:, 0], c / (1 - c), 0)
    expected = (shares[:, None] * teachers.logits[:, 0].softmax(-1)).sum(0) / shares.sum()
    torch.testing.assert_close(ensemble.targets[0], expected, rtol=0, atol=1e-6)


def test_sums_at_equal_trust_travel_only_for_examples_that_need_them() -> None:
    teachers = answers(4, num_inputs=9, masked=0.0)
    teachers.own_probs[...] = 0.5
    teachers.own_probs[:, :2] = 1e-5
    reducer = rule_of(scorers.own_odds).reducer(np.arange(0))
    part = reducer.merge([reducer.fold(contents(teachers))])
    assert read_arrays(part["sums"])["equal"].shape == (2, 5)
    plain = rule_of(scorers.uniform, own=False).reducer(np.arange(0))
    without = contents(answers(4, own=False))
    assert sorted(plain.fold(without)["sums"]) == ["mass", "scale", "weighted"]


# --- how it is done ---


def test_fold_holds_one_client_at_a_time() -> None:
    seen: list[weakref.ref[Any]] = []
    most = 0

    def stream() -> Iterator[RecordDict]:
        nonlocal most
        for k in range(6):
            (content,) = contents(answers(1, seed=k))
            seen.append(weakref.ref(content["predictions"]["logits"]))
            asked = Message(RecordDict(), dst_node_id=node_id_of(0), message_type="train")
            # Nor does whoever judges it hold it.
            assert fault_of(asked, Message(content, reply_to=asked)) is None
            del asked
            most = max(most, sum(reply() is not None for reply in seen))
            yield content
            del content

    rule_of(scorers.own_odds).reducer(np.arange(2)).fold(stream())
    assert len(seen) == 6
    assert most <= 2  # the one that is read, and the next one as it is made


def test_a_part_grows_with_the_clients_only_by_their_probe_answers() -> None:
    reducer = rule_of(scorers.own_odds).reducer(np.array([0, 5]))
    few, many = (reducer.fold(contents(answers(k))) for k in (2, 20))
    for name in ("weighted", "mass", "scale"):
        assert few["sums"][name].shape == many["sums"][name].shape
    assert many["probe"]["logits"].shape == (20, 2, 5)


def test_a_reducer_can_be_sent_to_a_worker() -> None:
    rule, replies = rule_of(partial(scorers.own_odds), partial(mean_of_probs)), contents(answers(4))
    sent = pickle.loads(pickle.dumps(rule.reducer(np.array([2]))))
    mine, theirs = rule.reducer(np.array([2])).fold(replies), sent.fold(replies)
    for record in ("sums", "probe"):
        for name, array in mine[record].items():
            assert theirs[record][name].data == array.data


def test_replies_are_left_as_they_were() -> None:
    replies = contents(answers(3))
    before = [array.data for reply in replies for array in reply["predictions"].values()]
    folded(rule_of(scorers.own_odds), replies, [1])
    after = [array.data for reply in replies for array in reply["predictions"].values()]
    assert before == after


def test_one_reduced_message_beside_errors_is_read_as_a_part() -> None:
    replies = contents(answers(4))
    reducer = rule_of(scorers.own_odds).reducer(np.array([0]))
    first, lost = messages([RecordDict(), RecordDict()])
    merged = part_message(reducer.fold(replies), first)
    failed = Message(Error(2, "raised"), reply_to=lost)
    failed.metadata.__dict__["_src_node_id"] = node_id_of(9)
    part = gather([merged, failed])
    assert isinstance(part, Part)
    assert part.teachers.client_ids == (0, 1, 2, 3)
    assert gather([failed]) is None


def test_clients_come_out_in_order_whatever_the_order_of_groups() -> None:
    replies = contents(answers(4))
    reducer = rule_of(scorers.own_odds).reducer(np.array([0, 3]))
    parts = [reducer.fold(replies[2:]), reducer.fold(replies[:2])]
    teachers = read_part(reducer.merge(parts)).teachers
    assert teachers.client_ids == (0, 1, 2, 3)
    assert torch.equal(teachers.logits, answers(4).logits[:, [0, 3]])
