"""The page and its Markdown twin: what they say of runs, and what they leave out."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sim.report.drawing import Curve, curves, svg
from sim.report.reading import read_run
from sim.report.series import series_of
from sim.report.tables import accuracies
from tests.run_folders import line, report, sweep, table_of, told, write_run


def test_the_page_of_one_run(tmp_path: Path) -> None:
    page, text, twin = report(tmp_path, write_run(tmp_path / "run", student=0.625))
    assert len(page.ids) == len(set(page.ids))
    assert "script" not in page.tags
    assert [r for r in page.references if not r.startswith(("#", "data:image/png;base64,"))] == []
    assert "@import" not in text
    inside = {r[1:] for r in page.references if r.startswith("#")}
    inside |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert inside <= set(page.ids)
    # accuracy: student, ensemble, clients; loss; traffic; output_js; num_teachers
    assert [c for c in page.ids if "-curve-" in c] == [
        *("p0-curve-0", "p0-curve-1", "p0-curve-2", "p1-curve-0"),
        *("p2-curve-0", "p3-curve-0", "p4-curve-0"),
    ]
    assert sorted(b for b in page.ids if "-band-" in b) == ["p0-band-2-0", "p0-band-2-1"]
    assert len([r for r in page.references if r.startswith("data:image/png")]) == 4  # maps, bars
    assert table_of(twin, "method") == [["run", "1", "62.50", "50.00", "30.00", "10.00"]]
    row = table_of(twin, "run")[0]
    assert row == [
        *("run", "run", "0", "round 3 of 3", "62.50"),
        *("0", "3.0 kB", "9.0 MB", "1 min 15 s"),
    ]
    assert "threads: 1" in twin


def test_a_run_without_a_server_has_peers_in_place_of_a_student(tmp_path: Path) -> None:
    lines = [line(n, 0.5, strategy={"edge_bytes": 5e5}) for n in (1, 2)]
    folder = write_run(tmp_path / "run", lines=lines, over=False)
    text, twin = told(tmp_path, folder)
    head = next(one for one in twin.splitlines() if one.startswith("| run | method"))
    assert "mean client | failures | down | up | between peers |" in head
    assert table_of(twin, "run")[0][4:] == ["30.00", "0", "2.0 kB", "6.0 kB", "1.0 MB"]
    assert "<b>50.0 %</b><span>mean of peers&#39; parameters</span>" in text
    assert "<span>student</span>" not in text


def test_what_flower_averages_of_the_clients_is_no_accuracy_of_its_own(tmp_path: Path) -> None:
    quantiles = line(1, 0.5)["clients"]["accuracy"]
    clients = {"private_accuracy": quantiles}
    strategy = {"private_accuracy": 0.31, "peer_accuracy_mlp": 0.4}
    folder = write_run(
        tmp_path / "run", lines=[line(1, 0.5, clients=clients, strategy=strategy)], over=False
    )
    assert accuracies(read_run(folder)) == {
        "student": 0.5,
        "mean on private data": 0.3,
        "worst on private data": 0.1,
        "peer accuracy mlp": 0.4,
    }


def test_one_round_and_counts_have_whole_numbers_at_their_axes(tmp_path: Path) -> None:
    x = np.array([2.0])
    drawn = curves("num_teachers", [Curve(x, np.array([10.0]))], "round", percent=False)
    inside = [
        [tick for tick in axis.get_majorticklocs() if low <= tick <= high]
        for axis, (low, high) in (
            (drawn.axes[0].xaxis, drawn.axes[0].get_xlim()),
            (drawn.axes[0].yaxis, drawn.axes[0].get_ylim()),
        )
    ]
    assert inside == [[2.0], [10.0]]
    large = curves("bytes", [Curve(x, np.array([1.5e6]))], "round", percent=False)
    assert "1.5M" in svg(large, "p0", "")


def test_several_methods_have_a_curve_each_and_a_band_of_their_seeds(tmp_path: Path) -> None:
    a = sweep(tmp_path / "a", {0: 0.5, 1: 0.6}, rule="x")
    b = sweep(tmp_path / "b", {0: 0.4}, rule="y")
    write_run(b / "dead", 1, lines=[line(1, 0.2)], over=False, config={"rule": "y"})
    page, _, twin = report(tmp_path, a, b)
    first = [i for i in page.ids if i.startswith("p0-") and ("curve" in i or "band" in i)]
    assert sorted(first) == ["p0-band-0-0", "p0-curve-0", "p0-curve-1", "p0-curve-2"]
    assert table_of(twin, "method") == [
        ["rule=x", "2", "55.00 ± 7.07", "50.00 ± 0.00", "30.00 ± 0.00", "10.00 ± 0.00"],
        ["rule=y", "1 of 2", "40.00", "50.00", "30.00", "10.00"],
    ]
    assert "round 1 of 3, not over" in [row[3] for row in table_of(twin, "run")]


def test_unknown_names_are_shown_and_what_is_missing_is_not(tmp_path: Path) -> None:
    probes = {
        "recall": {str(k): 0.1 * k for k in range(12)},
        "new$thing$": 3,
        "\u6f02\u79fb": 1e999,
        "text": "no number",
    }
    strategy = {"peer_loss_mlp": 1.0, "peer_loss_cnn": None, "peer_loss_a_b": 2.0}
    bare = {"round": 1, "probes": probes, "strategy": strategy, "edges": {"\u504f\u79fb": 5}}
    second = {"round": 2, "strategy": {"peer_loss_cnn": 4.0}}
    folder = write_run(tmp_path / "run", lines=[bare, second], over=False)
    (folder / "clients.parquet").unlink()
    pq.write_table(pa.table({"round": [1], "client": [0]}), folder / "clients.parquet")
    (folder / "partition.parquet").unlink()
    assert len(series_of(read_run(folder))) == 12 + 1 + 3 + 1
    page, text, _ = report(tmp_path, folder)
    assert {"new$thing$", "\u504f\u79fb"} <= {"".join(text.split()) for text in page.data}
    curves = [i for i in page.ids if "-curve-" in i]
    per_panel = [len([c for c in curves if c.startswith(f"p{n}-")]) for n in range(4)]
    assert sorted(per_panel) == [1, 1, 3, 12]
    legend = re.findall(r'stroke="(#\w+)" stroke-width="3" stroke-dasharray="([^"]*)"', text)
    assert len(set(legend[:12])) == 12 or len(set(legend[-12:])) == 12
    assert page.marks("heat-map") == []


EVIL = "<script>alert(1)</script>"


def test_names_from_files_are_escaped(tmp_path: Path) -> None:
    config = {"rule": f"{EVIL}|`x`", EVIL: "</pre>"}
    lines = [line(1, 0.5, probes={f"{EVIL}/a": 1.0, f"{EVIL}/b": 2.0}, failures=1)]
    evil = write_run(tmp_path / "a", lines=lines, config=config)
    failure = {"round": 1, "client": 3, "failure": EVIL, "traceback": f"```\n{EVIL}"}
    (evil / "failures.jsonl").write_text(json.dumps(failure) + "\n")
    plain = write_run(tmp_path / "b", config={"rule": "tame"})
    for folders in ([evil], [evil, plain]):
        page, text, twin = report(tmp_path, *folders)
        assert "script" not in page.tags
        assert EVIL in "".join(page.data)
        assert "<script" not in text
        assert EVIL not in re.sub(r"(?ms)^(`{3,})$.*?^\1$", "", twin)
    assert f"rule={EVIL.replace('<', '&lt;')}\\|\\`x\\`" in twin


def test_failures_are_grouped_by_reason(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", lines=[line(1, 0.5, failures=2), line(2, 0.6, failures=1)])
    common = {"phase": "train", "architecture": "mlp"}
    failures = [
        {"round": 1, "client": 3, "failure": "no reply after 10 s", "traceback": ""},
        {"round": 1, "client": 4, "failure": "raised ValueError: no disk left", "traceback": "T1"},
        {"round": 2, "client": 3, "failure": "no reply after 25 s", "traceback": ""},
    ]
    (folder / "failures.jsonl").write_text("".join(json.dumps(f | common) + "\n" for f in failures))
    text, twin = told(tmp_path, folder)
    assert table_of(twin, "reason") == [
        ["no reply after \\# s", "2", "1", "rounds 1 to 2, train", "run"],
        ["raised ValueError: no disk left", "1", "1", "round 1, train", "run"],
    ]
    assert "run, round 1, client 4, architecture mlp, phase train" in text
    assert "no reply after 10 s" in text
    assert table_of(twin, "run")[0][5] == "3"


def test_a_thousand_clients_stay_below_two_megabytes(tmp_path: Path) -> None:
    lines = [line(n, 0.5) for n in range(1, 201)]
    page, text, _ = report(tmp_path, write_run(tmp_path / "run", lines=lines, clients=1000))
    assert len(text.encode()) < 1_000_000
    assert len(page.marks("heat-map")) == 2
    assert "clients are shown" not in text
    page, text, _ = report(tmp_path, write_run(tmp_path / "more", clients=2500))
    assert "1,000 of 2,500 clients are shown" in text
    assert len(text.encode()) < 1_000_000
