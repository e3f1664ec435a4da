"""The one place that opens a pickle: CIFAR is published as nothing else.

A pickle can name any importable function and have it called. Here it may name three things of
numpy, so a forged file is refused before anything of it runs.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

# numpy hides the function that rebuilds an array in a module whose name changed with version 2;
# an array's own reduction hands it out under either.
_RECONSTRUCT = np.zeros(0).__reduce__()[0]

# All that CIFAR's python-2 pickles name, and numpy 2's spelling for files written since.
# `_codecs.encode` is not needed: python 2 wrote its strings as bytes.
ALLOWED_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class ForeignGlobalError(ValueError):
    """A pickle asked for something that no array of numbers needs."""


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Look the name up in a fixed table; nothing is ever imported on a file's word."""
        try:
            return ALLOWED_GLOBALS[module, name]
        except KeyError:
            raise ForeignGlobalError(f"{module}.{name}") from None


def read_pickled_dict(path: Path) -> dict[str, Any]:
    """Read a pickled dict of lists, strings and numpy arrays, python 2's included.

    Args:
        path: an existing file.

    Returns:
        The dict, its byte strings decoded as latin-1 (python 2's keys are byte strings).

    Raises:
        ValueError: the file names a foreign global, is corrupt or holds no dict.
    """
    file = io.BytesIO(path.read_bytes())  # outside the try: an unreadable disk is no corrupt pickle
    try:
        content = _ArrayUnpickler(file, encoding="latin1").load()
    except ForeignGlobalError as error:
        raise ValueError(
            f"{path}: the pickle asks for {error}, which no CIFAR batch needs; it was refused "
            "and not run. Only numpy arrays are allowed: get the file again from its origin"
        ) from None
    except Exception as error:  # a forged or cut opcode can raise nearly anything
        raise ValueError(
            f"{path}: corrupt pickle, expected a CIFAR batch: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a pickled dict, found {type(content).__name__}")
    return content
