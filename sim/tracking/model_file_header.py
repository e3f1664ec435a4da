"""What a file of parameters says of its network and its inputs, so that it can be used anywhere.

One JSON text under one key of the safetensors header: several keys come in any order there, and the
same run is to leave the same bytes.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from clients.data import Dataset
from sim.tracking.run_folder import versions

KEY = "stillhouse"

Description = dict[str, Any]
"""`architecture` (`_target_` and numbers), `input_shape`, `output_shape`, `num_tokens` (null =
none), `classes` (as the data's file calls them), `scale`, `mean`, `std`, `versions`."""


def describe(architecture: Mapping[str, Any], dataset: Dataset) -> Description:
    """Say what a network is, and what it is to be given.

    Args:
        architecture: The config's node that makes it.
        dataset: What it was measured on.

    Returns:
        The description.
    """
    task = dataset.task
    names = range(task.num_classes) if dataset.label_values is None else dataset.label_values
    return {
        "architecture": dict(architecture),
        "input_shape": list(task.input_shape),
        "output_shape": list(task.output_shape),
        "num_tokens": task.num_tokens,
        "classes": [str(name) for name in names] if task.soft else None,
        "scale": float(dataset.scale),
        "mean": [float(value) for value in dataset.mean],
        "std": [float(value) for value in dataset.std],
        "versions": versions(),
    }


def header(description: Description) -> dict[str, str]:
    """Write a description as safetensors keeps it."""
    return {KEY: json.dumps(description, sort_keys=True)}


def read_description(path: Path) -> Description:
    """Read what a file of parameters says of its network: data, which anyone may have written.

    Args:
        path: The file.

    Returns:
        The description, with the keys and types that `describe` gives it.

    Raises:
        ValueError: It is no such file, or says nothing; names it.
        OSError: It cannot be read.
    """
    try:
        with safe_open(path, "numpy") as file:
            text = (file.metadata() or {}).get(KEY)
    except SafetensorError as error:
        raise ValueError(f"{path}: no file of parameters: {error}") from error
    if text is None:
        raise ValueError(
            f"{path}: says nothing of its network, as files of older versions: build what "
            "config.yaml beside it names, and load the file by safetensors.torch.load_model"
        )
    try:
        return _plain(json.loads(text))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path}: its '{KEY}' is none that a run has written") from error


def _plain(said: Any) -> Description:
    shape = [int(size) for size in said["input_shape"]]
    if not (isinstance(said["architecture"], dict) and shape and min(shape) > 0):
        raise ValueError("no architecture, or no shape")
    numbers = [float(said["scale"]), *map(float, said["mean"]), *map(float, said["std"])]
    spread = numbers[1 + len(said["mean"]) :]
    if not all(map(math.isfinite, numbers)) or len(said["mean"]) != len(spread) or 0 in spread:
        raise ValueError("constants that are none")
    return {
        "architecture": said["architecture"],
        "input_shape": shape,
        "output_shape": [int(size) for size in said["output_shape"]],
        "num_tokens": None if said["num_tokens"] is None else int(said["num_tokens"]),
        "classes": None if said["classes"] is None else [str(name) for name in said["classes"]],
        "scale": numbers[0],
        "mean": [float(value) for value in said["mean"]],
        "std": [float(value) for value in said["std"]],
        "versions": said["versions"],
    }
