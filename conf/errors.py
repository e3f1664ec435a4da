"""Errors that end a run, and the one printer of them.

What turns others into one line for the user: `error_lines.py`.
"""

import os
import shlex
import sys
import traceback
from pathlib import Path

from conf.user_code_errors import without_ours

WHOLE = os.environ.get("HYDRA_FULL_ERROR") == "1"
"""Whether the user wants the whole traceback of all that goes wrong."""


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


def tell(story: str, error: BaseException | None = None) -> None:
    """Print what went wrong, as the last line on stderr; the only place where that is done.

    Args:
        story: One line; after it there may be a traceback, which is printed first.
        error: Its traceback comes before, if the user wants to see it.
    """
    if WHOLE and error is not None:
        traceback.print_exception(error)
    begun = Path(sys.argv[0])
    if begun.name == "stillhouse":  # the installed command
        story = story.replace("python run.py", "stillhouse")
    elif begun.name == "run.py" and begun.parent != Path():  # it is not where one stands
        story = story.replace("python run.py", f"python {shlex.quote(str(begun))}")
    line, _, written = story.partition("\n")
    if written:
        print(written.rstrip() if WHOLE else without_ours(written), file=sys.stderr)
    print(f"error: {line}", file=sys.stderr, flush=True)
