"""What goes wrong becomes one line for the user, and an exit code."""

import errno
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from conf.building import instantiate
from conf.error_lines import disk_explained, explained, raised_by_user
from conf.errors import ConfigError, Stopped, tell
from conf.schema import check_targets
from conf.unsupported_strategies import check_strategy


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


class Mine:
    """A user's strategy that wants a number of its own."""

    def __init__(self, *, seed: int, learning_rate: float) -> None: ...


def test_an_argument_that_nobody_gives_a_users_class_is_named() -> None:
    """It was said to be a defect, not of the config."""
    node = {"_target_": f"{__name__}.Mine", "_partial_": True}
    with pytest.raises(TypeError) as raised:
        Mine(seed=1)  # type: ignore[call-arg]
    said = raised_by_user(raised.value.with_traceback(None), OmegaConf.create({"strategy": node}))
    assert said.startswith(f"strategy={__name__}.Mine: ")
    assert "'learning_rate'; give strategy.learning_rate=..." in said


@pytest.mark.parametrize(
    ("key", "value", "fits"),
    [
        ("train_metrics_aggr_fn", "foo", False),
        ("train_metrics_aggr_fn", 3, False),
        ("train_metrics_aggr_fn", None, True),
        ("train_metrics_aggr_fn", {"_target_": "builtins.len", "_partial_": True}, True),
        ("fraction_train", "much", False),
        ("fraction_train", 1, True),
    ],
)
def test_values_of_flowers_arguments_are_of_their_types(key: str, value: Any, fits: bool) -> None:
    node = {"_target_": "flwr.serverapp.strategy.FedAvg", key: value}
    config = OmegaConf.create({"strategy": node})
    with nullcontext() if fits else pytest.raises(ConfigError, match=rf"^strategy\.{key}="):
        check_targets(config)


def test_what_no_client_of_ours_does_is_said_before_keys_that_do_not_fit() -> None:
    """FedXgbCyclic takes other keys than FedAvg: it named these first."""
    target = "flwr.serverapp.strategy.FedXgbCyclic"
    config = OmegaConf.create({"strategy": {"_target_": target, "min_train_nodes": 2}})
    with pytest.raises(ConfigError, match="needs clients that grow boosted trees"):
        check_strategy(config)


def test_a_value_that_is_not_set_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    node = OmegaConf.create({"clients": {"num_clients": "???"}})
    with pytest.raises(Stopped), explained(MissingMandatoryValue):
        instantiate(node)
    said = "clients.num_clients is not set: give clients.num_clients=..."
    assert capsys.readouterr().err == f"error: {said}\n"
