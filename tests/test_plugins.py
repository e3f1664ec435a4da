"""The contract of design.md, section 4, for every scorer, combiner, loss and rule found in conf/.

Your own rules too: `STILLHOUSE_RULES=/path/to/your/conf pytest tests/test_plugins.py`, where that
folder has `strategy/scorer/*.yaml` and so on, as for `--config-dir`, and your modules beside them.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clients.messages.answers import Answers
from clients.mutual import group_heads
from clients.mutual.terms import Shared, Terms
from strategies.aggregation.normalisation import normalise
from tests.places import CONF
from tests.plugins import COMBINERS, LOSSES, RULES, SCORERS

scorers = pytest.mark.parametrize("scorer", SCORERS.values(), ids=SCORERS)
combiners = pytest.mark.parametrize("combiner", COMBINERS.values(), ids=COMBINERS)
rules = pytest.mark.parametrize("name", RULES)
temperatures = pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
sizes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(2, 7))
seeds = st.integers(0, 2**32)


def answers(shape: tuple[int, int, int], seed: int, scale: float = 3.0) -> Answers:
    rng = torch.Generator().manual_seed(seed)
    num_clients, num_examples, _ = shape
    return Answers(
        client_ids=tuple(range(num_clients)),
        logits=torch.randn(shape, generator=rng) * scale,
        mask=torch.ones(num_clients, num_examples, dtype=torch.bool),
        own_probs=torch.rand(num_clients, num_examples, generator=rng),
        num_examples=torch.randint(1, 1000, (num_clients,), generator=rng).float(),
    )


def changed(teachers: Answers, **fields: Any) -> Answers:
    return Answers(**{**vars(teachers), **fields})


def weights_of(scorer: Callable[..., Tensor], teachers: Answers) -> Tensor:
    return normalise(scorer(teachers), teachers.mask)


def probs(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=dtype).softmax(-1)


def of_numbers(combiner: Callable[..., Tensor]) -> bool:
    """Tell whether a combiner is one of numbers, a regression's: not by its name."""
    one = torch.linspace(-2, 2, 8).view(2, 4)
    return torch.allclose(combiner(one[None], torch.ones(1, 2), 1.0), one)


def test_how_many_rules_were_found() -> None:
    shipped = [
        p
        for kind in ("scorer", "combiner", "loss", "rule")
        for p in (CONF / "strategy" / kind).glob("*.yaml")
    ]
    assert len(shipped) == 14 + 7 + 4 + 6
    assert len(SCORERS) + len(COMBINERS) + len(LOSSES) + len(RULES) >= 18


@scorers
@settings(max_examples=30, deadline=None)
@given(shape=sizes, seed=seeds, scale=st.sampled_from([0.0, 1.0, 30.0, 3e4]))
def test_scores_have_shape_are_finite_and_not_negative(
    scorer: Callable[..., Tensor], shape: tuple[int, int, int], seed: int, scale: float
) -> None:
    scores = scorer(answers(shape, seed, scale))
    assert scores.shape == shape[:2]
    assert torch.isfinite(scores).all()
    assert (scores >= 0).all()


@scorers
@settings(max_examples=30, deadline=None)
@given(shape=sizes, seed=seeds)
def test_scores_do_not_change_when_a_constant_is_added_to_the_logits(
    scorer: Callable[..., Tensor], shape: tuple[int, int, int], seed: int
) -> None:
    teachers = answers(shape, seed)
    shifted = changed(teachers, logits=teachers.logits + 5.0)
    torch.testing.assert_close(scorer(shifted), scorer(teachers), rtol=1e-4, atol=1e-5)


@scorers
@settings(max_examples=30, deadline=None)
@given(shape=sizes, seed=seeds)
def test_permuting_clients_permutes_weights(
    scorer: Callable[..., Tensor], shape: tuple[int, int, int], seed: int
) -> None:
    teachers = answers(shape, seed)
    order = torch.randperm(shape[0], generator=torch.Generator().manual_seed(seed))
    permuted = changed(
        teachers,
        client_ids=tuple(order.tolist()),
        logits=teachers.logits[order],
        own_probs=teachers.own_probs[order],
        num_examples=teachers.num_examples[order],
    )
    expected = weights_of(scorer, teachers)[order]
    torch.testing.assert_close(weights_of(scorer, permuted), expected)


@scorers
@settings(max_examples=30, deadline=None)
@given(shape=sizes, seed=seeds)
def test_equal_teachers_get_equal_weights(
    scorer: Callable[..., Tensor], shape: tuple[int, int, int], seed: int
) -> None:
    one = answers((1, *shape[1:]), seed)
    equal = changed(
        one,
        client_ids=tuple(range(shape[0])),
        logits=one.logits.expand(shape).clone(),
        mask=one.mask.expand(shape[:2]),
        own_probs=one.own_probs.expand(shape[:2]).clone(),
        num_examples=one.num_examples.expand(shape[0]).clone(),
    )
    weights = weights_of(scorer, equal)
    covered = weights.sum(0) > 0  # a scorer may trust nobody, and drop an example
    expected = torch.full(shape[:2], 1 / shape[0]) * covered
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-7)


@scorers
@settings(max_examples=30, deadline=None)
@given(shape=sizes, seed=seeds)
def test_a_masked_client_gets_weight_zero_and_the_rest_sum_to_one(
    scorer: Callable[..., Tensor], shape: tuple[int, int, int], seed: int
) -> None:
    teachers = answers((shape[0] + 1, *shape[1:]), seed)
    mask = teachers.mask.clone()
    mask[0] = False
    weights = weights_of(scorer, changed(teachers, mask=mask))
    assert (weights[0] == 0).all()
    sums = weights.sum(
        0
    )  # margin gives 0 to ties, and an example that nobody is sure of is dropped
    assert (((sums - 1).abs() < 1e-6) | (sums == 0)).all()


@combiners
@temperatures
@settings(max_examples=20, deadline=None)
@given(shape=sizes, seed=seeds)
def test_targets_are_on_the_simplex(
    combiner: Callable[..., Tensor], temperature: float, shape: tuple[int, int, int], seed: int
) -> None:
    teachers = answers(shape, seed)
    weights = normalise(teachers.own_probs + 0.01, teachers.mask)
    targets = combiner(teachers.logits, weights, temperature)
    assert targets.shape == shape[1:]
    if of_numbers(combiner):  # between the least and the largest that anybody says
        least, largest = teachers.logits.aminmax(dim=0)
        assert ((least - 1e-4 <= targets) & (targets <= largest + 1e-4)).all()
        return
    assert (targets >= 0).all()
    torch.testing.assert_close(targets.sum(-1), torch.ones(shape[1]))


@combiners
@temperatures
@settings(max_examples=20, deadline=None)
@given(shape=sizes, seed=seeds)
def test_equal_teachers_combine_to_what_one_alone_does(
    combiner: Callable[..., Tensor], temperature: float, shape: tuple[int, int, int], seed: int
) -> None:
    teachers = answers((1, *shape[1:]), seed)
    logits = teachers.logits.expand(shape)
    weights = torch.full(shape[:2], 1 / shape[0])
    targets = combiner(logits, weights, temperature)
    alone = combiner(teachers.logits, torch.ones(1, shape[1]), temperature)
    torch.testing.assert_close(targets, alone, rtol=1e-4, atol=1e-5)
    if combiner is COMBINERS["true_labels"]:  # it looks at nobody's answers
        return
    own = teachers.logits[0]  # of which sharpening leaves the likeliest class
    likeliest = alone.gather(-1, own.argmax(-1, keepdim=True))[:, 0]
    torch.testing.assert_close(likeliest, alone.amax(-1), rtol=1e-4, atol=1e-5)


@combiners
@settings(max_examples=20, deadline=None)
@given(shape=sizes, seed=seeds)
def test_a_weight_of_one_silences_the_others(
    combiner: Callable[..., Tensor], shape: tuple[int, int, int], seed: int
) -> None:
    teachers = answers(shape, seed)
    weights = torch.zeros(shape[:2])
    weights[-1] = 1
    targets = combiner(teachers.logits, weights, 1.0)
    alone = combiner(teachers.logits[-1:], torch.ones(1, shape[1]), 1.0)
    torch.testing.assert_close(targets, alone)


HEADS = {"one": group_heads.Gate, "okddip": group_heads.Attention, "ffl": group_heads.Fusion}
SHAPES = [(3, 2, 2), (4, 2, 2), (2, 2, 2)]


def said(seed: int) -> tuple[Shared, Tensor]:
    """Answers of three peers to five examples of four classes, and soft labels."""
    rng = torch.Generator().manual_seed(seed)
    logits = [2 * torch.randn(5, 4, generator=rng) for _ in SHAPES]
    features = [torch.randn(5, *shape, generator=rng) for shape in SHAPES]
    stale = [torch.randn(5, 4, generator=rng) for _ in SHAPES]
    for leaf in [*logits, *features]:
        leaf.requires_grad_()
    return Shared(logits, features, stale), torch.randn(5, 4, generator=rng).softmax(-1)


def terms_of(name: str, shared: Shared, targets: Tensor) -> Terms:
    torch.manual_seed(0)
    head = HEADS[name](SHAPES, 4) if name in HEADS else None
    terms: Terms = RULES[name](shared, targets, 3, head)
    return terms


@rules
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_rules_give_each_peer_a_finite_scalar_and_a_gradient(name: str, seed: int) -> None:
    shared, targets = said(seed)
    terms = terms_of(name, shared, targets)
    assert len(terms.peers) == 3
    assert all(loss.shape == () and bool(loss.isfinite()) for loss in terms.peers)
    for k, loss in enumerate(terms.peers):
        own = torch.autograd.grad(loss, list(shared.logits), retain_graph=True, allow_unused=True)
        assert own[k] is not None
        assert bool(own[k].isfinite().all())
        assert own[k].abs().sum() > 0
        for other in (gradient for i, gradient in enumerate(own) if i != k):
            assert other is None or not other.any()  # a target gets no gradient


@rules
def test_rules_do_not_change_what_they_are_given(name: str) -> None:
    shared, targets = said(1)
    before = [leaf.detach().clone() for leaf in [*shared.logits, *shared.features, targets]]
    terms_of(name, shared, targets)
    for was, now in zip(before, [*shared.logits, *shared.features, targets], strict=True):
        assert torch.equal(was, now.detach())


@rules
def test_rules_are_indifferent_to_the_order_of_examples(name: str) -> None:
    shared, targets = said(2)
    order = torch.tensor([3, 0, 4, 1, 2])
    turned = Shared(
        [z[order] for z in shared.logits],
        [m[order] for m in shared.features],
        [z[order] for z in shared.stale],
    )
    here, there = terms_of(name, shared, targets), terms_of(name, turned, targets[order])
    for one, other in zip(here.peers, there.peers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
