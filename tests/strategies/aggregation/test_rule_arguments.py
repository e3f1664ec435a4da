"""What rules get by name: ids, phase, a labelled share of the proxy set, and all that was said."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.messages.answers import Answers
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.ensemble import EnsembleRule
from strategies.aggregation.rule_arguments import Calibration, of_clients, parted, wanted
from strategies.aggregation.scorers import uniform, validation_accuracy
from strategies.server.distillation import DistillationStrategy
from strategies.teaching.proxy_split import ProxySplit
from strategies.teaching.rehearsal import is_reducible, made_up
from tests.federations import SEED, distillation, open_pool, run_ours, simulated, tiny_clients


def answers_of(logits: list[Any], mask: list[Any] | None = None) -> Answers:
    said = torch.tensor(logits)
    there = torch.ones(said.shape[:2], dtype=torch.bool) if mask is None else torch.tensor(mask)
    return Answers(tuple(range(len(said))), said, there, None, torch.ones(len(said)))


LEFT, RIGHT = [2.0, 0.0], [0.0, 2.0]
THREE = answers_of([[LEFT, LEFT], [LEFT, RIGHT], [RIGHT, RIGHT]])
LABELS = torch.tensor([0, 1])


def test_validation_accuracy_by_hand() -> None:
    """Of two examples they get 1, 2 and 1 right; of what is not answered for, nothing counts."""
    scores = validation_accuracy(THREE, calibration=Calibration(THREE, LABELS))
    assert scores.tolist() == [[0.5, 0.5], [1, 1], [0.5, 0.5]]
    few = replace(THREE, mask=torch.tensor([[True, False], [True, True], [False, False]]))
    scores = validation_accuracy(few, calibration=Calibration(few, LABELS))
    assert scores[:, 0].tolist() == [1, 1, 0]


@pytest.mark.parametrize("sites", [1, 2])
def test_the_last_answers_are_those_to_calibration_examples(sites: int) -> None:
    rows = np.arange(4.0 * sites).reshape(1, -1, 1)
    said = replace(answers_of(rows.tolist()), sites=sites)
    others, found = parted(said, tiny_clients(1).splits.proxy, np.array([7, 9, 2]))
    assert found is not None
    assert others.logits.flatten().tolist() == rows.flatten()[:sites].tolist()
    assert found.logits.flatten().tolist() == rows.flatten()[sites:].tolist()
    assert found.labels.tolist() == tiny_clients(1).splits.proxy.labels[[7, 9, 2]].tolist()
    assert parted(said, tiny_clients(1).splits.proxy, np.array([], np.int64)) == (said, None)


def test_calibration_of_those_who_answered_a_later_chunk() -> None:
    later = of_clients(replace(THREE, client_ids=(2, 5, 9)), (2, 9))
    assert (later.client_ids, later.logits.tolist()) == ((2, 9), [[LEFT, LEFT], [RIGHT, RIGHT]])
    assert Calibration(THREE, LABELS).among((0, 1, 2)).answers is THREE


# --- a split of the proxy set ---


def test_nothing_is_distilled_on_which_teachers_are_measured() -> None:
    proxy = tiny_clients().splits.proxy
    plain = ProxySplit(proxy=proxy, seed=SEED)
    split = ProxySplit(proxy=proxy, seed=SEED, calibration_share=0.3)
    parts = split.negative_ids, split.calibration_ids, split.distilled_ids
    assert [len(part) for part in parts] == [6, 9, 15]
    assert sorted(np.concatenate(parts)) == list(range(30))
    assert (plain.negative_ids == split.negative_ids).all()
    assert len(plain.calibration_ids) == 0
    for odd in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"calibration_share={odd}: expected in"):
            ProxySplit(proxy=proxy, seed=SEED, calibration_share=odd)
    with pytest.raises(ValueError, match="negative_share=0.5.*calibration_share=0.5.*none to dist"):
        ProxySplit(proxy=proxy, seed=SEED, negative_share=0.5, calibration_share=0.5)


# --- rules in a run ---

SEEN: list[tuple[str, str, tuple[int, ...], int]] = []


def asking(teachers: Answers, *, ids: Any, phase: str) -> Tensor:
    SEEN.append(("scorer", phase, tuple(ids.tolist()), teachers.mask.shape[1]))
    return torch.ones(teachers.mask.shape)


def telling(
    logits: Tensor,
    weights: Tensor,
    temperature: float,
    *,
    ids: Any,
    phase: str,
    calibration: Calibration,
    teachers: Answers,
) -> Tensor:
    SEEN.append(("combiner", phase, tuple(ids.tolist()), calibration.logits.shape[1]))
    assert teachers.logits is logits
    assert len(calibration.labels) == calibration.logits.shape[1]
    return mean_of_probs(logits, weights, temperature)


@pytest.mark.parametrize("chunks", [1, 2])
def test_rules_are_told_which_examples_and_what_for(chunks: int) -> None:
    clients = tiny_clients(3)
    more: dict[str, Any] = {} if chunks == 1 else {"chunks": chunks}
    strategy = distillation(clients, scorer=asking, combiner=telling, calibration_share=0.3, **more)
    SEEN.clear()
    with open_pool("inline", simulated(clients, strategy)) as pool:
        found = run_ours(pool, clients, strategy)
    assert not any(each.failure for each in found.reports[0].exchanges)
    split, tests = strategy.split, tuple(range(50))
    expected = [
        each
        for chunk in split.chunks
        for each in (
            ("scorer", "distil", tuple(chunk.tolist()), len(chunk)),
            ("combiner", "distil", tuple(chunk.tolist()), 9),
        )
    ]
    assert [*expected, ("scorer", "test", tests, 50), ("combiner", "test", tests, 9)] == SEEN


def test_a_run_with_calibration_has_the_same_bits_on_both_pools_and_trusts_who_is_right() -> None:
    clients = tiny_clients(4)
    runs, trusts = {}, {}
    for pool in ("inline", "ray"):
        strategy = distillation(clients, scorer=validation_accuracy, calibration_share=0.3)
        views: list[Any] = []
        strategy.report = views.append
        with open_pool(pool, simulated(clients, strategy)) as opened:
            runs[pool] = run_ours(opened, clients, strategy, rounds=2)
        trusts[pool] = views[-1].weights
    assert runs["inline"].sha256 == runs["ray"].sha256
    weights = trusts["inline"]
    assert (weights == weights[:, :1]).all()  # on every example alike
    assert len({round(float(w), 6) for w in weights[:, 0]}) > 1
    plain = distillation(clients, calibration_share=0.3)
    with open_pool("inline", simulated(clients, plain)) as opened:
        assert run_ours(opened, clients, plain, rounds=2).sha256 != runs["inline"].sha256


def test_a_student_that_is_fed_back_is_not_imitated_on_labelled_examples() -> None:
    clients = tiny_clients(2)
    strategy = distillation(
        clients, scorer=validation_accuracy, calibration_share=0.3, feed_back=True
    )
    asked: list[Any] = []
    request = strategy.teachers.request

    def noting(*what: Any, **more: Any) -> Any:
        asked.append(more)
        return request(*what, **more)

    strategy.teachers.request = noting  # type: ignore[method-assign]
    with open_pool("inline", simulated(clients, strategy)) as pool:
        run_ours(pool, clients, strategy, rounds=2)
    assert asked[0].get("digest_ids") is None
    assert (asked[1]["digest_ids"] == strategy.split.distilled_ids).all()


# --- what is refused, and what needs all answers in one place ---


def needy(teachers: Answers, *, truth: Tensor) -> Tensor:
    return truth


def calibrated_if_there_is(
    logits: Tensor, weights: Tensor, temperature: float, *, calibration: Any = None
) -> Tensor:
    return mean_of_probs(logits, weights, temperature)


def test_what_nobody_gives_is_refused_by_name() -> None:
    said = r"strategy\.scorer\.truth is not set.*ids, phase, calibration"
    with pytest.raises(ValueError, match=said):
        EnsembleRule(needy, mean_of_probs)
    with pytest.raises(ValueError, match=r"strategy\.combiner\.truth.*teachers, ids, phase"):
        EnsembleRule(uniform, lambda one, two, three, *, truth: one)
    cure = r"strategy\.scorer measures teachers .* strategy\.proxy_split\.calibration_share > 0"
    with pytest.raises(ValueError, match=cure):
        distillation(tiny_clients(2), scorer=validation_accuracy)
    distillation(tiny_clients(2), combiner=calibrated_if_there_is)  # it has a default


def test_a_rule_that_names_more_has_all_answers_in_one_place() -> None:
    def by_number(teachers: Answers, *, ids: Any, size: float = 1.0) -> Tensor:
        return torch.ones(teachers.mask.shape)

    assert is_reducible(EnsembleRule(uniform, mean_of_probs), 3)
    for scorer in (by_number, partial(by_number, size=2.0)):
        assert wanted(scorer) == {"ids"}
        assert not is_reducible(EnsembleRule(scorer, mean_of_probs), 3)
    strategy: DistillationStrategy = distillation(tiny_clients(2), scorer=by_number)
    assert strategy.intake(1, "train") is None
    rule = EnsembleRule(uniform, mean_of_probs)
    assert rule(made_up(rule, 3), np.arange(2), known={"ids": 1}).targets.shape[1] == 3
