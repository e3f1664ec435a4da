"""What a report reads: runs that live or died, and damaged files."""

import json
from pathlib import Path

import pytest

from sim.report.command import main
from sim.report.reading import find_runs, natural, read_run
from sim.report.reading_client_tables import client_tables
from sim.tracking import run_folder
from tests.run_folders import line, report, table_of, write_run


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
