"""From what goes wrong before and between rounds to one line for the user."""

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import InstantiationException
from omegaconf.errors import OmegaConfBaseException

from conf.schema import ConfigError


class Stopped(Exception):
    """A run that cannot begin or go on; the message is for the user."""


BUILDING = (ConfigError, InstantiationException, OmegaConfBaseException, OSError, ValueError)
"""What wrong input raises before the first round. Whatever else is raised, there or later, is a
defect, of ours or of a rule that a user brought, and keeps its traceback."""


@contextmanager
def explained(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds into a message for the user.

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
        raise Stopped(str(cause)) from error
