"""Files that are on the disk, in whole, when they have their names."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

UNFINISHED = ".tmp"
AT_ONCE = 16


def open_new(path: Path) -> Any:
    """Open a file of this name for writing, in place of what was there, a link included."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")


def write_unfinished(path: Path, content: bytes) -> None:
    """Write a file under a name that says that it is not to be read yet; `finish` names it."""
    with open_new(unfinished(path)) as file:
        file.write(content)


def finish(paths: Sequence[Path], also: Iterable[Path] = ()) -> None:
    """Have files on the disk itself, in whole, and only then give them their names.

    In several threads, because the file system then waits for the disk once and not for each file:
    100 files take 0.06 s, one after the other 0.4 s.

    Args:
        paths: Files that were written unfinished.
        also: Other files and folders to have on the disk before that.
    """
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(_sync, [*map(unfinished, paths), *also]))
    for path in paths:
        unfinished(path).replace(path)
    for folder in sorted({path.parent for path in paths}):
        _sync(folder)


def unfinished(path: Path) -> Path:
    """Return the name that a file has until it is finished."""
    return path.with_name(path.name + UNFINISHED)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
