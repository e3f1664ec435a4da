"""What partitions, conditions and builders are given by name, and what is refused."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from torch import nn

import clients.population.plugin_arguments
from clients.data import normalised, regression
from clients.data.task import partly_labelled
from clients.models import mlp
from clients.partition import iid, long_tailed
from clients.population.label_conditions import permuted_labels, symmetric_noise
from clients.population.plugin_arguments import cut, labels_of, require_offered
from tests.federations import SEED, tiny_clients

PRIVATE = tiny_clients().splits.private
OWN = np.array([3, 8, 5, 8])


def offered(partition: Any = iid, student: Any = mlp, **about: Any) -> None:
    """Refuse what names something that nobody offers."""
    kinds = {"mlp": {"share": 1, "model": mlp}}
    require_offered(
        partition, student, **{"architectures": kinds, "condition": None, "profile": None, **about}
    )


def half_unlabelled(
    labels: Any, num_classes: int, client_id: int, server_round: int, *, of: Any, rng: Any
) -> Any:
    """A condition on top of another."""
    found = of(labels, num_classes, client_id, server_round)
    return np.where(rng.random(len(labels)) < 0.5, -1, found)


def test_a_condition_within_another_is_given_what_it_names_from_a_stream_of_its_own() -> None:
    about = PRIVATE, partly_labelled(PRIVATE.task), np.arange(80), SEED, 3, 2
    true = PRIVATE.labels[:80]
    noises = [partial(symmetric_noise, share=share) for share in (0.0, 0.5)]
    alone, (clean, noisy) = (
        labels_of(noises[1], *about),
        [labels_of(partial(half_unlabelled, of=noise), *about) for noise in noises],
    )
    np.testing.assert_array_equal(clean == -1, noisy == -1)  # whatever the inner one draws
    assert 20 < (clean == -1).sum() < 60
    assert (clean[clean >= 0] == true[clean >= 0]).all()
    assert (noisy[noisy >= 0] != true[noisy >= 0]).mean() == pytest.approx(0.37, abs=0.25)
    assert (alone[noisy >= 0] != noisy[noisy >= 0]).any()  # not the outer one's stream
    offered(condition=partial(half_unlabelled, of=noises[0]))


# --- what is refused ---


def wants_more(labels: Any, second: Any, third: Any, fourth: Any, *, quality: Any) -> None: ...


def cuts_more(labels: Any, num_clients: Any, rng: Any, centre: Any) -> None: ...


def builds_more(num_classes: int, tier: str, depth: int = 2) -> nn.Module:
    return nn.Linear(depth, num_classes)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"condition": wants_more}, "clients.condition: wants_more takes 'quality', which nobody "
         "offers: there are ids, inputs, rng, round_rng; what else it takes stands beside its _ta"),
        ({"condition": partial(half_unlabelled, of=wants_more)},
         "clients.condition.of: wants_more takes 'quality', which nobody offers"),
        ({"partition": cuts_more}, "partition: cuts_more takes 'centre', .*: there are ids, inpu"),
        ({"partition": partial(long_tailed, of=partial(long_tailed, ratio=2, of=cuts_more),
                               ratio=2)}, r"partition\.of\.of: cuts_more takes 'centre'"),
        ({"partition": partial(long_tailed, of=iid)}, "partition: long_tailed takes 'ratio'"),
        ({"student": builds_more}, "student: builds_more takes 'tier', .*: there are input_shape,"),
        ({"architectures": {"own": {"share": 1, "model": builds_more}}},
         r"clients\.architectures\.own\.model: builds_more takes 'tier', which nobody"),
        ({"architectures": {"own": {"share": 1, "model": mlp, "tier": 2}}},
         r"clients\.architectures\.own\.tier=2: mlp has no argument 'tier' to be given"),
        ({"architectures": {"own": {"share": 1, "model": partial(builds_more, tier=1), "tier": 2}}},
         r"clients\.architectures\.own\.tier=2: builds_more has no"),
    ],
)  # fmt: skip
def test_what_nobody_offers_is_named_with_what_there_is(about: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        offered(**about)


def test_what_is_bound_or_offered_or_has_a_default_is_let_through() -> None:
    kinds = {"own": {"share": 1, "model": builds_more, "tier": "a"}}
    condition = partial(wants_more, quality=0.5)
    offered(partial(long_tailed, of=iid, ratio=2), architectures=kinds, condition=condition)
    offered(condition=partial(symmetric_noise, share=0.1), messenger=None)


# --- conditions ---


def told(condition: Any, client_id: int = 2, server_round: int = 1, **changes: Any) -> Any:
    """Return the labels of four examples, of which one is there twice."""
    task = partly_labelled(PRIVATE.task)
    about: dict[str, Any] = {"private": PRIVATE, "task": task, "indices": OWN, "seed": SEED}
    whose = {"client_id": client_id, "server_round": server_round}
    return labels_of(condition, **{**about, **whose, **changes})


def test_a_condition_is_given_what_it_names_of_the_clients_own_examples() -> None:
    seen: dict[str, Any] = {}

    def mine(labels: Any, num_classes: int, client_id: int, server_round: int,
             ids: Any, *, inputs: Any, rng: Any, round_rng: Any) -> Any:  # fmt: skip
        seen.update(ids=ids.copy(), inputs=inputs, rng=rng.random(), round_rng=round_rng.random())
        seen.update(about=(num_classes, client_id, server_round))
        ids[:] = 0  # it is a copy
        return labels

    first = told(mine)
    np.testing.assert_array_equal(first, PRIVATE.labels[OWN])
    np.testing.assert_array_equal(seen["ids"], OWN)
    np.testing.assert_array_equal(seen["inputs"], normalised(PRIVATE, OWN))
    assert seen["about"] == (4, 2, 1)
    assert OWN.tolist() == [3, 8, 5, 8]
    draws = dict(seen)
    assert draws["rng"] != draws["round_rng"]
    told(mine, server_round=2)
    assert seen["rng"] == draws["rng"]  # labels stay
    assert seen["round_rng"] != draws["round_rng"]
    told(mine, client_id=3)
    assert seen["rng"] != draws["rng"]
    told(mine, seed=SEED + 1)
    assert seen["rng"] != draws["rng"]


def test_inputs_that_nobody_names_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients.population.plugin_arguments, "normalised", pytest.fail)
    told(lambda labels, *about: labels)
    told(lambda labels, *about, **numbers: labels)
    cut(iid, PRIVATE.labels, 3, np.random.default_rng(0), PRIVATE)


SOFT = np.full((4, 4), 0.25)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(3, np.int64), r"labels has shape \(3,\), expected 4 examples"),
        (np.int64(3), r"labels has shape \(\), expected 4 examples"),
        (np.full(4, -2), r"labels lie in -2\.\.-2, expected 0\.\.3 .* \(or -1, not labelled\)"),
        (np.full(4, 4), r"labels lie in 4\.\.4, expected 0\.\.3"),
        (np.zeros(4, np.int32), "dtype int32, expected int64"),
        (np.zeros((4, 4), np.int64), r"shape \(4, 4\), expected \[N\]"),
        (SOFT[:, :3], r"soft labels has shape \(4, 3\), expected \(4, 4\)"),
        (SOFT[:, 0], r"soft labels has shape \(4,\), expected \(4, 4\)"),
        (SOFT * 1.001, "row 0 of soft labels has a least number 0.25025 and sums to 1.001, expect"),
        (np.where(OWN[:, None] == 5, np.nan, SOFT), "row 2 .* number nan and sums to nan"),
        (np.array([[1.0, 0, 0, 0], [0.75, -0.25, 0, 0.5]] * 2), "row 1 .* -0.25 and sums to 1"),
    ],
)
def test_labels_that_are_none_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"clients.condition: .*{message}"):
        told(lambda *about: labels)


def test_soft_labels_are_float32_and_none_where_there_are_no_classes() -> None:
    found = told(lambda *about: SOFT)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, SOFT)
    numbers = regression(PRIVATE.task.input_shape, 4)
    found = told(lambda *about: SOFT.astype(np.float32) * 8, task=numbers)
    assert found.max() == 2.0
    with pytest.raises(ValueError, match=r"clients\.condition: permuted_labels takes classes for"):
        told(lambda labels, *about: permuted_labels(SOFT, *about, clients=[2]))


# --- partitions ---


def by_brightness(
    labels: Any, num_clients: int, rng: np.random.Generator, *, inputs: Any, ids: Any, least: int
) -> list[Any]:
    """Give each client examples that are about as bright as each other."""
    assert ids[least] == least
    bright = inputs.reshape(len(labels), -1).mean(1)
    return np.array_split(ids[np.argsort(bright, kind="stable")], num_clients)


def test_a_partition_may_cut_by_content_also_inside_of_another() -> None:
    mine, rng = partial(by_brightness, least=1), np.random.default_rng
    parts = cut(mine, PRIVATE.labels, 3, rng(0), PRIVATE)
    everything = np.arange(len(PRIVATE))
    bright = normalised(PRIVATE, everything).reshape(len(PRIVATE), -1).mean(1)
    means = [bright[part] for part in parts]
    assert means[0].max() <= means[1].min()
    assert means[1].max() <= means[2].min()
    tailed = cut(partial(long_tailed, of=mine, ratio=5), PRIVATE.labels, 3, rng(0), PRIVATE)
    assert all({*few.tolist()} < {*many.tolist()} for few, many in zip(tailed, parts, strict=True))
