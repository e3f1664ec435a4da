"""What a report says first, and its tables as files."""

import csv
from pathlib import Path

import pytest

from sim.report.command import main
from sim.report.exports import latex
from sim.report.methods import methods_of
from sim.report.page import tables_of
from sim.report.reading import find_runs
from sim.report.tables import Table
from tests.run_folders import line, report, sweep, told, write_run


def said(tmp_path: Path, *folders: Path) -> list[str]:
    """The findings of the Markdown twin, which come before the first heading of a section."""
    _, twin = told(tmp_path, *folders)
    return [one[2:] for one in twin.split("\n## ")[0].splitlines() if one.startswith("* ")]


def test_a_student_is_held_against_its_teachers(tmp_path: Path) -> None:
    lines = [line(1, 0.2, probes={"student_ece": 0.25, "ensemble_ece": 0.04})]
    folder = write_run(tmp_path / "run", student=0.4, lines=lines)
    first, second = said(tmp_path, folder)
    assert first == "The student is at 40.0 %, 10.0 points below the best client (50.0 %)."
    assert (
        second == "Confidence is far from accuracy: the student by 25.0 points (calibration error)."
    )


def test_the_best_of_several_is_named_and_each_is_told_of(tmp_path: Path) -> None:
    for name, student in (("a", 0.5), ("b", 0.7)):
        config = {"strategy": {"temperature": name}}
        write_run(tmp_path / "sweep" / name, student=student, config=config)
    found = said(tmp_path, tmp_path / "sweep")
    assert found[0].startswith("The best mean student is that of ")
    assert "b, 70.0 %; a difference to 0 of the 1 that it is compared with is found." in found[0]
    assert "20.0 points above the best client (50.0 %)" in found[2]


def test_what_was_lost_is_told(tmp_path: Path) -> None:
    lines = [line(1, 0.5, failures=2)]
    folder = write_run(tmp_path / "run", lines=lines)
    reason = '{"round": 1, "client": 0, "failure": "ValueError: odd"}\n'
    (folder / "failures.jsonl").write_text(2 * reason)
    last = said(tmp_path, folder)[-1]
    assert last == (
        "2 replies of clients could not be used, most often for this reason (2): ValueError: odd."
    )


def test_runs_of_one_round_have_dots(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / "sweep" / str(seed), seed, 0.5 + seed / 10, lines=[line(1, 0.5)])
    page, text, _ = report(tmp_path, tmp_path / "sweep")
    assert page.marks("dots") == [f"p0-dots-{n}" for n in range(4)]  # student, best, mean, worst
    assert not page.marks("curve")
    assert "a dot is a seed" in text
    write_run(tmp_path / "sweep" / "3", 3)  # has three rounds
    page, _, _ = report(tmp_path, tmp_path / "sweep")
    assert page.marks("curve")


def test_the_command_comes_first(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("- strategy=dlad\n- clients.num_clients=5\n")
    text, twin = told(tmp_path, folder)
    assert "strategy=dlad clients.num_clients=5" in twin.split("\n## ")[0]
    assert "<code>strategy=dlad clients.num_clients=5</code>" in text


def test_tables_are_written_for_spreadsheets_and_papers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(2):
        write_run(tmp_path / "sweep" / str(seed), seed, 0.5 + seed / 10)
    assert main([str(tmp_path / "sweep"), "--tables", str(tmp_path / "paper")]) == 0
    assert f"6 tables: {tmp_path / 'paper'}" in capsys.readouterr().out
    assert (tmp_path / "sweep" / "report.html").is_file()
    with (tmp_path / "paper" / "final.csv").open() as file:
        head, row = csv.reader(file)
    assert head[:4] == ["method", "seeds", "student", "student ±"]
    assert row[1:4] == ["2", "55.00", "7.07"]
    text = (tmp_path / "paper" / "final.tex").read_text()
    assert r"55.00 $\pm$ 7.07" in text
    names = {path.name for path in (tmp_path / "paper").iterdir()}
    assert names == {
        f"{n}.{kind}" for n in ("final", "progress", "runs") for kind in ("csv", "tex")
    }
    (tmp_path / "paper" / "final.tex").unlink()
    (tmp_path / "paper" / "final.tex").symlink_to(tmp_path / "elsewhere")
    assert main([str(tmp_path / "sweep"), "--tables", str(tmp_path / "paper")]) == 1
    assert "final.tex: a link" in capsys.readouterr().err


def test_what_latex_would_take_for_something_else_is_escaped() -> None:
    text = latex(Table(["a_b", "50 %"], [["x & y", "{~^\\}"]]))
    assert r"a\_b & 50 \% \tabularnewline" in text
    row = r"x \& y & \{\textasciitilde{}\textasciicircum{}\textbackslash{}\} \tabularnewline"
    assert row in text


def test_differences_are_a_table_too(tmp_path: Path) -> None:
    sweep(tmp_path / "a", {0: 0.5, 1: 0.6, 2: 0.55}, rate=1)
    sweep(tmp_path / "b", {0: 0.6, 1: 0.7, 2: 0.65}, rate=2)
    runs = find_runs([tmp_path / "a", tmp_path / "b"])
    found = tables_of(runs)["differences"]
    assert len(methods_of(runs)) > 1
    assert found.head[:3] == ["measure", "first", "second"]
    assert len(found.rows) > 0


def test_means_of_unlike_seeds_name_no_best(tmp_path: Path) -> None:
    sweep(tmp_path / "a", {0: 0.9}, rate=1)
    sweep(tmp_path / "b", {0: 0.9, 1: 0.1}, rate=2)
    assert not [one for one in said(tmp_path, tmp_path / "a", tmp_path / "b") if "best mean" in one]


def test_a_found_difference_is_counted(tmp_path: Path) -> None:
    sweep(tmp_path / "a", {0: 0.5, 1: 0.51, 2: 0.52}, rate=1)
    sweep(tmp_path / "b", {0: 0.7, 1: 0.712, 2: 0.719}, rate=2)
    first, *_ = said(tmp_path, tmp_path / "a", tmp_path / "b")
    assert "a difference to 1 of the 1 that it is compared with is found" in first
