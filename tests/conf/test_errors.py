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
from conf.error_lines import BUILDING, disk_explained, explained, raised_by_user
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

    def __init__(self, *, seed: int, learning_rate: float, decay: float) -> None: ...


def test_an_argument_that_nobody_gives_a_users_class_is_named() -> None:
    """It was said to be a defect, not of the config."""
    node = {"_target_": f"{__name__}.Mine", "_partial_": True}
    with pytest.raises(TypeError) as raised:
        Mine(seed=1)  # type: ignore[call-arg]
    said = raised_by_user(raised.value.with_traceback(None), OmegaConf.create({"strategy": node}))
    assert said.startswith(f"strategy={__name__}.Mine: ")
    assert "give strategy.learning_rate=... strategy.decay=..., if they are yours" in said


def test_all_that_is_not_set_is_named_at_once() -> None:
    node = {"_target_": f"{__name__}.Mine", "seed": "???", "learning_rate": "???", "decay": 1}
    both = r"strategy\.seed is not set: give strategy\.seed=\.\.\. strategy\.learning_rate=\.\.\.$"
    with pytest.raises(ConfigError, match=both):
        check_targets(OmegaConf.create({"strategy": node}))


def cut(num_clients: int, share: float = 0.5) -> None:
    raise ValueError("share=2: too much" if share > 1 else f"num_clients={num_clients}: too many")


class Cutter:
    """A target that is a class."""

    def __init__(self, most: int) -> None:
        raise ValueError(f"most={most}: expected less")


@pytest.mark.parametrize(
    ("target", "given", "line"),
    [
        (cut, {"share": 2}, "partition.share=2: too much"),
        (cut, {}, "partition: num_clients=3: too many"),
        (Cutter, {"most": 3}, "partition.most=3: expected less"),
    ],
)
def test_an_argument_is_refused_with_its_key(
    target: Any,
    given: dict[str, Any],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It was named alone, as if it were a key, or one of another section."""
    node = {"_target_": f"{__name__}.{target.__name__}", "_partial_": target is cut, **given}
    config = OmegaConf.create({"partition": node})
    monkeypatch.setattr(
        "conf.error_lines.raised_by_user", lambda *what: ""
    )  # as if it were shipped
    with pytest.raises(Stopped), explained(*BUILDING, config=config):
        instantiate(config.partition)(num_clients=3)
    assert capsys.readouterr().err == f"error: {line}\n"


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
