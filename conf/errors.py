"""From what goes wrong before and between rounds to one line for the user."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import InstantiationException
from omegaconf.errors import OmegaConfBaseException


class ConfigError(ValueError):
    """A configuration that cannot be run; the message says what is wrong with which key."""


class Stopped(Exception):
    """A run that cannot begin or go on. The user has been told why.

    Attributes:
        exit_code: Of the program; `docs/run_folder.md` lists them.
    """

    def __init__(self, story: str, exit_code: int = 1) -> None:
        """Keep what the user was told.

        Args:
            story: Why.
            exit_code: Of the program.
        """
        super().__init__(story)
        self.exit_code = exit_code


BUILDING = (ConfigError, InstantiationException, OmegaConfBaseException, OSError, ValueError)
"""What wrong input raises before the first round. Whatever else is raised, there or later, is a
defect, of ours or of a rule that a user brought, and keeps its traceback."""


@contextmanager
def explained(*kinds: type[Exception]) -> Iterator[None]:
    """Tell the user about errors of these kinds, at once: what is to be closed may take seconds.

    Args:
        *kinds: Which errors say all that there is to say.

    Yields:
        Nothing.

    Raises:
        Stopped: Instead of the error, with its message.
    """
    try:
        yield
    except kinds as error:
        cause: BaseException = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if not isinstance(cause, (*kinds, TypeError)):
            raise
        story = str(cause)
        if isinstance(cause, TypeError):  # arguments that do not fit: of which key?
            key = str(error).partition("full_key: ")[2]
            story = f"{key}: {story}" + "; is `_partial_: true` missing?" * ("missing" in story)
        print(f"error: {story}", file=sys.stderr, flush=True)
        raise Stopped(story, getattr(cause, "exit_code", 1)) from error


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""What a disk says that takes no more."""

REFUSED = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EIO, errno.ESTALE}
"""What it says to whoever reads, too."""


@contextmanager
def disk_explained(folder: Path) -> Iterator[None]:
    """Tell the user about a disk that takes no more, or refuses.

    Args:
        folder: What was written to, if the error does not say.

    Yields:
        Nothing.

    Raises:
        Stopped: Instead of the error.
    """
    try:
        yield
    except OSError as error:
        cause: BaseException | None = error
        while isinstance(cause, OSError) and cause.errno is None:
            cause = cause.__cause__
        if not isinstance(cause, OSError) or cause.errno not in FULL | REFUSED:
            raise
        if isinstance(error.__context__, Stopped):  # as it closed: the user has been told why
            raise error.__context__ from error
        fault = "cannot be written" if cause.errno in FULL else "cannot be used"
        story = f"{cause.filename or folder}: {fault}: {cause.strerror}"
        print(f"error: {story}", file=sys.stderr, flush=True)
        raise Stopped(story) from error
