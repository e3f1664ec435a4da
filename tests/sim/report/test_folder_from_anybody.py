"""The report of a run folder from anybody."""

from pathlib import Path

import pytest

from sim.report.command import main as report
from tests.run_folders import write_run


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "clients.parquet", "result.json"])
def test_a_report_reads_through_no_link(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "run")
    (folder / name).rename(tmp_path / "precious")
    (folder / name).symlink_to(tmp_path / "precious")
    assert report([str(folder)]) == 1
    assert f"{folder}/{name}: expected a plain file, found a link" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_a_report_is_written_through_no_link(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "run")
    (folder / name).symlink_to(tmp_path / "absent")
    assert report([str(folder)]) == 1
    assert f"{folder}/{name}: a link, which is not written through" in capsys.readouterr().err
    assert not (tmp_path / "absent").exists()


def test_a_config_that_swells_is_not_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "config.yaml").write_text("a: &a {b: 1}\nc: *a\n")
    assert report([str(folder)]) == 1
    assert "config.yaml: no YAML: aliases" in capsys.readouterr().err
