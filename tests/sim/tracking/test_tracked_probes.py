"""What a probe may return, and that it changes nothing."""

import math
import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from clients.messages.round_views import RoundView
from clients.models.discriminator import DiscriminatorRecipe
from sim.analysis.probes import ByClient, Curve, Every, ProbeError, Table, output_matrices, trust
from sim.tracking.run_folder import CLIENTS, METRICS
from sim.tracking.tracker import Tracker
from sim.workers.process_setup import seeded_globals
from strategies.aggregation.scorers import own_odds
from tests.exchanges import exchange
from tests.federations import tiny_clients
from tests.tracked_runs import events_of, lines_of, report, seen, tracked

# --- what a probe may return ---


def test_a_probe_returns_numbers_values_of_clients_and_figures(tmp_path: Path) -> None:
    def mine(view: RoundView) -> dict[str, Any]:
        return {
            "number": np.float32(0.5),
            "of_clients": ByClient([1.0, math.nan]),
            "line": Curve("x", "y", {"a": (np.arange(5.0), np.arange(5.0))}),
            "matrix": Table(np.ones((3, 2)), "row", "column"),
        }

    tracker = Tracker(tmp_path, {"mine": mine}, "", figures_every=1)
    tracker.view(seen())
    line = tracker.round(report(1, [exchange(0), exchange(1)]))
    tracker.close()
    assert line["probes"] == {"number": 0.5}
    assert line["clients"]["of_clients"]["mean"] == 1.0  # what is not a number is left out
    assert pq.read_table(tmp_path / CLIENTS)["of_clients"].to_pylist() == [1.0, None]
    assert {"figures/line", "figures/matrix"} <= set(events_of(tmp_path).Tags()["images"])


def test_what_cannot_be_drawn_is_refused_where_it_is_made() -> None:
    with pytest.raises(ProbeError, match=r"Table of shape \(3,\): expected two axes"):
        Table(np.ones(3), "row", "column")
    with pytest.raises(ProbeError, match=r"Table of shape \(3, 2\): has 1 names"):
        Table(np.ones((3, 2)), "row", "column", ["a", "b", "c"], ["x"])
    with pytest.raises(ProbeError, match=r"line 'a' of \(3,\) and \(2,\): expected equal lengths"):
        Curve("x", "y", {"a": (np.ones(3), np.ones(2))})


def test_two_probes_may_not_give_one_name(tmp_path: Path) -> None:
    """The headline of drift could be anyone's number, and nobody would know."""
    probes = {"trust": trust, "mine": lambda view: {"largest_weight": 1.0}}
    tracker = Tracker(tmp_path, probes, "")
    weights = torch.full((2, 3), 0.5)
    view = replace(seen(), weights=weights, targets=torch.zeros(3, 0))
    with pytest.raises(
        ProbeError, match=r"probes\.mine: value 'largest_weight': is that of probes.trust"
    ):
        tracker.view(view)


def test_a_probe_may_not_change_what_it_is_shown(tmp_path: Path) -> None:
    def zeroed(view: RoundView) -> dict[str, float]:
        view.weights.zero_()
        return {}

    view = replace(seen(), weights=torch.full((2, 3), 0.5), targets=torch.zeros(3, 0))
    with pytest.raises(ProbeError, match=r"probes\.mine: changes what it is shown"):
        Tracker(tmp_path, {"mine": zeroed}, "").view(view)


def test_whoever_fails_is_named(tmp_path: Path) -> None:
    def broken(view: RoundView) -> dict[str, float]:
        return {"x": 1 / 0}

    with pytest.raises(ZeroDivisionError) as caught:
        Tracker(tmp_path, {"mine": broken}, "").view(seen())
    assert caught.value.__notes__ == ["probes.mine"]  # the round is noted where it is run
    nobody = {"cka": partial(output_matrices, most_clients=0)}
    with pytest.raises(ProbeError, match="probes.cka: most_clients=0: expected an integer >= 1"):
        Tracker(tmp_path, nobody, "").view(seen())
    with pytest.raises(ProbeError, match="rounds=-1: expected an integer >= 0"):
        Every(rounds=-1, probe=trust)


def test_a_probe_that_draws_leaves_the_generators_as_they_were(tmp_path: Path) -> None:
    def drawing(view: RoundView) -> dict[str, float]:
        return {"x": random.random() + float(np.random.rand()) + float(torch.rand(1))}

    tracker = Tracker(tmp_path, {"mine": drawing}, "")
    with seeded_globals(np.random.SeedSequence(7)):
        expected = random.random(), np.random.rand(), float(torch.rand(1))
    with seeded_globals(np.random.SeedSequence(7)):
        tracker.view(seen())
        assert (random.random(), np.random.rand(), float(torch.rand(1))) == expected


def test_a_clients_own_metric_does_not_pass_for_what_a_probe_found(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, {"mine": lambda view: {"zeal": ByClient([0.25, math.nan])}}, "")
    tracker.view(seen())
    line = tracker.round(report(1, [exchange(k, metrics={"zeal": 9.0}) for k in (0, 1)]))
    tracker.close()
    table = pq.read_table(tmp_path / CLIENTS).to_pydict()
    assert (table["zeal"], table["client_zeal"]) == ([0.25, None], [9.0, 9.0])
    assert line["clients"]["zeal"]["mean"] == 0.25


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"x": np.zeros(2)}, r"probes.mine: value 'x': ndarray of shape \(2,\), .* ByClient"),
        ({"x": "high"}, "probes.mine: value 'x': str"),
        ({"x": None}, "probes.mine: value 'x': NoneType"),
        (
            {"x": ByClient([0.0, 1.0, 2.0])},
            r"'x': ByClient of float64 \(3,\), .* each of 2 clients",
        ),
        ({"x": ByClient(["a", "b"])}, r"'x': ByClient of <U1 \(2,\)"),
        ({"accuracy": ByClient(np.zeros(2))}, "probes.mine: value 'accuracy': is a column"),
        ("all", "probes.mine: returns str, expected a dict"),
        (None, "probes.mine: returns NoneType, expected a dict"),
        ({3: 1.0}, "probes.mine: value 3: expected a name of letters"),
        ({"a/b": 1.0}, "probes.mine: value 'a/b': expected a name of letters"),
        ({"failure": ByClient(np.zeros(2))}, "probes.mine: value 'failure': is a column"),
    ],
)
def test_what_a_probe_may_not_return_is_refused_by_its_name(
    tmp_path: Path, value: Any, message: str
) -> None:
    tracker = Tracker(tmp_path, {"mine": lambda view: value}, "")
    with pytest.raises(ValueError, match=message):
        tracker.view(seen())
    tracker.close()


def test_labels_are_put_in_by_the_tracker_in_the_order_of_the_ids(tmp_path: Path) -> None:
    shown: list[RoundView] = []

    def look(view: RoundView) -> dict[str, float]:
        shown.append(view)
        return {}

    folder = tmp_path / "run"
    tracked(folder, probes=(look,))
    labels = tiny_clients(4).splits.proxy.labels
    assert shown[0].labels is not None
    assert shown[0].labels.tolist() == labels[list(shown[0].proxy_ids)].tolist()


# --- lines and rows ---


def test_probes_do_not_change_the_student(tmp_path: Path) -> None:
    recipe = {"scorer": own_odds, "discriminator": DiscriminatorRecipe()}
    watched = tracked(tmp_path / "watched", **recipe)
    alone = tracked(tmp_path / "alone", probes=(), **recipe)
    assert watched.sha256 == alone.sha256
    assert set(lines_of(tmp_path / "alone" / METRICS)[0]["probes"]) == set()
    probed = lines_of(tmp_path / "watched" / METRICS)[0]["probes"]
    assert 0 <= probed["weight_entropy"] <= math.log(4)
    assert 0 <= probed["output_disagreement"] <= 1
    assert 0.25 <= probed["largest_weight"] <= 1


def test_a_rounds_probes_do_not_leak_into_the_next(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, {"mine": lambda view: {"x": 1.0}}, "")
    tracker.view(seen())
    lines = [tracker.round(report(r, [])) for r in (1, 2)]
    tracker.close()
    assert [line["probes"] for line in lines] == [{"x": 1.0}, {}]
