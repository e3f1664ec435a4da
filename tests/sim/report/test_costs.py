"""Accuracy over what was spent: bytes, and simulated time."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from sim.report.costs import Spenders, cost_curves
from sim.report.drawing import Style
from sim.report.reading import read_run
from sim.report.series import series_of
from tests.run_folders import line, report, table_of, told, write_run


def test_simulated_time_is_shown_where_a_run_has_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    result = json.loads((folder / "result.json").read_text()) | {"simulated_time_s": 7500.0}
    (folder / "result.json").write_text(json.dumps(result))
    text, twin = told(tmp_path, folder)
    assert table_of(twin, "run")[0][-1] == "2 h 5 min"
    assert '<th scope="col">simulated time</th>' in text
    lines = [line(n, 0.5, simulated_time_s=20.0 * n) for n in (1, 2)]
    live = write_run(tmp_path / "live", lines=lines, over=False)
    text, twin = told(tmp_path, live)
    row = ["50.00", "51.00", "0", "2.0 kB", "6.0 kB", "1 min 0 s"]  # no run has a wall time
    assert table_of(twin, "run")[0][4:] == row
    assert "student accuracy over simulated time over simulated seconds" in text
    assert "simulated time</th>" not in report(tmp_path, write_run(tmp_path / "none"))[1]


def spenders(*runs: Path) -> list[Mapping[str, dict[int, float]]]:
    return [series_of(read_run(run)) for run in runs]


def test_accuracy_over_cost_by_hand(tmp_path: Path) -> None:
    """4,000 bytes a round, and 8,000 with the other seed: the mean is at 6,000 a round."""
    lines = [line(n, 0.1 * n, simulated_time_s=5.0) for n in (1, 2, 3)]
    del lines[1]["student"]["accuracy"]  # not evaluated; its bytes count
    double = [one | {"student": {"accuracy": 0.3 * one["round"]}} for one in lines]
    double = [one | {"bytes": {"request": 2000, "reply": 6000}} for one in double]
    going = [line(1, 0.7)]
    a, b = write_run(tmp_path / "a", lines=lines), write_run(tmp_path / "b", lines=double)
    c = write_run(tmp_path / "c", lines=going, over=False)
    (traffic, time) = cost_curves([Spenders("m", Style(1), spenders(a, b), spenders(c))])
    assert traffic[:2] == ("student accuracy over traffic", "megabytes sent")
    mean, live = traffic[2]
    assert mean.x == pytest.approx([0.006, 0.018])
    assert mean.y == pytest.approx([0.2, 0.6])
    low, high = mean.bands[0]
    assert (high - low) / 2 == pytest.approx([0.1 * 2**0.5, 0.3 * 2**0.5])  # of 0.1, 0.3; 0.3, 0.9
    assert (live.faint, live.x.tolist(), live.y.tolist()) == (True, [0.004], [0.7])
    assert time[:2] == ("student accuracy over simulated time", "simulated seconds")
    assert [curve.x.tolist() for curve in time[2]] == [[5.0, 15.0]]


def test_whose_accuracy_is_shown_over_what_was_sent(tmp_path: Path) -> None:
    """Of the student, else the ensemble, else the clients; without a server of the clients."""
    bare = line(1, 0.5) | {"student": {}}
    none = write_run(tmp_path / "a", lines=[bare])
    clients = write_run(tmp_path / "b", lines=[bare | {"strategy": {}}])
    peers = write_run(tmp_path / "c", lines=[line(1, 0.5, strategy={"edge_bytes": 7e6})])
    each = spenders(none, clients, peers)
    found = [cost_curves([Spenders("", Style(), [run])])[0] for run in each]
    assert [title for title, *_ in found] == [
        "ensemble accuracy over traffic",
        "mean client accuracy over traffic",
        "mean client accuracy over traffic",
    ]
    assert [lines[0].y.tolist() for *_, lines in found] == [[0.51], [0.3], [0.3]]
    assert [lines[0].x.tolist() for *_, lines in found] == [[0.004], [0.004], [7.0]]
    both = [Spenders("", Style(), [run]) for run in spenders(none, peers)]
    ((title, _, lines),) = cost_curves(both)
    assert (title, len(lines)) == ("accuracy over traffic", 2)
    assert cost_curves([Spenders("", Style(), [{}])]) == []
