"""How fast methods learn and what their accuracy costs; jobs that failed; names from words."""

import json
from pathlib import Path

import pytest

from sim.report.command import main
from sim.report.learning_speed import progress_of, progress_table
from sim.report.methods import methods_of
from sim.report.reading import find_runs
from tests.run_folders import line, report, table_of, told, write_run


def test_progress_by_hand() -> None:
    """0.5, 0.9, 0.7 of 2 MB and 1 MB and 1 MB, in 3 s, 5 s and 2 s."""
    found = {
        "student/accuracy": {1: 0.5, 2: 0.9, 3: 0.7},
        "bytes/request": {1: 1e6, 2: 0.0, 3: 1e6},
        "bytes/reply": {1: 1e6, 2: 1e6, 3: 0.0},
        "simulated_time_s": {1: 3.0, 2: 5.0, 3: 2.0},
    }
    got = progress_of(found, target=0.6)
    assert got is not None
    assert (got.whose, got.best, got.best_round, got.reached) == ("student", 90.0, 2, 2)
    assert got.smoothed == pytest.approx(0.9 * (0.9 * 50 + 0.1 * 90) + 0.1 * 70)
    assert got.per_megabyte == pytest.approx(70 / 4)
    assert got.per_second == pytest.approx(7)
    none = progress_of({"student/accuracy": {1: 0.5, 2: 0.5}}, target=0.6)
    assert none is not None
    assert (none.best_round, none.reached) == (1, None)
    assert none.per_megabyte is none.per_second is None
    assert progress_of({"clients/loss/mean": {1: 0.5}}, target=None) is None


def test_seeds_that_do_not_reach_the_target_are_counted(tmp_path: Path) -> None:
    """Students end at 0.5 and 0.7, after rounds 0.1 and 0.2 below."""
    for seed, end in enumerate((0.5, 0.7, 0.7)):
        write_run(tmp_path / "s" / str(seed), seed, end)
    methods = methods_of(find_runs([tmp_path / "s"]))
    (row,) = progress_table(methods, 0.6).rows
    table = dict(zip(progress_table(methods, 0.6).head, row, strict=True))
    assert table["rounds to 60 %"] == "2.0 ± 0.0 (n=2)"
    assert table["best"] == "63.33 ± 11.55"
    assert float(table["points per megabyte"].split()[0]) == pytest.approx(63.33 / 0.012, abs=1)
    never = progress_table(methods, 0.9)
    assert never.rows[0][never.head.index("rounds to 90 %")] == "-"
    assert "rounds to" not in " ".join(progress_table(methods).head)


def test_the_report_has_the_table_and_what_failed(tmp_path: Path) -> None:
    write_run(tmp_path / "s" / "0", 0, 0.5)
    (tmp_path / "s" / "1").mkdir()
    told = {"overrides": ["strategy=fedavg", "seed=1"], "reason": "set <clients=same>"}
    (tmp_path / "s" / "1" / "FAILED").write_text(json.dumps(told))
    page, text, markdown = report(tmp_path, tmp_path / "s")
    assert table_of(markdown, "method | whose")[0][1] == "student"
    assert "1 missing: it failed." in markdown
    assert "strategy=fedavg seed=1: set &lt;clients=same&gt;" in text
    assert "progress-table" in page.ids
    for odd in (lambda path: path.write_text("[]"), lambda path: path.symlink_to("/dev/zero")):
        (tmp_path / "s" / "1" / "FAILED").unlink()
        odd(tmp_path / "s" / "1" / "FAILED")
        assert main([str(tmp_path / "s"), "--out", str(tmp_path / "report.html")]) == 1
    (tmp_path / "s" / "1" / "result.json").write_text("{}")  # it was run since
    assert "missing" not in report(tmp_path, tmp_path / "s" / "0")[2]


def test_a_target_is_a_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(write_run(tmp_path / "r")), "--target", "60"])
    assert "60: expected in (0, 1]" in capsys.readouterr().err


def begun_by(folder: Path, *words: str) -> None:
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {word}\n" for word in words))


def test_methods_are_named_by_the_words_that_differ(tmp_path: Path) -> None:
    for n, (name, seed) in enumerate([("dlad", 0), ("dlad", 1), ("dsfl", 0)]):
        target = {"_target_": f"strategies.{name}", "temperature": n // 2}
        folder = write_run(tmp_path / str(n), seed, config={"strategy": target})
        begun_by(folder, f"strategy={name}", f"seed={seed}", "rounds=3", "sim=inline")
    found = methods_of(find_runs([tmp_path]))
    assert [(m.name, len(m.runs)) for m in found] == [("dlad", 2), ("dsfl", 1)]
    plain = write_run(tmp_path / "3", 0, config={"strategy": {"_target_": "strategies.x"}})
    begun_by(plain, "rounds=3")
    names = [m.name for m in methods_of(find_runs([tmp_path]))]
    assert names == ["strategy=dlad", "strategy=dsfl", "nothing chosen"]
    kept = {"hydra": {"runtime": {"choices": {"strategy": "feddf", "data": None, "odd": {}}}}}
    (plain / ".hydra" / "hydra.yaml").write_text(json.dumps(kept))
    assert [m.name for m in methods_of(find_runs([tmp_path]))] == ["dlad", "dsfl", "feddf"]
    assert [m.name for m in methods_of(find_runs([plain]))] == ["feddf"]


def test_words_that_do_not_tell_methods_apart_do_not_name_them(tmp_path: Path) -> None:
    for n in range(2):
        begun_by(write_run(tmp_path / str(n), 0, config={"lr": n}), "strategy=dlad")
    assert [m.name for m in methods_of(find_runs([tmp_path]))] == ["lr=0", "lr=1"]


def test_rounds_in_which_nothing_was_measured_are_left_out(tmp_path: Path) -> None:
    lines = [line(1, 0.4), line(2, 0.6) | {"student": {}}]
    methods = methods_of(find_runs([write_run(tmp_path / "r", lines=lines)]))
    (row,) = progress_table(methods).rows
    assert row[2:4] == ["40.00", "1"]


def test_what_probes_find_on_own_classes_and_the_oracle_are_columns(tmp_path: Path) -> None:
    clients = {"own_accuracy": {"mean": 0.8, "min": 0.6}}
    lines = [line(1, 0.4) | {"probes": {"oracle_right": 0.9}, "clients": clients}]
    _, markdown = told(tmp_path, write_run(tmp_path / "r", lines=lines))
    head = "| mean on own classes | worst on own classes | oracle of teachers |"
    assert head in markdown
    assert table_of(markdown, "method | seeds")[0][-3:] == ["80.00", "60.00", "90.00"]
