"""Examples of who clients are: labels by taggers of unlike quality, one builder for three tiers."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from clients.data import classification
from clients.execution.model_cache import work_of
from clients.models.factory import build
from clients.population.builders import builder_of
from tests.commands import run_py
from tests.example_runs import EXAMPLES, both_pools, imported
from tests.quick_runs import QUICK, federated

TAGGED = ["--config-dir", str(EXAMPLES / "taggers"), "clients/condition=tagged", "partition=iid"]
TIERS = ["--config-dir", str(EXAMPLES / "tiers"), "clients=tiers", "partition=iid", *QUICK[1:]]


@pytest.fixture
def taggers() -> Any:
    return imported("taggers")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- taggers ---


def test_taggers_say_the_true_class_as_often_as_they_are_good(taggers: Any) -> None:
    labels, quality = rng(1).integers(0, 4, 20_000), np.array([0.0, 0.3, 1.0])
    said = taggers.tags(labels, 4, rng(), quality)
    # four standard errors of a share of .3 of 20,000 are .013
    np.testing.assert_allclose((said == labels[:, None]).mean(0), quality, atol=0.013)
    wrong = said[:, 0] - labels
    for step in (1, 2, 3):
        assert (wrong % 4 == step).mean() == pytest.approx(1 / 3, abs=0.014)


def test_the_posterior_by_hand(taggers: Any) -> None:
    """Who always agrees with itself is taken for as sure as may be, .99; and two against one."""
    one = np.eye(2)[[[0], [1], [1]]]
    np.testing.assert_allclose(
        taggers.posterior(one, 1), [[0.99, 0.01], [0.01, 0.99], [0.01, 0.99]]
    )
    # After a first turn from the shares 2/3 and 1/3 the three are right in 2/3, 2/3 and 1/3: the
    # first has 2/3 * 2/3 * 2/3 = 8/27 and the second 1/3 * 1/3 * 1/3 = 1/27.
    split = np.eye(2)[[[0, 0, 1]]]
    np.testing.assert_allclose(taggers.posterior(split, 1), [[8 / 9, 1 / 9]])
    np.testing.assert_allclose(taggers.posterior(split, 0), [[2 / 3, 1 / 3]])


def test_what_is_learned_of_taggers_is_nearer_to_the_truth_the_more_is_made_of_them(
    taggers: Any,
) -> None:
    labels = rng(1).integers(0, 10, 500)
    right = {}
    for learn in taggers.LEARN:
        said = [taggers.tagged(labels, 10, 0, 1, rng=rng(k), learn=learn) for k in range(10)]
        assert {each.ndim for each in said} == {1 if learn in ("majority", "one") else 2}
        classes = [each if each.ndim == 1 else each.argmax(1) for each in said]
        right[learn] = np.mean([each == labels for each in classes])
    assert right["posterior"] > right["majority"] + 0.03
    assert right["votes"] == right["majority"] > right["one"] + 0.2
    with pytest.raises(ValueError, match="learn=best: expected one of posterior, votes, majority"):
        taggers.tagged(labels, 10, 0, 1, rng=rng(), learn="best")


@pytest.mark.slow
def test_soft_labels_of_taggers_teach_more_than_hard_ones_on_both_pools_and_resumed(
    tmp_path: Path,
) -> None:
    words = [
        *TAGGED,
        "rounds=3",
        "strategy.distil.epochs=5",
        *QUICK[:1],
        "clients.training.epochs=10",
    ]
    hard = {name: f"clients.condition.learn={name}" for name in ("majority", "one")}
    runs = both_pools(tmp_path, words, "taggers.tagged", **hard)
    accuracy = {name: run["student_accuracy"] for name, run in runs.items()}
    assert accuracy["inline"] > accuracy["majority"] > accuracy["one"] + 0.02


# --- tiers ---


def test_one_builder_makes_networks_of_three_sizes() -> None:
    """Of a quarter: 1 -> 2 and 2 -> 4 channels by 5x5, 16 -> 8 -> 10; each weight at each place."""
    slim, task = imported("tiers").slim, classification((1, 8, 8), 10)
    models = {tier: builder_of({"model": slim, "tier": tier}) for tier in (0.25, 0.5, 1)}
    sizes = [
        sum(p.numel() for p in build(model, task, rng()).parameters()) for model in models.values()
    ]
    assert sizes == [52 + 204 + 136 + 90, 104 + 808 + 528 + 170, 208 + 3216 + 2080 + 330]
    works = [work_of("", model, task) for model in models.values()]
    assert works[0] == 1 + 64 * 52 + 16 * 204 + 136 + 90
    assert works[0] < works[1] < works[2]
    with pytest.raises(ValueError, match=r"tier=2: expected a share in \(0, 1\]"):
        slim((1, 8, 8), 10, tier=2)


def seconds_of(folder: Path) -> dict[str, list[float]]:
    """Read how long clients of each architecture took in round 1."""
    rows = pq.read_table(folder / "clients.parquet").to_pylist()
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["round"] == 1:
            found.setdefault(row["architecture"], []).append(row["simulated_time_s"])
    return found


@pytest.mark.slow
def test_weak_clients_compute_less_on_both_pools_and_resumed(tmp_path: Path) -> None:
    words = [*TIERS, "clients/profile=alike", "clients.profile.multiplications_per_s=1e6"]
    wider = "clients.architectures.half.tier=1.0"
    both_pools(tmp_path, [*words, "rounds=3"], "tiers.slim", wider=wider)
    times = seconds_of(tmp_path / "inline")
    assert sorted(map(len, times.values())) == [3, 3, 4]
    assert max(times["quarter"]) < min(times["half"])
    assert max(times["half"]) < min(times["whole"])
    wide = seconds_of(tmp_path / "wider")
    assert min(wide["half"]) > max(times["half"])


def test_a_slow_client_gets_a_small_network(tmp_path: Path) -> None:
    words = [*TIERS[:2], "clients=by_speed", *TIERS[3:]]
    assert federated(tmp_path / "run", *words)["failures"] == 0
    times = seconds_of(tmp_path / "run")
    assert {name: len(each) for name, each in times.items()} == {"cnn@0": 5, "cnn@1": 5}
    plain = federated(tmp_path / "plain", *words, "clients.profile.slowdown=1")
    assert seconds_of(tmp_path / "plain").keys() == {"cnn@0"}
    assert plain["failures"] == 0


# --- what is refused ---


def test_what_nobody_offers_is_refused_before_data_are_read(tmp_path: Path) -> None:
    words = ["partition=long_tailed", "~partition.ratio", "data=mnist", "data.root=/nowhere"]
    done = run_py(*words, "sim=inline", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 1
    said = "error: partition: long_tailed takes 'ratio', which nobody offers: there are ids, inputs"
    assert done.stderr.startswith(said)
