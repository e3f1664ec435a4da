"""Sums made in parts: any partition of a cohort gives what all its answers together give."""

import math
import pickle
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Error, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clients.handlers.screening import fault_of
from clients.messages.answers import TeacherPredictions
from clients.messages.arrays import read_arrays
from clients.messages.codecs import ANSWERS
from clients.messages.requests import (
    TRAIN_PREDICTIONS,
    PredictionReply,
    node_id_of,
    write_reply,
)
from sim.engine.grid import assume_task_identity
from strategies.aggregation import scorers
from strategies.aggregation import streaming as reduction
from strategies.aggregation.combiners import (
    WeightedMean,
    mean_of_logits,
    mean_of_probs,
    softened,
    unchanged,
)
from strategies.aggregation.ensemble import Ensemble, EnsembleRule
from strategies.aggregation.streaming import Part, gather, read_part
from strategies.teaching.rehearsal import is_reducible

SCORERS = [
    scorers.uniform,
    scorers.num_examples,
    scorers.max_prob,
    scorers.entropy,
    scorers.margin,
    scorers.own_probability,
    scorers.own_odds,
    scorers.num_examples_own_odds,
]
MEANS = {"probs": mean_of_probs, "logits": mean_of_logits}


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


def answers(
    num_clients: int,
    num_inputs: int = 9,
    num_classes: int = 5,
    seed: int = 0,
    masked: float = 0.2,
    own: bool = True,
    scale: float = 3.0,
) -> TeacherPredictions:
    """Make up a cohort; own_probs lie around 1e-3, so that some examples are known to nobody."""
    rng = torch.Generator().manual_seed(seed)
    shape = (num_clients, num_inputs)
    exponents = torch.rand(shape, generator=rng) * 2.5 - 5
    exponents[:, ::2] += torch.rand(num_clients, len(range(0, num_inputs, 2)), generator=rng) * 2.5
    return TeacherPredictions(
        client_ids=tuple(range(num_clients)),
        logits=torch.randn(*shape, num_classes, generator=rng) * scale,
        mask=torch.rand(shape, generator=rng) >= masked,
        own_probs=10**exponents if own else None,
        num_examples=torch.randint(1, 1000, (num_clients,), generator=rng).float(),
    )


def contents(teachers: TeacherPredictions, kind: str = "float32") -> list[RecordDict]:
    own = teachers.own_probs
    return [
        write_reply(
            PredictionReply(
                server_round=1,
                client_id=teachers.client_ids[k],
                inputs_crc32=0,
                num_examples=int(teachers.num_examples[k]),
                logits=teachers.logits[k].numpy(),
                own_probs=None if own is None else own[k].numpy(),
                mask=teachers.mask[k].numpy(),
                metrics={},
                answers=kind,
            )
        )
        for k in range(len(teachers.client_ids))
    ]


def rule_of(scorer: Any, mean: Any = mean_of_probs, own: bool = True, **changes: Any) -> Any:
    settings_ = {"temperature": 1.0, "weight_cap": 1.0, "fallback_below": 1e-3 if own else None}
    return EnsembleRule(scorer, mean, **(settings_ | changes))


def folded(
    rule: EnsembleRule,
    replies: list[RecordDict],
    cuts: list[int],
    probe: list[int] | None = None,
) -> Ensemble:
    positions = np.array(probe or [], dtype=np.int64)
    reducer = rule.reducer(positions)
    edges = [0, *cuts, len(replies)]
    groups = [replies[a:b] for a, b in pairwise(edges) if a < b]
    return rule(read_part(reducer.merge(reducer.fold(group) for group in groups)), positions)


def messages(replies: list[RecordDict]) -> list[Message]:
    asked = [
        Message(RecordDict(), dst_node_id=node_id_of(k), message_type=TRAIN_PREDICTIONS)
        for k in range(len(replies))
    ]
    return [Message(content, reply_to=ask) for content, ask in zip(replies, asked, strict=True)]


def together(rule: EnsembleRule, replies: list[RecordDict], probe: list[int]) -> Ensemble:
    all_answers = gather(messages(replies))
    assert isinstance(all_answers, TeacherPredictions)
    return rule(all_answers, np.array(probe, dtype=np.int64))


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
    teachers = TeacherPredictions(
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


# --- numbers at the edge ---


@pytest.mark.parametrize("mean", MEANS)
def test_a_thousand_terms_of_all_sizes_are_summed_to_a_millionth(mean: str) -> None:
    # Odds from 1e-4 to 9,999, two groups of which hold the same clients in another order.
    teachers = answers(1000, num_inputs=6, masked=0.1)
    rng = torch.Generator().manual_seed(3)
    c = torch.rand(1000, 6, generator=rng).round(decimals=1).clamp(0, 1)
    teachers.own_probs[...] = c  # type: ignore[index]
    rule = rule_of(scorers.own_odds, MEANS[mean])
    c = c.double().clamp(1e-4, 1 - 1e-4)
    odds = torch.where(teachers.mask, c / (1 - c), 0)[..., None]
    exact = teachers.logits.double()
    if mean == "probs":
        exact = exact.softmax(-1)
    expected = (odds * exact).sum(0) / odds.sum(0)
    if mean == "logits":
        expected = expected.softmax(-1)
    replies = contents(teachers)
    for cuts in (list(range(10, 1000, 10)), [500], []):
        targets = folded(rule, replies, cuts).targets.double()
        assert (targets - expected).abs().max() < 2e-6


def huge(teachers: TeacherPredictions) -> Tensor:
    """Score up to 1e38, and down to 1e-38 where the client is small."""
    exponents = 38 * (2 * (teachers.num_examples > 500).float() - 1)
    return (10**exponents)[:, None].expand_as(teachers.mask)


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("scorer", [huge, scorers.num_examples], ids=["scores", "sizes"])
def test_neither_huge_scores_nor_huge_logits_overflow(mean: str, scorer: Any) -> None:
    teachers = answers(6, scale=1e29, masked=0.0)
    teachers.num_examples[...] = torch.tensor([1e12, 1, 1e12, 700, 2, 1e3])
    rule = rule_of(scorer, MEANS[mean])
    replies = contents(teachers)
    whole, parts = together(rule, replies, []), folded(rule, replies, [2, 3])
    assert torch.isfinite(parts.targets).all()
    torch.testing.assert_close(parts.targets, whole.targets, rtol=0, atol=1e-5)


def test_scores_far_below_what_float32_holds_in_full_still_share() -> None:
    # Subnormal scores 1e-44 and 3e-44 (7 and 21 units of 2**-149): one quarter, three quarters.
    def tiny(teachers: TeacherPredictions) -> Tensor:
        return (teachers.num_examples * 2.0**-149)[:, None].expand_as(teachers.mask)

    teachers = answers(2, masked=0.0)
    teachers.num_examples[...] = torch.tensor([7.0, 21.0])
    ensemble = folded(rule_of(tiny), contents(teachers), [1])
    expected = teachers.logits.softmax(-1)
    expected = 0.25 * expected[0] + 0.75 * expected[1]
    torch.testing.assert_close(ensemble.targets[::2], expected[::2], rtol=0, atol=1e-6)


def test_logits_out_of_reach_of_the_short_cut_are_subtracted_first() -> None:
    # 200 bits above and below: 2**200 overflows, 2**-200 is 0
    for offset in (0.0, 200.0, -200.0):
        teachers = answers(3, masked=0.0)
        teachers.logits.add_(offset)
        targets = folded(rule_of(scorers.uniform), contents(teachers), [1]).targets
        expected = teachers.logits.double().softmax(-1).mean(0)
        assert (targets.double() - expected).abs().max() < 1e-6


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
            assert fault_of(asked, Message(content, reply_to=asked)) is None  # holds nothing either
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
    merged, lost = messages([reducer.fold(replies), RecordDict()])
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


# --- who may be reduced ---


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("mean", MEANS.values(), ids=MEANS)
@pytest.mark.parametrize("scorer", SCORERS)
def test_every_rule_of_ours_is_reducible(scorer: Any, mean: Any, own: bool) -> None:
    if not own and scorer in SCORERS[5:]:
        return  # it refuses to score at all
    assert is_reducible(rule_of(partial(scorer), partial(mean), own), 7, own)


def cohort_softmax(teachers: TeacherPredictions) -> Tensor:
    return teachers.logits.amax(-1).softmax(0)


def mean_confidence(teachers: TeacherPredictions) -> Tensor:
    mine = scorers.max_prob(teachers).mean(1, keepdim=True)  # over examples
    return mine.expand_as(teachers.mask)


def own_fallback(teachers: TeacherPredictions) -> Tensor:
    assert teachers.own_probs is not None
    unknown = teachers.own_probs.amax(0) < 1e-3
    return torch.where(unknown, 1.0, teachers.own_probs)


def counts_answers(teachers: TeacherPredictions) -> Tensor:
    return teachers.mask.sum(0, keepdim=True).float().expand_as(teachers.mask)


def needs_two(teachers: TeacherPredictions) -> Tensor:
    first, second = teachers.logits.amax(-1)[:2]
    return (first - second).abs().expand_as(teachers.mask)


def scribbles(teachers: TeacherPredictions) -> Tensor:
    return teachers.logits.abs_().amax(-1)


class Stateful:
    def __call__(self, teachers: TeacherPredictions) -> Tensor:
        return torch.ones_like(teachers.mask, dtype=torch.float32)


@pytest.mark.parametrize(
    "scorer",
    [
        cohort_softmax,
        mean_confidence,
        own_fallback,
        counts_answers,
        needs_two,
        scribbles,
        Stateful(),
        partial(Stateful()),
    ],
)
def test_a_scorer_that_needs_more_than_an_answer_gets_all_of_them(scorer: Any) -> None:
    assert not is_reducible(rule_of(scorer), 4, True)


def median(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    return logits.softmax(-1).median(0).values


def across_examples(logits: Tensor, temperature: float) -> Tensor:
    return (logits - logits.mean(0)).softmax(-1)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": median},
        {"mean": partial(mean_of_probs, temperature=2.0)},
        {"mean": WeightedMean(across_examples, unchanged)},
        {"mean": WeightedMean(softened, unchanged, fraction=lambda z, t: (z.exp(), z.sum()))},
        {"weight_cap": 0.5},
    ],
    ids=["median", "bound", "rows", "wrong-fraction", "cap"],
)
def test_a_combination_that_is_no_mean_of_single_answers_gets_all_of_them(changes: Any) -> None:
    assert not is_reducible(rule_of(scorers.uniform, **changes), 4, True)


def test_a_users_weighted_mean_is_reducible() -> None:
    def geometric(mean: Tensor, temperature: float) -> Tensor:
        return mean.softmax(-1)

    def log_probs(logits: Tensor, temperature: float) -> Tensor:
        return (logits / temperature).log_softmax(-1)

    mean: Callable[..., Tensor] = WeightedMean(log_probs, geometric)
    assert is_reducible(rule_of(scorers.max_prob, mean), 4, True)


def test_a_bad_score_is_an_error_in_parts_too() -> None:
    def negative(teachers: TeacherPredictions) -> Tensor:
        return -torch.ones_like(teachers.mask, dtype=torch.float32)

    with pytest.raises(ValueError, match="scores must be finite and >= 0"):
        folded(rule_of(negative), contents(answers(2)), [])
    with pytest.raises(ValueError, match="scores must be finite and >= 0"):
        folded(rule_of(lambda t: t.logits.amax(-1) * math.nan), contents(answers(2)), [])
