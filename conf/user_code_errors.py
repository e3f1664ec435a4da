"""Where in a user's own code an error was raised, and which key of the config names that code."""

import re
import sys
import sysconfig
import traceback
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parent.parent
OURS = tuple(
    ROOT / each for each in ("clients", "strategies", "sim", "conf", "stillhouse", "run.py")
)
if ROOT.name == "house":  # of an installed package: stillhouse/house/
    OURS += (*ROOT.parent.glob("*.py"),)
LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))


def hidden(module: str) -> str:
    """Name a module of a user's that one of ours, or a library's, hides by its name; "" if none.

    Or recall where a user's are looked for, if there is no such module at all.

    Args:
        module: Dotted name of what was imported.

    Returns:
        A hint to stand at the end of an error.
    """
    name = module.partition(".")[0]
    found = sys.modules.get(name)
    places = getattr(found, "__file__", None), *getattr(found, "__path__", ())
    ours = [Path(place) for place in places if place]
    for folder in map(Path, sys.path):
        for path in (folder / f"{name}.py", folder / name / "__init__.py"):
            if ours and path.is_file() and _is_users(str(path)) and path not in ours:
                return f"; {path} is hidden by {ours[0]}: give it another name"
    if name.isidentifier() and found is None and find_spec(name) is None:
        return f"; the folder that holds {name}.py goes after --config-dir, before all words"
    return ""


def frames_of_user(error: BaseException) -> list[tuple[FrameType, int]]:
    """List the frames of an error's traceback that are in a user's files, outermost first.

    Args:
        error: What was raised; not what it was raised from, which somebody has put into words.

    Returns:
        Each frame with its line.
    """
    walked = traceback.walk_tb(error.__traceback__)
    return [(frame, line) for frame, line in walked if _is_users(frame.f_code.co_filename)]


def _is_users(name: str) -> bool:
    path = Path(name)
    elsewhere = (*LIBRARIES, *OURS, Path(sys.base_prefix))
    return path.is_file() and not any(path.is_relative_to(place) for place in elsewhere)


def written_places(text: str) -> list[tuple[str, int]]:
    """List file and line of what is a user's in a written traceback, outermost first."""
    found = re.findall('^ *File "(.*?)", line (\\d+)', text, re.MULTILINE)
    return [(file, int(line)) for file, line in found if _is_users(file)]


def without_ours(text: str) -> str:
    """Leave out of a written traceback what is not in a user's files; all stays if nothing is."""
    kept: list[str] = []
    theirs, any_theirs = True, False
    for line in text.splitlines():
        if place := re.match('  File "(.*?)", line ', line):
            theirs = _is_users(place[1])
            any_theirs |= theirs
        elif not line.startswith("    "):
            theirs = True
        if theirs:
            kept.append(line)
    return "\n".join(kept) if any_theirs else text


def place_in_user(error: BaseException) -> str:
    """Say in which line of a user's file an error was raised, in parentheses; "" if in none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    frames = frames_of_user(error)
    return f" ({frames[-1][0].f_code.co_filename}, line {frames[-1][1]})" if frames else ""
