"""The report as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conf.command_line_errors import explain_command
from run import federate
from sim.report.command import main
from sim.report.page import MARK
from sim.report.reading import read_run
from sim.report.series import series_of
from tests.commands import run_py
from tests.composing import composed
from tests.places import ROOT
from tests.quick_runs import NO_FIGURES
from tests.run_folders import Page, table_of, write_run

# --- reading ---


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


def test_a_misspelt_conformance_has_a_hint() -> None:
    hint = explain_command(["conformnce", "scorer", "mine.best"])
    assert hint is not None
    assert "python run.py conformance KIND MODULE.NAME" in hint


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
    page, twin = (tmp_path / "sweep" / f"report.{kind}" for kind in ("html", "md"))
    assert page.exists()
    written = f"2 runs: {page} and {twin}\n"
    assert capsys.readouterr().out == written


# --- as a user runs it ---


def report_as_user(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return run_py("report", *args, cwd=cwd)


def test_a_real_run_that_was_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    words = ["debug=fast", "sim=inline", "checkpoint_every=1", NO_FIGURES]
    federate(composed(*words, "rounds=1"), folder)
    federate(composed(*words, "rounds=3"), folder, resume=True)
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
