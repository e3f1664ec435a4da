"""From what goes wrong before and between rounds to one line for the user."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import InstantiationException
from omegaconf.errors import OmegaConfBaseException


class ConfigError(ValueError):
    """A configuration that cannot be run; the message says what is wrong with which key."""


class Stopped(Exception):
    """A run that cannot begin or go on. The user has been told why."""


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
        raise Stopped(story) from error
