"""The report: what it reads, what it says of several seeds, the page and its Markdown twin."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clients.population.conditions import permuted_labels
from conf.schema import explain_command
from run import federate
from sim.analysis.probes import Forgetting, calibration, output_drift, recall_spread, teacher_audit
from sim.report.client_tables import client_tables
from sim.report.command import main
from sim.report.costs import Spenders, cost_curves
from sim.report.drawing import Curve, Style, curves, svg
from sim.report.drifting import MEASURES, Furthest, Often, furthest, sentence
from sim.report.methods import config_differences, methods_of
from sim.report.page import MARK
from sim.report.reading import find_runs, natural, read_run
from sim.report.series import series_of
from sim.report.statistics import expanded_level, paired_difference, spread
from sim.report.tables import (
    NO_DIFFERENCE,
    accuracies,
    comparisons,
    final_table,
    runs_table,
)
from sim.tracking import run_folder
from tests.commands import run_py
from tests.places import ROOT
from tests.sim.analysis.probes.test_in_a_run import drifting, watched

# --- run folders written by hand ---


def line(number: int, student: float, **changes: Any) -> dict[str, Any]:
    """A line of metrics.jsonl as a distillation's."""
    quantiles = {"mean": 0.3, "min": 0.1, "q25": 0.2, "median": 0.3, "q75": 0.4, "max": 0.5}
    return {
        "round": number,
        "student": {"accuracy": student, "loss": 2.0 - student},
        "strategy": {"ensemble_accuracy": student + 0.01, "num_teachers": 3.0},
        "clients": {"accuracy": quantiles},
        "probes": {"output_js": 0.2},
        "bytes": {"request": 1000, "reply": 3000},
        "failures": 0,
        **changes,
    }


def write_run(
    folder: Path,
    seed: int = 0,
    student: float = 0.5,
    lines: list[dict[str, Any]] | None = None,
    over: bool = True,
    config: dict[str, Any] | None = None,
    clients: int = 3,
) -> Path:
    """Write a run folder of three rounds, as a run would leave it."""
    folder.mkdir(parents=True)
    lines = [line(n, student - 0.1 * (3 - n)) for n in (1, 2, 3)] if lines is None else lines
    common = {"seed": seed, "rounds": 3, "sim": {"threads": 1}}
    (folder / "config.yaml").write_text(yaml.safe_dump(common | (config or {})))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    ids = np.arange(clients, dtype=np.int32)
    who = {"architecture": [("linear", "mlp")[k % 2] for k in ids], "failure": [""] * clients}
    rounds = [one["round"] for one in lines]
    table = [
        pa.table(
            {"round": np.full(clients, r, np.int32), "client": ids, **who, "accuracy": ids / 1e4}
        )
        for r in rounds
    ]
    if table:
        pq.write_table(pa.concat_tables(table), folder / "clients.parquet")
    cut = {"client": np.repeat(ids, 2), "label": np.tile([0, 7], clients)}
    counts = np.full(2 * clients, 5)
    pq.write_table(pa.table({**cut, "num_examples": counts}), folder / "partition.parquet")
    if over:
        result = {
            "seed": seed,
            "rounds": 3,
            "student_accuracy": student,
            "ensemble_accuracy": None,
            "clients_accuracy": {"min": 0.1, "mean": 0.3, "max": 0.5},
            "request_bytes": 3000,
            "reply_bytes": 9_000_000,
            "failures": 0,
            "wall_time_s": 75.0,
        }
        (folder / "result.json").write_text(json.dumps(result))
    return folder


class Page(HTMLParser):
    """Collects what a test asks of a page."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []
        self.data: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("href", "src", "xlink:href"):
                self.references.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.data.append(data)

    def marks(self, kind: str) -> list[str]:
        return [each for each in self.ids if re.fullmatch(rf"\w+-\d*-?{kind}(-\d+)*", each)]


def report(tmp_path: Path, *folders: Path) -> tuple[Page, str, str]:
    out = tmp_path / "report.html"
    assert main([*map(str, folders), "--out", str(out)]) == 0
    text = out.read_text()
    return Page(text), text, out.with_suffix(".md").read_text()


def table_of(markdown: str, head: str) -> list[list[str]]:
    """The rows of the Markdown table whose first row begins so."""
    lines = markdown.splitlines()
    heads = [n for n, one in enumerate(lines) if one.startswith("|---")]
    start = next(n - 1 for n in heads if lines[n - 1].startswith(f"| {head} |"))
    rows = []
    for one in lines[start + 2 :]:
        if not one.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", one)[1:-1]])
    return rows


# --- statistics ---


def test_spread_by_hand() -> None:
    found = spread([1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.count) == (2.5, 4)
    assert found.deviation == pytest.approx((5 / 3) ** 0.5)
    assert np.isnan(spread([7.0]).deviation)


def test_a_paired_difference_by_hand() -> None:
    """Differences 1..5 over shared seeds: t interval 3 +- 2.776445 * sqrt(2.5 / 5)."""
    first = {seed: 10.0 * seed + seed + 1 for seed in range(5)} | {9: 1e6}
    second = {seed: 10.0 * seed for seed in range(5)} | {8: -1e6}
    found = paired_difference(first, second)
    assert (found.mean, found.seeds) == (3.0, 5)
    assert found.student_t == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-5)
    assert found.bootstrap is not None
    assert found.interval == (
        min(found.student_t[0], found.bootstrap[0]),
        max(found.student_t[1], found.bootstrap[1]),
    )
    assert found.found


def test_of_three_seeds_the_expanded_bootstrap_is_the_range() -> None:
    """Its level, 1 - 1.4e-7, leaves out none of the 27 resamples; the smallest is (1, 1, 1)."""
    found = paired_difference({0: 1.0, 1: 2.0, 2: 6.0}, dict.fromkeys(range(3), 0.0))
    assert found.bootstrap == (1.0, 6.0)


def test_the_expanded_level_is_hesterbergs() -> None:
    # n = 5: sqrt(5 / 4) * 2.776445 = 3.104160, and Phi(-3.104160) = 0.000954
    assert expanded_level(5) == pytest.approx(1 - 2 * 0.000954, abs=2e-6)
    assert expanded_level(100_000) == pytest.approx(0.95, abs=1e-5)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=8), st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_an_interval_holds_both_and_turns_with_the_sign(apart: list[float], scale: float) -> None:
    """So a difference is stated no oftener than Student's t alone would."""
    values, zeros = dict(enumerate(apart)), dict.fromkeys(range(len(apart)), 0.0)
    found, turned = paired_difference(values, zeros), paired_difference(zeros, values)
    assert found.interval is not None
    assert found.student_t is not None
    assert found.interval[0] <= found.student_t[0] <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.student_t[1] <= found.interval[1]
    assert turned.mean == -found.mean
    larger = paired_difference({k: scale * v for k, v in values.items()}, zeros)
    assert larger.student_t == pytest.approx([scale * end for end in found.student_t], abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "mean", "found"),
    [
        ([50.0] * 5, [50.0] * 5, 0.0, False),
        ([0.0] * 5, [0.0] * 5, 0.0, False),
        ([52.0, 62.0, 72.0], [50.0, 60.0, 70.0], 2.0, True),
        ([100 * 0.58, 100 * 0.29, 100 * 0.57], [58.0, 29.0, 57.0], 0.0, False),  # but for rounding
        ([100 * 0.3, 100 * 0.6, 100 * 0.9], [10.0, 40.0, 70.0], 20.0, True),
    ],
)
def test_differences_that_are_alike_have_no_spread(
    first: list[float], second: list[float], mean: float, found: bool
) -> None:
    difference = paired_difference(dict(enumerate(first)), dict(enumerate(second)))
    assert difference.mean == pytest.approx(mean, abs=1e-12)
    assert difference.interval == (difference.mean, difference.mean)
    assert (difference.alike, difference.found) == (True, found)


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_too_few_seeds_have_no_interval(shared: int) -> None:
    found = paired_difference(dict.fromkeys(range(shared), 1.0), dict.fromkeys(range(5), 0.0))
    assert found.interval is None
    assert not found.found
    assert found.seeds == shared


def test_where_nothing_differs_no_difference_is_said_in_95_of_100() -> None:
    rng = np.random.default_rng(3)
    zeros = dict.fromkeys(range(5), 0.0)
    drawn = [dict(enumerate(rng.normal(0, 0.5, 5))) for _ in range(2000)]
    results = [paired_difference(one, zeros) for one in drawn]
    silent = np.mean([not one.found for one in results])
    bootstrap_alone = np.mean([b[0] <= 0 <= b[1] for one in results if (b := one.bootstrap)])
    error = (0.95 * 0.05 / len(results)) ** 0.5  # standard error of the share, 0.005
    assert silent >= 0.95 - 2 * error
    assert bootstrap_alone < 0.95 - 2 * error  # why Student's t is asked as well


def test_two_points_over_five_seeds_are_found() -> None:
    rng = np.random.default_rng(4)
    zeros = dict.fromkeys(range(5), 0.0)
    found = [paired_difference(dict(enumerate(rng.normal(2, 0.5, 5))), zeros) for _ in range(100)]
    assert np.mean([one.found and one.mean > 0 for one in found]) >= 0.99


# --- reading ---


def test_the_files_have_the_names_that_runs_give_them() -> None:
    from sim.tracking import run_files

    assert run_folder.METRICS == run_files.METRICS == "metrics.jsonl"
    assert run_folder.CLIENTS == run_files.CLIENTS == "clients.parquet"


def test_runs_are_found_below_a_folder_in_natural_order(tmp_path: Path) -> None:
    for job in (10, 2, 0):
        write_run(tmp_path / "sweep" / str(job), seed=job)
    (tmp_path / "sweep" / "2" / ".hydra").mkdir()
    runs = find_runs([tmp_path / "sweep", tmp_path / "sweep" / "2"])
    assert [run.name for run in runs] == ["sweep/0", "sweep/2", "sweep/10"]
    assert [run.seed for run in runs] == [0, 2, 10]
    assert natural("a2b") < natural("a10")


def test_a_run_that_died_before_its_first_round_is_a_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", over=False)
    for name in ("metrics.jsonl", "clients.parquet"):
        (folder / name).unlink()
    (folder / "partition_summary.json").write_text("{}")
    page, text, twin = report(tmp_path, tmp_path)
    assert "it has come to round 0" in text
    assert page.marks("curve") == []
    assert table_of(twin, "run")[0][3] == "round 0 of 3, not over"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.jsonl", '{"round": 1}\n{"round": 2, \n', "metrics.jsonl, line 2: no JSON"),
        ("metrics.jsonl", '{"round": 1}\n{"round": 2}', None),  # whole, its end only is missing
        ("metrics.jsonl", '{"student": {}}\n', "metrics.jsonl, line 1: no `round`"),
        ("metrics.jsonl", '{"round": 2}\n{"round": 2}\n', "line 2: round 2 does not follow"),
        ("metrics.jsonl", "[1]\n", "line 1: expected names and values"),
        ("failures.jsonl", "{\n", "failures.jsonl, line 1"),
        ("result.json", "{", "result.json: no JSON"),
        ("config.yaml", "a: [", "config.yaml: no YAML"),
        ("config.yaml", "- a", "config.yaml: expected keys and values"),
        ("config.yaml", "a: !!python/object:os.system {}", "config.yaml: no YAML"),
        ("clients.parquet", "PAR1", "clients.parquet: no Parquet table"),
        ("clients.parquet", "", "clients.parquet: no Parquet table"),
        ("partition.parquet", "", "partition.parquet: no Parquet table"),
    ],
)
def test_damage_is_told_by_file_and_line(
    name: str, content: str, said: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "run")
    (folder / name).write_text(content)
    status = main([str(folder)])
    assert status == (said is not None)
    assert (said or "") in capsys.readouterr().err
    assert (folder / "report.html").exists() == (said is None)


def test_a_line_that_is_being_written_is_not_damage(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", over=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"round": 4, "stu')
    assert read_run(folder).rounds == 3


@pytest.mark.parametrize("name", ["clients.parquet", "partition.parquet"])
def test_a_table_that_is_being_written_is_left_out_with_a_note(name: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", over=False)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    page, text, twin = report(tmp_path, folder)
    note = f"{name} cannot be read just now: it is left out."
    assert note in text
    assert note in twin
    assert "p0-curve-0" in page.ids
    assert len(page.marks("heat-map")) == 1  # of the other table
    (folder / name).write_bytes(b"")
    assert client_tables(read_run(folder), ["round"], ["client"]).notes == [note]


def test_a_live_run_without_tables_has_curves(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", over=False)
    for name in ("clients.parquet", "partition.parquet"):
        (folder / name).unlink()
    page, text, _ = report(tmp_path, folder)
    assert "clients.parquet has no round yet" in text
    assert "p0-curve-0" in page.ids
    assert page.marks("heat-map") == []


def test_an_older_table_of_a_live_run_is_said_to_be_older(tmp_path: Path) -> None:
    def notes() -> list[str]:
        return [*client_tables(read_run(folder), ["round"], []).notes]

    lines = [line(n, 0.1 * n) for n in (1, 2, 3)]
    folder = write_run(tmp_path / "run", lines=lines, over=False)
    assert notes() == []
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line(n, 0.5)) + "\n" for n in (4, 5))
    (note,) = notes()
    assert note.startswith("clients.parquet was last written after round 3 of 5: what is shown")
    (folder / "clients.parquet").unlink()
    assert notes() == ["clients.parquet has no round yet: maps over rounds are left out."]
    (folder / "result.json").write_text(json.dumps({"rounds": 5}))
    assert notes() == []


def test_what_is_no_run_is_refused_with_what_to_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "runs" / "mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.md").write_text("")
    monkeypatch.chdir(tmp_path)
    for word, said in {
        "none": "none: no such folder\n",
        "empty": "empty: no run in it; expected a run folder, as a run leaves it (config.yaml, ",
        "README.md": "README.md: a file, no folder; expected a run folder",
        "runs/mine/metrics.jsonl": f"did you mean its folder, {folder}?",
        "out=x.html": "out=x.html: no such folder; the file to write is named by --out x.html",
        "seed=0": "seed=0: no such folder; a report takes folders and --out, no KEY=VALUE",
    }.items():
        assert main([word]) == 1
        assert said in capsys.readouterr().err
    (tmp_path / "a=b").mkdir()
    folder.rename(tmp_path / "a=b" / "mine")
    assert main(["a=b"]) == 0  # a folder may be called so


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["reprot", "runs"], "reprot"),
        (["raport"], "raport"),
        (["seed=1", "report", "runs"], "report"),
        (["-m", "seed=1,2"], None),
        (["resume"], None),
    ],
)
def test_a_misspelt_report_has_a_hint(words: list[str], meant: str | None) -> None:
    hint = explain_command(words)
    assert hint == (meant and f"'{meant}': a report is made by python run.py report FOLDER")


def test_only_a_report_is_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "sweep" / "0")
    assert main([str(folder)]) == 0
    assert main([str(folder)]) == 0  # its own
    assert (folder / "report.md").read_text().startswith(f"<!-- {MARK} -->")
    (tmp_path / "mine.md").write_text("notes")
    assert main([str(folder), "--out", str(tmp_path / "mine.html")]) == 1
    assert "mine.md: exists and is no report" in capsys.readouterr().err
    assert (tmp_path / "mine.md").read_text() == "notes"
    assert not (tmp_path / "mine.html").exists()
    assert main([str(folder), "--out", str(tmp_path / "a.pdf")]) == 1
    assert "ends in .html" in capsys.readouterr().err
    assert main([str(folder), "--out", str(tmp_path / "no" / "a.html")]) == 1
    assert "no such folder" in capsys.readouterr().err
    write_run(tmp_path / "sweep" / "1", seed=1)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["sweep"]) == 0
    assert (tmp_path / "report.html").exists()
    written = f"2 runs: {tmp_path / 'report.html'} and {tmp_path / 'report.md'}\n"
    assert capsys.readouterr().out == written


# --- methods ---


def sweep(folder: Path, accuracies: dict[int, float], **config: Any) -> Path:
    for seed, accuracy in accuracies.items():
        write_run(folder / f"{seed}", seed, accuracy, config=config)
    return folder


def test_methods_are_named_by_what_differs(tmp_path: Path) -> None:
    def strategy(target: str, **arguments: Any) -> dict[str, Any]:
        return {"_target_": f"strategies.{target}", **arguments}

    def placed(root: str) -> dict[str, Any]:
        return {"root": root, "source": {"_target_": "clients.data.mnist", "root": root}}

    sweep(tmp_path / "a", {0: 0.5, 1: 0.6}, strategy=strategy("x.Dlad", lr=0.1), data=placed("/a"))
    sweep(tmp_path / "b", {0: 0.5}, strategy=strategy("x.Dlad", lr=0.2), data=placed("/b"))
    sweep(
        tmp_path / "c",
        {0: 0.5},
        strategy=strategy("y.Avg", momentum=0.9),
        sim={"threads": 2},
        probes={},
        data=placed("/c"),
    )
    methods = methods_of(find_runs([tmp_path / name for name in "abc"]))
    assert [m.name for m in methods] == ["Dlad, lr=0.1", "Dlad, lr=0.2", "Avg"]
    assert [[run.seed for run in m.runs] for m in methods] == [[0, 1], [0], [0]]
    differences = dict(config_differences(methods))
    assert differences["seed"] == ["0, 1", "0", "0"]
    assert differences["strategy.momentum"] == ["(absent)", "(absent)", "0.9"]
    assert differences["sim.threads"] == ["1", "1", "2"]
    assert "rounds" not in differences


def test_a_method_without_what_others_have_is_named_by_its_absence(tmp_path: Path) -> None:
    sweep(tmp_path / "a", {0: 0.5}, data={"proxy_source": {"_target_": "x.mnist", "root": "/a"}})
    sweep(tmp_path / "b", {0: 0.5}, data={"proxy_source": None})
    methods = methods_of(find_runs([tmp_path / name for name in "ab"]))
    assert [m.name for m in methods] == ["mnist", "proxy_source=null"]


def test_what_is_only_looked_at_makes_no_other_method(tmp_path: Path) -> None:
    for seed, examples in enumerate((64, 256)):
        looked = {"probe_examples": examples, "temperature": 1.0}
        write_run(tmp_path / "s" / str(seed), seed, config={"strategy": looked})
    write_run(tmp_path / "s" / "2", 2, config={"strategy": looked | {"temperature": 3.0}})
    methods = methods_of(find_runs([tmp_path / "s"]))
    assert [m.name for m in methods] == ["temperature=1.0", "temperature=3.0"]
    assert [[run.seed for run in m.runs] for m in methods] == [[0, 1], [2]]


def test_configs_that_differ_in_very_much_are_named_by_their_folders(tmp_path: Path) -> None:
    for name, value in {"a": 0, "b": 1}.items():
        sweep(tmp_path / name, {0: 0.5}, **{f"a_long_name_of_key_{n}": value for n in range(5)})
    both = [tmp_path / "a", tmp_path / "b"]
    assert [m.name for m in methods_of(find_runs(both))] == ["a", "b"]
    keys = ", ".join(f"a_long_name_of_key_{n}=0" for n in range(5))
    assert methods_of(find_runs([tmp_path]))[0].name == keys  # one folder of both


def test_a_seed_that_was_run_twice_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path / "s" / "0", 0, 0.5)
    write_run(tmp_path / "s" / "1", 0, 0.5)
    write_run(tmp_path / "s" / "2", 1, 0.7)
    (method,) = methods_of(find_runs([tmp_path / "s"]))
    assert [run.name for run in method.runs] == ["s/0", "s/2"]
    assert [run.name for run in method.repeats] == ["s/1"]
    assert final_table([method]).rows[0][:3] == ["s", "2", "60.00 ± 14.14"]
    assert "repeats a seed" in runs_table([method]).rows[2][3]


def test_one_method_under_two_names_has_no_difference(tmp_path: Path) -> None:
    """Once as two folders of the same runs, once as two rules that do the same but for noise."""
    rng = np.random.default_rng(5)
    first = dict(enumerate(0.8 + 0.02 * rng.standard_normal(5)))
    noisy = {seed: value + 0.005 * rng.standard_normal() for seed, value in first.items()}
    a, b = sweep(tmp_path / "a", first), sweep(tmp_path / "b", first)
    c = sweep(tmp_path / "c", noisy, rule="other")
    _, text, twin = report(tmp_path, a, b)
    assert [row[1:4] + row[-1:] for row in table_of(twin, "measure")] == [
        ["(b)", "(a)", "5", NO_DIFFERENCE]
    ] * 4
    assert text.count(f'<td class="words">{NO_DIFFERENCE}</td>') == 4
    _, text, twin = report(tmp_path, a, c)
    row = table_of(twin, "measure")[0]
    assert row[:3] == ["student", "rule=other", "rule=(absent)"]
    assert row[-1] == NO_DIFFERENCE
    assert "td found" not in text
    assert 'class="words found"' not in text


def test_a_planted_difference_of_two_points_is_found(tmp_path: Path) -> None:
    """Differences 1.4, 2.3, 2.5, 1.6, 2.2: deviation 0.474342, t interval 2 +- 0.588973."""
    first = dict(enumerate((0.78, 0.83, 0.80, 0.79, 0.82)))
    apart = (0.014, 0.023, 0.025, 0.016, 0.022)
    better = {seed: value + apart[seed] for seed, value in first.items()}
    a, b = sweep(tmp_path / "a", first, rule="plain"), sweep(tmp_path / "b", better, rule="new")
    _, text, twin = report(tmp_path, a, b)
    (student,) = [row for row in table_of(twin, "measure") if row[0] == "student"]
    assert student[4] == "+2.00"
    assert student[6] == "[+1.41, +2.59]"
    words = re.fullmatch(r"\+2\.00 points \[\+(\d\.\d\d), \+(\d\.\d\d)\]", student[-1])
    assert words is not None
    low, high = map(float, words.groups())
    assert 1.4 <= low <= 1.41  # of the bootstrap, no mean is below the least difference
    assert high == 2.59
    assert text.count('class="words found"') == 1  # the clients are the same


def test_a_constant_difference_is_said_without_an_interval(tmp_path: Path) -> None:
    """Student 2 points better with every seed, all else equal; only the noisy third has a line."""
    first = dict(enumerate((0.5, 0.6, 0.75)))
    a = sweep(tmp_path / "a", first, rule="plain")
    b = sweep(tmp_path / "b", {seed: value + 0.02 for seed, value in first.items()}, rule="new")
    _, text, twin = report(tmp_path, a, b)
    rows = {row[0]: row[4:] for row in table_of(twin, "measure")}
    assert rows["student"] == ["+2.00", "no spread", "no spread", "+2.00 points with every seed"]
    assert rows["mean client"] == ["+0.00", "no spread", "no spread", NO_DIFFERENCE]
    assert text.count('class="words found"') == 1
    assert "would be expected to look different by chance" not in text  # none has an interval
    bars = re.findall(r'<svg class="bar".*?</svg>', text)
    assert len(bars) == 1
    assert bars[0].count("<line") == 1  # that of zero
    assert 'x="97.00"' in bars[0]  # the mean's mark: 50 + 48 - 1
    c = sweep(tmp_path / "c", {0: 0.5, 1: 0.58, 2: 0.79}, rule="third")
    _, text, _ = report(tmp_path, a, b, c)
    assert "Of 2 comparisons with an interval, were all of methods" in text  # c with a and b
    assert "0.1 would be expected" in text


def test_too_few_seeds_are_said_to_be_too_few(tmp_path: Path) -> None:
    a = sweep(tmp_path / "a", {0: 0.5, 1: 0.5, 2: 0.5}, rule="x")
    b = sweep(tmp_path / "b", {1: 0.9, 2: 0.9, 3: 0.9}, rule="y")
    c = sweep(tmp_path / "c", {7: 0.9}, rule="z")
    methods = methods_of(find_runs([a, b, c]))
    words = [one.words for one in comparisons(methods) if one.measure == "student"]
    assert words == [
        "too few seeds for an interval (2 shared, 3 are needed)",
        "no seed shared",
        "no seed shared",
    ]


def test_more_than_six_methods_are_compared_with_the_first(tmp_path: Path) -> None:
    for n in range(7):
        sweep(tmp_path / str(n), {0: 0.5}, rule=n)
    methods = methods_of(find_runs([tmp_path]))
    compared = [one for one in comparisons(methods) if one.measure == "student"]
    assert {one.second for one in compared} == {"rule=0"}
    assert len(compared) == 6


# --- the page ---


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


def test_simulated_time_is_shown_where_a_run_has_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    result = json.loads((folder / "result.json").read_text()) | {"simulated_time_s": 7500.0}
    (folder / "result.json").write_text(json.dumps(result))
    _, text, twin = report(tmp_path, folder)
    assert table_of(twin, "run")[0][-1] == "2 h 5 min"
    assert '<th scope="col">simulated time</th>' in text
    lines = [line(n, 0.5, simulated_time_s=20.0 * n) for n in (1, 2)]
    live = write_run(tmp_path / "live", lines=lines, over=False)
    _, text, twin = report(tmp_path, live)
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


def test_a_run_without_a_server_has_peers_in_place_of_a_student(tmp_path: Path) -> None:
    lines = [line(n, 0.5, strategy={"edge_bytes": 5e5}) for n in (1, 2)]
    folder = write_run(tmp_path / "run", lines=lines, over=False)
    _, text, twin = report(tmp_path, folder)
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
    _, text, twin = report(tmp_path, folder)
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


# --- who drifts most ---


def with_clients(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a run whose table of clients has these rows."""
    pq.write_table(pa.Table.from_pylist(rows), write_run(folder) / "clients.parquet")
    return folder


def rows_of(measure: str, by_round: dict[int, dict[int, float | None]]) -> list[dict[str, Any]]:
    return [
        {"round": n, "client": client, "architecture": f"net{client % 2}", measure: value}
        for n, values in by_round.items()
        for client, value in values.items()
    ]


def drift_of(folder: Path, rows: list[dict[str, Any]]) -> list[Furthest]:
    run = read_run(with_clients(folder, rows))
    return furthest(client_tables(run, ["round", "client", "architecture", *MEASURES], []).clients)


def test_who_is_furthest_out_by_hand(tmp_path: Path) -> None:
    # Client 7 leads in rounds 2 and 4 and sits round 3 out; in rounds 3 and 5 are two clients only.
    rounds = {
        1: {1: 0.3, 4: 0.2, 7: 0.1},
        2: {1: 0.3, 4: 0.2, 7: 0.8},
        3: {1: 0.9, 4: 0.2},
        4: {1: 0.5, 4: 0.4, 7: 0.6},
        5: {4: 0.7, 7: 0.3, 9: None},
    }
    (found,) = drift_of(tmp_path / "run", rows_of("disagreement", rounds))
    assert (found.measure, found.client, found.architecture) == ("disagreement", 7, "net1")
    assert (found.value, found.following, found.median) == (0.6, 0.5, 0.5)
    assert (found.round, found.ranked, found.known, found.since) == (4, 3, 3, 2)
    assert found.often == Often(client=7, architecture="net1", led=2, ranked=3)
    assert sentence([found]) == "Client 7 (net1) is furthest out by 1 of 1 measure in round 4."


def test_values_of_different_rounds_are_not_compared(tmp_path: Path) -> None:
    """Client 0 was last asked in round 2, before anybody had learned: 0.9 is no drift by now."""
    rounds = {
        1: {0: 0.9, 1: 0.8, 2: 0.95},
        2: {0: 0.9, 3: 0.85, 4: 0.8},
        3: {1: 0.2, 2: 0.3, 4: 0.1},
        4: {1: 0.1, 2: 0.05, 3: 0.15},
    }
    (found,) = drift_of(tmp_path / "run", rows_of("disagreement", rounds))
    assert (found.client, found.value, found.following, found.median) == (3, 0.15, 0.1, 0.1)
    # Client 3 was beaten in round 2, the only other that it was in.
    assert (found.round, found.ranked, found.known, found.since) == (4, 3, 5, 4)
    assert found.often == Often(client=2, architecture="net0", led=2, ranked=3)
    _, text, twin = report(tmp_path, tmp_path / "run")
    assert table_of(twin, "measure | meaning")[0][2:] == [
        *("3 net1", "0.15", "0.1", "0.1", "4", "2 net0, 2 of 3")
    ]
    assert "is furthest out by 1 of 1 measure in round 4." in text
    assert "see who was furthest out most often" in text


def test_nobody_led_most_often_if_two_did_equally(tmp_path: Path) -> None:
    rounds = {1: {0: 0.9, 1: 0.8, 2: 0.7}, 2: {0: 0.8, 1: 0.9, 2: 0.7}}
    (found,) = drift_of(tmp_path / "a", rows_of("ece", rounds))
    assert (found.client, found.since, found.often) == (1, 2, None)
    more = rounds | {3: {0: 0.1, 2: 0.2, 3: 0.2}}  # tied; client 1 was in fewer rounds than 0
    (found,) = drift_of(tmp_path / "b", rows_of("ece", more))
    assert (found.client, found.since) == (None, None)
    assert found.often == Often(client=1, architecture="net1", led=1, ranked=2)


def test_of_some_measures_the_least_is_furthest_out(tmp_path: Path) -> None:
    rounds = {1: {0: 0.1, 1: -0.6, 2: 0.2, 3: -0.4}}
    (found,) = drift_of(tmp_path / "run", rows_of("cosine_to_mean", rounds))
    assert (found.client, found.value, found.following) == (1, -0.6, -0.4)
    assert found.median == pytest.approx(-0.15)


@pytest.mark.parametrize("values", [{0: 0.1, 1: 0.2}, {0: None, 1: 0.1, 2: 0.2}, {}])
def test_of_two_clients_nobody_is_furthest_out(
    tmp_path: Path, values: dict[int, float | None]
) -> None:
    assert drift_of(tmp_path / "run", rows_of("ece", {1: values})) == []
    _, text, twin = report(tmp_path, tmp_path / "run")
    for said in (text, twin):
        assert "Nobody can be named: in no round have three clients a measure of drift." in said


def test_ties_are_said(tmp_path: Path) -> None:
    values = {
        "ece": (0.2, 0.2, 0.1),
        "forgetting": (0.0, 0.0, 0.0),
        "disagreement": (0.1, 0.2, 0.3),
    }
    rows = [
        {"round": 1, "client": k, **{name: each[k] for name, each in values.items()}}
        for k in range(3)
    ]
    found = {one.measure: one for one in drift_of(tmp_path / "a", rows)}
    assert [found[name].client for name in values] == [None, None, 2]
    assert (found["ece"].value, found["ece"].following, found["ece"].since) == (0.2, 0.2, None)
    said = "Client 2 is furthest out by 1 of 3 measures in round 1; by 2 the first are alike."
    assert sentence([*found.values()]) == said
    assert (
        sentence([found["ece"], found["forgetting"]])
        == "Nobody is furthest out in round 1: the first are alike by all 2 measures."
    )
    _, _, twin = report(tmp_path, tmp_path / "a")
    cells = {row[0]: (row[2], row[-1]) for row in table_of(twin, "measure | meaning")}
    assert cells["ece"] == ("alike", "-")
    other = [row | {"overconfidence": -0.1 * row["client"]} for row in rows]
    equal = drift_of(tmp_path / "b", other)
    assert sentence(equal) == (
        "Client 2 and client 0 are furthest out by 1 of 4 measures each in round 1; by 2 the first "
        "are alike."
    )


def test_the_page_names_the_client_that_began_to_drift(tmp_path: Path) -> None:
    """Client 2 of 6 takes every class for the next one from round 5 on."""
    clients = drifting(6, corrupt=partial(permuted_labels, clients=[2], from_round=5))
    probes = (output_drift, calibration, recall_spread, teacher_audit, Forgetting())
    watched(tmp_path / "run", clients, 6, probes)
    _, text, markdown = report(tmp_path, tmp_path / "run")
    rows = table_of(markdown, "measure | meaning")
    assert len(rows) == 8
    assert {(row[2], row[-1]) for row in rows} == {("2 linear", "5")}
    assert "Client 2 (linear) is furthest out by 8 of 8 measures in round 6." in text
    assert "drift over rounds" in text
    events = EventAccumulator(str(tmp_path / "run" / "events"))
    events.Reload()
    most = [event.value for event in events.Scalars("clients/js_to_ensemble/max")]
    assert min(most[4:]) > 3 * max(most[:4])


# --- as a user runs it ---


def report_as_user(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return run_py("report", *args, cwd=cwd)


def test_a_real_run_that_was_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    words = ["+debug=fast", "sim=inline", "checkpoint_every=1"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        federate(compose("config", [*words, "rounds=1"]), folder)
        federate(compose("config", [*words, "rounds=3"]), folder, resume=True)
    done = report_as_user("run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"1 run: {folder / 'report.html'} and {folder / 'report.md'}\n"
    twin = (folder / "report.md").read_text()
    result = json.loads((folder / "result.json").read_text())
    assert table_of(twin, "method")[0][2:4] == [
        f"{100 * result['student_accuracy']:.2f}",
        f"{100 * result['ensemble_accuracy']:.2f}",
    ]
    assert table_of(twin, "run")[0][3] == "round 3 of 3"
    found = series_of(read_run(folder))
    assert list(found["student/accuracy"]) == [1, 2, 3]
    page = Page((folder / "report.html").read_text())
    assert len(page.marks("heat-map")) == 3  # accuracy, drift, private examples
    assert "p0-curve-2" in page.ids


def test_reporting_imports_no_heavy_dependency(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    code = (
        f"import sys, runpy; sys.argv = ['run.py', 'report', {str(folder)!r}]\n"
        "try: runpy.run_path('run.py', run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "print('HEAVY', sorted({'torch', 'ray', 'flwr', 'sklearn'} & set(sys.modules)))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert out.strip().endswith("HEAVY []")
    help_text = report_as_user("--help").stdout
    assert "a folder that holds run folders" in " ".join(help_text.split())
