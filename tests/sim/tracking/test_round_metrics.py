"""The lines of a run folder: rounds, and failures."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from flwr.serverapp.strategy import FedAvg

from sim.engine.quorum import QuorumLost
from sim.tracking.round_metrics import costs
from sim.tracking.run_folder import CLIENTS, FAILURES, METRICS
from sim.tracking.tracker import Tracker
from tests.exchanges import exchange
from tests.federations import inline, run_foreign, vector
from tests.foreign_clients import foreign_app
from tests.tracked_runs import lines_of, report, tracked


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of four clients."""
    folder = tmp_path_factory.mktemp("tracking") / "four"
    tracked(folder)
    return folder


# --- lines and rows ---


def test_a_line_agrees_with_the_clients_table(folder: Path) -> None:
    rows = pq.read_table(folder / CLIENTS).to_pylist()
    assert [(row["round"], row["client"]) for row in rows] == [
        (r, k) for r in (1, 2) for k in range(4)
    ]
    for line in lines_of(folder / METRICS):
        mine = [row for row in rows if row["round"] == line["round"]]
        accuracies = sorted(row["accuracy"] for row in mine)
        shown = line["clients"]["accuracy"]
        assert (shown["min"], shown["max"]) == (accuracies[0], accuracies[-1])
        assert shown["mean"] == pytest.approx(sum(accuracies) / 4)
        # Between the second and the third of four; a quarter of three steps from the first.
        assert shown["median"] == pytest.approx((accuracies[1] + accuracies[2]) / 2)
        q25 = accuracies[0] + 0.75 * (accuracies[1] - accuracies[0])
        assert shown["q25"] == pytest.approx(q25)
        assert line["bytes"]["reply"] == sum(row["reply_bytes"] for row in mine)
        assert set(line) == {
            *("round", "student", "strategy", "clients", "probes", "bytes", "failures")
        }


def test_lines_and_table_repeat_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    tracked(tmp_path / "again")
    for name in (METRICS, CLIENTS, FAILURES):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name
    assert (folder / FAILURES).read_bytes() == b""


# --- failures ---


def test_a_failure_is_a_line_that_says_who_when_where_and_why(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, {}, "")
    run = partial(run_foreign, inline(foreign_app()), FedAvg())
    with pytest.raises(QuorumLost):
        run(vector("raise@2", "nan@0"), quorum=0.9, report=tracker.round)
    tracker.close()
    rejected, raised = lines_of(tmp_path / FAILURES)
    assert rejected == {
        "round": 1,
        "client": 0,
        "architecture": "arch-0",
        "phase": "train",
        "failure": "array 'arrays/nan@0' has 1 of 2 values that are not finite",
        "traceback": "",
    }
    assert (raised["client"], raised["failure"]) == (2, "ValueError: no disk left")
    assert raised["traceback"].startswith("Traceback (most recent call last)")
    (line,) = lines_of(tmp_path / METRICS)
    assert line["failures"] == 2
    failures = pq.read_table(tmp_path / CLIENTS).to_pydict()["failure"]
    assert [bool(failure) for failure in failures] == [True, False, True, False]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_not_finite_ends_no_run_and_keeps_the_line_json(
    tmp_path: Path, value: float
) -> None:
    tracker = Tracker(tmp_path, {}, "")
    good, bad = exchange(0, metrics={"loss": 1.0}), exchange(1, metrics={"loss": value})
    tracker.round(report(3, [good, bad]))
    tracker.close()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / METRICS).read_text(encoding="utf-8")
    json.loads(text, parse_constant=refuse)


def test_what_was_reached_is_drawn_over_bytes_and_over_simulated_seconds() -> None:
    """Without a student it is the clients' mean accuracy."""
    line: dict[str, Any] = {
        "student": {"accuracy": 0.5}, "clients": {}, "strategy": {},
        "bytes": {"request": 10**6, "reply": 10**6},
    }  # fmt: skip
    first = costs(line, [])
    assert first == {"megabytes": 2.0, "accuracy_per_megabyte": 0.25}
    peers = line | {"student": {}, "clients": {"accuracy": {"mean": 0.6}}}
    timed = costs(peers | {"simulated_time_s": 3.0}, [first | {"simulated_time_s": 1.0}])
    assert timed == pytest.approx({
        "megabytes": 4.0, "accuracy_per_megabyte": 0.15,
        "simulated_time_s": 4.0, "accuracy_per_simulated_second": 0.15,
    })  # fmt: skip
    silent = line | {"student": {}, "bytes": {"request": 0, "reply": 0}}
    assert costs(silent, []) == {"megabytes": 0.0}
    # Without a server what the simulation itself sends and shows is nobody's cost.
    assert costs(silent | {"strategy": {"edge_bytes": 5e5}}, []) == {"megabytes": 0.5}
