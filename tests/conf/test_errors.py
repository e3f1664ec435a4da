"""What goes wrong becomes one line for the user, and an exit code."""

import errno
import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from conf.building import instantiate
from conf.error_lines import disk_explained, explained
from conf.errors import ConfigError, Stopped, tell


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (errno.ENOSPC, "error: runs/x: cannot be written: No space left on device\n"),
        (errno.EROFS, "error: runs/x: cannot be written: Read-only file system\n"),
        (
            errno.EACCES,
            "error: runs/x: cannot be used: Permission denied\n",
        ),  # a reader meets it too
        (errno.EIO, "error: runs/x: cannot be used: Input/output error\n"),
    ],
)
def test_a_disk_that_takes_no_more_is_one_line(
    code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Stopped) as stopped, disk_explained(Path("runs")):
        # a library's error that says nothing itself
        raise OSError("while writing") from OSError(code, os.strerror(code), "runs/x")
    assert (stopped.value.exit_code, capsys.readouterr().err) == (1, line)


def test_a_disk_without_a_name_for_the_file_names_the_folder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Stopped), disk_explained(Path("runs/y")):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert capsys.readouterr().err.startswith("error: runs/y: cannot be written")


def test_an_error_of_another_kind_is_left_alone() -> None:
    with pytest.raises(OSError, match="nobody there"), disk_explained(Path()):
        raise OSError(errno.ECONNREFUSED, "nobody there")


def full_at_the_end() -> None:
    try:
        with explained(ConfigError):
            raise ConfigError("no such key")
    finally:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_at_the_end_of_a_stopped_run_adds_no_second_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Stopped, match="no such key"), disk_explained(Path()):
        full_at_the_end()
    assert capsys.readouterr().err == "error: no such key\n"


@pytest.mark.parametrize("program", ["run.py", "/somewhere/bin/stillhouse"])
def test_a_hint_names_the_program_that_was_called(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [program])
    tell("go on with: python run.py resume=there")
    called = "python run.py" if program == "run.py" else "stillhouse"
    assert capsys.readouterr().err == f"error: go on with: {called} resume=there\n"


def test_a_value_that_is_not_set_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    node = OmegaConf.create({"clients": {"num_clients": "???"}})
    with pytest.raises(Stopped), explained(MissingMandatoryValue):
        instantiate(node)
    said = "clients.num_clients is not set: give clients.num_clients=..."
    assert capsys.readouterr().err == f"error: {said}\n"
