"""A partition written down in a file, for splits that others published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clients.partition.flat_partition import Partition, as_partition


def from_file(
    labels: npt.NDArray[np.int64],
    num_clients: int,
    rng: np.random.Generator,
    *,
    path: str,
    allow_unused: bool = False,
) -> Partition:
    """Read a partition from JSON: `{"0": [indices], "1": [indices], ...}`, one key per client.

    Args:
        labels: [n], only their number matters.
        num_clients: K; the keys are exactly 0..K - 1.
        rng: not used; every partition is called alike.
        path: the JSON file.
        allow_unused: accept that some examples belong to no client.

    Returns:
        Sorted indices of each of K clients, none of them empty.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: not such JSON, other clients, an empty client, or indices that are out of
            range, occur twice or are missing.
    """
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        raise FileNotFoundError(
            f"{file.name} not found: looked for {file}. It is a file of your own, "
            '{"0": [indices], "1": [indices], ...}'
        )
    content = _client_lists(file, num_clients)
    partition = as_partition(
        [_indices(file, client, content[str(client)]) for client in range(num_clients)]
    )
    _check_use(file, partition, len(labels), allow_unused)
    return partition


def _client_lists(file: Path, num_clients: int) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: expected JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected a JSON object, found {type(content).__name__}")
    expected = {str(client) for client in range(num_clients)}
    if content.keys() != expected:
        lacking, foreign = sorted(expected - content.keys()), sorted(content.keys() - expected)
        raise ValueError(
            f"{file}: expected the keys 0..{num_clients - 1} (num_clients={num_clients}), "
            f"found {len(content)} keys; lacking {lacking[:5]}, foreign {foreign[:5]}"
        )
    return content


def _indices(file: Path, client: int, values: Any) -> npt.NDArray[np.int64]:
    # bool is a kind of int in Python; np.asarray would quietly read true as 1 among integers.
    if not isinstance(values, list) or not values or any(type(v) is not int for v in values):
        raise ValueError(f"{file}: client {client}: expected a list of at least 1 whole number")
    try:
        return np.sort(np.array(values, dtype=np.int64))
    except OverflowError as error:
        raise ValueError(f"{file}: client {client}: an index does not fit in 64 bits") from error


def _check_use(file: Path, partition: Partition, num_examples: int, allow_unused: bool) -> None:
    lowest = partition.indices[partition.offsets[:-1]]
    highest = partition.indices[partition.offsets[1:] - 1]
    foreign = np.flatnonzero((lowest < 0) | (highest >= num_examples))
    if len(foreign):
        client = foreign[0]
        raise ValueError(
            f"{file}: client {client} has indices {lowest[client]}..{highest[client]}, "
            f"expected 0..{num_examples - 1}"
        )
    times = np.bincount(partition.indices, minlength=num_examples)
    if times.max() > 1:
        twice = np.flatnonzero(times > 1)
        raise ValueError(f"{file}: {len(twice)} indices occur more than once, first {twice[:5]}")
    unused = np.flatnonzero(times == 0)
    if len(unused) and not allow_unused:
        raise ValueError(
            f"{file}: {len(unused)} of {num_examples} indices belong to no client, first "
            f"{unused[:5]}; set allow_unused=true if that is meant"
        )
