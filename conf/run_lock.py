"""Who may write into a run folder: one run at a time."""

import fcntl
import os
import shutil
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from conf.errors import ConfigError

LOCK = "lock"
"""Name of the file that a run holds locked in its folder while it lasts."""

_held: dict[Path, int] = {}
"""Folders that this process has, and the open lock files: a second lock would be refused too."""

_made: dict[Path, list[Path]] = {}
"""Folders that were made for a run's, itself first."""


def claim(folder: Path, begun: bool = False) -> None:
    """Take a run folder for this process, until `release` or its end, however it ends.

    Args:
        folder: Made if it is not there.
        begun: Whether it is that of a run to go on with; else it must not hold one.

    Raises:
        ConfigError: Another run has it, or had it; says which, or how to go on with that.
        OSError: It cannot be written to.
    """
    if folder in _held:
        return
    _made[folder] = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    while True:
        # No link is followed: whoever made the folder must not choose what file is written to.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(path, handle):  # else its run ended meanwhile and took the file away
                break
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "of an unknown name"
            os.close(handle)
            raise ConfigError(f"{folder}: another run uses it, {holder}; wait, or end it") from None
        except OSError:  # a file system without locks
            break
        os.close(handle)
    os.truncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    _held[folder] = handle
    if not begun and (folder / "config.yaml").exists():
        release(folder)
        on = f", or go on with that run by resume={folder}"
        if not (folder / "checkpoint").exists():
            on = "; that one kept no checkpoint"
        raise ConfigError(f"hydra.run.dir={folder}: already holds a run; name another folder{on}")


def has(folder: Path) -> bool:
    """Tell whether this process has a run folder."""
    return folder in _held


def release(folder: Path) -> None:
    """Give a run folder free, if this process has it."""
    if (handle := _held.pop(folder, None)) is not None:
        if _is(folder / LOCK, handle):
            (folder / LOCK).unlink()
        os.close(handle)


def leave_nothing(folder: Path) -> None:
    """Take away what there is of a run that never began: Hydra's `.hydra`, and folders made for it.

    Args:
        folder: Of the run; one that holds anything else stays as it is, like one that was there.
    """
    made = _made.pop(folder.resolve(), [])
    if {path.name for path in folder.glob("*")} <= {".hydra"}:
        shutil.rmtree(folder / ".hydra", ignore_errors=True)
        for empty in made:  # it, and that of a day
            with suppress(OSError):
                empty.rmdir()


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


class ClaimFirst(Callback):
    """Has Hydra ask for the run folder before it writes into it."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Take the folder of a run that begins, or end the program and say why not.

        Before Hydra writes what a run was told into `.hydra/`, over what another one was told. A
        run that is gone on with is told so in a folder of its own, which holds no run either.
        """
        folder = Path(config.hydra.run.dir)
        _claim_or_end("hydra.run.dir", folder)
        if config.resume is not None:
            release(folder.resolve())

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """See that the folder of a sweep can be made and written to."""
        folder = Path(config.hydra.sweep.dir)
        _claim_or_end("hydra.sweep.dir", folder)
        release(folder.resolve())


def _claim_or_end(key: str, folder: Path) -> None:
    try:
        claim(folder.resolve())
    except ConfigError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {key}={folder}: cannot be made, or written to: {error.strerror}")
