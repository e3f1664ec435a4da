"""The program's name: how somebody who reads a line of ours begins it again."""

import shlex
import sys
from pathlib import Path


def program() -> str:
    """Return the command that this process was begun by, as a shell takes it from anywhere."""
    begun = sys.argv[0]  # from another folder run.py is not there
    return f"python {shlex.quote(begun)}" if Path(begun).name == "run.py" else "stillhouse"
