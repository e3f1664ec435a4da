"""Conditions: what clients learn in place of their own labels, by hand and by formula."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from clients.population.label_conditions import (
    coarse_labels,
    label_free,
    pair_noise,
    permuted_labels,
    symmetric_noise,
    taggers,
)
from clients.signatures import named_of
from conf.building import instantiate
from tests.places import CONF

SHIPPED = {
    path.stem: instantiate(OmegaConf.load(path))
    for path in sorted((CONF / "clients" / "condition").glob("*.yaml"))
    if path.stem != "none"
}
MANY = np.random.default_rng(1).integers(0, 5, 40_000)
MANY.flags.writeable = False
FEW = np.array([0, 1, 2, 2])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def off(share: float, trials: int) -> float:
    """Four standard errors of a share: once in 16,000 times a right one is further off."""
    return 4 * float(np.sqrt(share * (1 - share) / trials))


# --- every condition that is shipped ---


@pytest.mark.parametrize("name", SHIPPED)
def test_a_condition_gives_the_same_labels_in_each_round_and_others_than_there_were(
    name: str,
) -> None:
    condition = SHIPPED[name]
    found = [
        condition(MANY, 5, 0, r, **named_of(condition, {"rng": partial(rng, 3)})) for r in (1, 2)
    ]
    assert not np.array_equal(found[0], MANY)
    assert np.array_equal(*found)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_condition_gives_classes_or_rows_on_the_simplex(name: str) -> None:
    condition = SHIPPED[name]
    for labels in (FEW, FEW[:1], FEW[:0]):
        found = condition(labels, 5, 0, 1, **named_of(condition, {"rng": rng}))
        assert len(found) == len(labels)
        if found.ndim == 2:
            assert found.shape[1] == 5
            assert found.dtype == np.float32
            np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
        else:
            assert found.dtype == np.int64


@pytest.mark.parametrize("name", sorted({*SHIPPED} - {"permuted_labels"}))
def test_numbers_are_no_classes(name: str) -> None:
    condition = SHIPPED[name]
    with pytest.raises(ValueError, match="and these labels are numbers"):
        condition(np.zeros((3, 1), np.float32), 5, 0, 1, **named_of(condition, {"rng": rng}))


# --- noise ---


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 1.0])
def test_symmetric_noise_meets_its_share_in_each_class_and_each_other_class_alike(
    share: float,
) -> None:
    found = symmetric_noise(MANY, 5, 0, 1, rng=rng(), share=share)
    assert (found != MANY).mean() == pytest.approx(share, abs=off(share, len(MANY)) + 1e-12)
    for true in range(5):
        own = found[true == MANY]
        for said in {*range(5)} - {true}:
            one = share / 4
            assert (own == said).mean() == pytest.approx(one, abs=off(one, len(own)) + 1e-12)


def test_pair_noise_makes_of_a_class_the_next_one_and_no_other() -> None:
    found = pair_noise(MANY, 5, 0, 1, rng=rng(), share=0.3)
    moved = found != MANY
    assert moved.mean() == pytest.approx(0.3, abs=off(0.3, len(MANY)))
    assert (found[moved] == (MANY[moved] + 1) % 5).all()
    assert pair_noise(FEW, 3, 0, 1, rng=rng(), share=1.0).tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize("noise", [symmetric_noise, pair_noise])
def test_more_noise_is_wrong_where_less_was_and_leaves_what_is_not_labelled(
    noise: Callable[..., Any],
) -> None:
    less, more = (noise(MANY, 5, 0, 1, rng=rng(), share=share) for share in (0.2, 0.5))
    wrong = less != MANY
    assert (more[wrong] == less[wrong]).all()
    some = np.array([[0, -1], [-1, 4]])
    assert (noise(some, 5, 0, 1, rng=rng(), share=1.0) < 0).tolist() == (some < 0).tolist()


def test_clients_without_labels_have_none_and_others_theirs() -> None:
    told = partial(label_free, FEW, 3, clients=[1, 4])
    assert [told(k, 1).tolist() for k in (0, 1, 4)] == [FEW.tolist(), [-1] * 4, [-1] * 4]
    assert permuted_labels(np.array([-1, 2]), 3, 0, 1, clients=[0]).tolist() == [-1, 0]


# --- soft labels ---


def test_coarse_labels_by_hand() -> None:
    found = coarse_labels(np.array([0, 1, 2, 3]), 4, 0, 1, groups=[[3, 0, 1]])
    third = np.float32(1 / 3)
    rows = [[third, third, 0, third]] * 2 + [[0, 0, 1, 0], [third, third, 0, third]]
    np.testing.assert_array_equal(found, np.array(rows, np.float32))
    plain = coarse_labels(FEW, 3, 0, 1, groups=[[2], []])
    np.testing.assert_array_equal(plain, np.eye(3, dtype=np.float32)[FEW])


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (partial(coarse_labels, groups=[[0, 3]]), r"groups: there is no class 3, expected 0\.\.2"),
        (partial(coarse_labels, groups=[[0, 1], [1]]), r"groups=\[\[0, 1\], \[1\]\]: a class is"),
        (partial(taggers, rng=rng(), votes=0), "votes=0: expected >= 1"),
        (partial(taggers, rng=rng(), beta=[1, 0]), r"beta=\[1, 0\]: expected two numbers > 0"),
        (
            partial(taggers, rng=rng(), quality=[0.5, 1.5]),
            r"quality=\[0.5, 1.5\]: expected numbers",
        ),
    ],
)
def test_numbers_out_of_range_are_named(condition: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        condition(FEW, 3, 0, 1)
    with pytest.raises(ValueError, match="takes one class of each example, and here are several"):
        condition(FEW[:, None], 3, 0, 1)
    with pytest.raises(ValueError, match="takes one class of each example, and some have none"):
        condition(np.array([0, -1]), 3, 0, 1)


def test_taggers_that_are_always_right_or_always_wrong() -> None:
    right = taggers(FEW, 3, 0, 1, rng=rng(), quality=[1.0], votes=3)
    np.testing.assert_array_equal(right, np.eye(3, dtype=np.float32)[FEW])
    two = np.array([0, 1, 1])
    assert taggers(two, 2, 0, 1, rng=rng(), quality=[0.0], soft=False).tolist() == [1, 0, 0]


def test_taggers_are_as_good_as_they_are_said_to_be_client_by_client() -> None:
    listed = partial(taggers, MANY, 5, rng=rng(), quality=[0.9, 0.3], votes=1, soft=False)
    for client_id, sure in enumerate([0.9, 0.3, 0.9]):
        found = listed(client_id, 1, rng=rng(client_id))
        assert (found == MANY).mean() == pytest.approx(sure, abs=off(sure, len(MANY)))
        for said in range(1, 5):
            other = (1 - sure) / 4
            share = ((found - MANY) % 5 == said).mean()
            assert share == pytest.approx(other, abs=off(other, len(MANY)))
    drawn = [(taggers(FEW.repeat(500), 3, 0, 1, rng=rng(k), beta=[6, 2])[:, :2] > 0).mean()
             for k in range(2)]  # fmt: skip
    assert drawn[0] != drawn[1]


def test_the_quality_of_clients_is_drawn_from_the_beta_distribution() -> None:
    """Mean a / (a + b) = 3/4, variance a b / ((a + b)^2 (a + b + 1)) = 1/48."""
    labels = np.zeros(2000, np.int64)
    sure = np.array([
        taggers(labels, 2, k, 1, rng=rng(k), beta=(6, 2), votes=1)[:, 0].mean() for k in range(600)
    ])  # fmt: skip
    deviation = np.sqrt(1 / 48)
    assert sure.mean() == pytest.approx(0.75, abs=4 * deviation / np.sqrt(600))
    assert sure.std() == pytest.approx(deviation, rel=0.15)


def test_votes_are_counted_and_the_first_of_several_classes_wins() -> None:
    soft = taggers(MANY, 5, 0, 1, rng=rng(), quality=[0.6], votes=4)
    hard = taggers(MANY, 5, 0, 1, rng=rng(), quality=[0.6], votes=4, soft=False)
    assert {*np.unique(soft).tolist()} == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert (soft.argmax(1) == hard).all()  # numpy's argmax is the first
    assert soft[np.arange(len(MANY)), MANY].mean() == pytest.approx(0.6, abs=off(0.6, len(soft)))
    assert (hard == MANY).mean() > 0.65
