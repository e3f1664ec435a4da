"""How answers travel: logits as float32, as float16, or in 8 bits with an offset and step per row.

For N inputs and C classes the payload is 4 N C, 2 N C or N C + 8 N bytes, beside Flower's 128 bytes
of header per array.
"""

from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from clients.models.factory import Parameters

ANSWERS = ("float32", "float16", "uint8")
LARGEST_FLOAT16 = 65504.0
LEVELS = 255
"""Steps between the least and the largest logit of a row in 8 bits."""


def encode(logits: npt.NDArray[np.float32], answers: str) -> Parameters:
    """Turn logits into the arrays that are sent.

    Args:
        logits: [N, C]; what is not finite stays so, for the receiver to reject.
        answers: One of `ANSWERS`. float16 clips to +-65504; uint8 rounds each logit to the nearest
            of 256 evenly spaced values from its row's least to its largest, an error of at most
            half a step.

    Returns:
        `logits` [N, C], or `codes` [N, C] uint8 and `ranges` [N, 2] float32, offset and step.

    Raises:
        ValueError: `answers` is none of these.
    """
    if answers == "float32":
        return {"logits": logits}
    if answers == "float16":
        clipped = np.clip(logits, -LARGEST_FLOAT16, LARGEST_FLOAT16)
        return {"logits": np.where(np.isfinite(logits), clipped, logits).astype(np.float16)}
    if answers != "uint8":
        raise ValueError(f"answers={answers!r}: expected one of {', '.join(ANSWERS)}")
    least, largest = logits.min(-1), logits.max(-1)
    # A row that is not finite, or too wide, has such a range: the receiver rejects it.
    with np.errstate(invalid="ignore", over="ignore"):
        step = (largest - least) / np.float32(LEVELS)
        scaled = (logits - least[:, None]) / np.where(step > 0, step, 1)[:, None]
        codes = np.nan_to_num(scaled).round().clip(0, LEVELS).astype(np.uint8)
    return {"codes": codes, "ranges": np.stack([least, step], axis=-1)}


def decode(arrays: Parameters, rows: slice | npt.NDArray[np.int64] | EllipsisType = ...) -> Tensor:
    """Turn what was sent back into logits.

    Args:
        arrays: As `encode` gave them; arrays without write access are welcome.
        rows: Which inputs, all unless told otherwise.

    Returns:
        Logits [n, C] float32. Where float32 was sent and the rows are a slice, it shares memory
        with `arrays` and must not be written to.
    """
    if "codes" not in arrays:
        return tensor_over(arrays["logits"][rows]).float()
    ranges = tensor_over(arrays["ranges"][rows])
    codes = tensor_over(arrays["codes"][rows]).float()
    return codes.mul_(ranges[:, 1:]).add_(ranges[:, :1])


def expected_arrays(
    answers: str, num_inputs: int, num_classes: int
) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
    """Return shape and dtype of each array that `encode` gives, by name."""
    shape = (num_inputs, num_classes)
    if answers == "uint8":
        return {"codes": (shape, np.uint8), "ranges": ((num_inputs, 2), np.float32)}
    return {"logits": (shape, np.float16 if answers == "float16" else np.float32)}


def largest_logit(arrays: Parameters) -> float:
    """Return the largest size that a decoded logit can have; infinite or NaN if one is not finite.

    Args:
        arrays: As `expected_arrays` describes them.

    Returns:
        A bound on the size of every logit; for floats it is reached.
    """
    if "codes" not in arrays:
        # Not abs: on millions of answers its copy takes six times as long.
        return float(max(arrays["logits"].max(), -arrays["logits"].min()))
    offset, step = arrays["ranges"].astype(np.float64).T
    return float((np.abs(offset) + LEVELS * np.abs(step)).max())


def tensor_over(array: npt.NDArray[Any]) -> Tensor:
    """Return a tensor over an array's memory; not to be written to if the array is not.

    Unlike `torch.from_numpy` it does not warn of arrays over a message's bytes.
    """
    return from_dlpack(array)
