"""Many clients' states in one file: a safetensors file with a tensor of bytes for each client.

The tensor `"17"` is client 17's frozen state, itself a safetensors file. Its header is the index:
a state is read alone, from where it lies.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.files import open_new

ALIGNMENT = 8
MOST_HEADER_BYTES = 100_000_000
"""The format's own limit."""
WIDEST = 10**15
"""What room is left for in the header while nobody knows yet where states will end."""


@dataclass(frozen=True)
class Place:
    """Where a state lies: its file, its first byte in it, its size."""

    path: Path
    begin: int
    size_bytes: int


class SavedStates(Mapping[int, bytes]):
    """Frozen states by client id, each read when asked for."""

    def __init__(self, places: Mapping[int, Place]) -> None:
        """Know where they lie.

        Args:
            places: By client id; the files stay as they are as long as this is used.
        """
        self.places = places

    def __getitem__(self, client_id: int) -> bytes:
        place = self.places[client_id]
        with place.path.open("rb") as file:
            file.seek(place.begin)
            return file.read(place.size_bytes)

    def __iter__(self) -> Iterator[int]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def write_states(
    unfinished: Path, path: Path, client_ids: Sequence[int], states: Iterable[bytes]
) -> dict[int, Place]:
    """Write states one by one, so that no more than one need be in memory.

    Args:
        unfinished: What the file is called now.
        path: What it will be called.
        client_ids: Whose states they are.
        states: Frozen, in that order.

    Returns:
        Where each will lie, by client id.
    """
    room = len(_header(dict.fromkeys(client_ids, WIDEST)))
    places: dict[int, Place] = {}
    with open_new(unfinished) as file:
        end = file.seek(room)
        for client_id, frozen in zip(client_ids, states, strict=True):
            places[client_id] = Place(path, end, len(frozen))
            end += file.write(frozen)
        file.seek(0)
        file.write(_header({key: place.size_bytes for key, place in places.items()}, room))
    return places


def read_places(path: Path) -> dict[int, Place]:
    """Read where the states of a file lie.

    Args:
        path: As `write_states` wrote it.

    Returns:
        By client id.

    Raises:
        ValueError: It is no such file.
        OSError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= MOST_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        return _places(path, header, 8 + length, path.stat().st_size)
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a file of states: {type(error).__name__}: {error}") from error


def _places(path: Path, header: Any, body: int, size: int) -> dict[int, Place]:
    places: dict[int, Place] = {}
    for name, about in header.items():
        begin, end = about["data_offsets"]
        if str(client_id := int(name)) != name or client_id < 0:
            raise ValueError(f"no client is called {name!r}")
        if not (type(begin) is type(end) is int and 0 <= begin <= end <= size - body):
            raise ValueError(f"client {name}: bytes {begin} to {end} of {size - body}")
        places[client_id] = Place(path, body + begin, end - begin)
    return places


def _header(sizes: Mapping[int, int], room: int = 0) -> bytes:
    """Make a header, filled up to this many bytes."""
    end, about = 0, {}
    for client_id, size in sizes.items():
        begin, end = end, end + size
        about[str(client_id)] = {"dtype": "U8", "shape": [size], "data_offsets": [begin, end]}
    text = json.dumps(about, separators=(",", ":")).encode()
    length = max(room - 8, ALIGNMENT * math.ceil(len(text) / ALIGNMENT))
    return length.to_bytes(8, "little") + text.ljust(length)
