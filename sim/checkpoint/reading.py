"""Reading a checkpoint: every file is checked before any of it is used."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from flwr.app import ArrayRecord, RecordDict

from clients.messages.arrays import read_arrays
from clients.messages.requests import ARRAYS
from clients.models.factory import Parameters
from sim.checkpoint.manifest import (
    FIRST_FORMATS_NAME,
    FORMAT_VERSION,
    PROBES,
    CheckpointError,
    Damaged,
    Entry,
    entries_of,
    manifests,
    read_manifest,
    sha256_of,
)
from sim.tracking.clients_table import ClientsTable
from sim.tracking.program import program
from sim.tracking.run_files import CHECKPOINT
from sim.workers.state_files import Place, SavedStates, read_places
from sim.workers.state_serialization import thaw


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a run needs to go on.

    Attributes:
        server_round: The last round that is done.
        arrays: The global model's parameters after it.
        states: Frozen states of the clients that have one; read from their files when asked for.
        strategy: What the strategy kept, for `restore_strategy`.
        clients: The per-client table so far.
        probes: What the probes kept, for the `Tracker`.
        lines: How many lines of which file of the run folder belong to the rounds done.
        versions: Of what the result may depend on, when it was written.
        damage: What is wrong with a later checkpoint, for which this one stands in; "" = it is the
            last.
    """

    server_round: int
    arrays: ArrayRecord
    states: Mapping[int, bytes]
    strategy: RecordDict
    clients: pa.Table
    probes: Parameters
    lines: dict[str, int]
    versions: dict[str, str]
    damage: str = ""


def no_checkpoint(folder: Path) -> CheckpointError:
    """Say that there is none, or only one of the first format."""
    if (folder / FIRST_FORMATS_NAME).exists():
        return CheckpointError(
            f"{folder / FIRST_FORMATS_NAME}: has format version 1, this program reads "
            f"{FORMAT_VERSION}: resume with the program that wrote it"
        )
    return CheckpointError(
        f"{folder}: no checkpoint there; a run leaves one if checkpoint_every is at least 1, or if "
        "it is interrupted"
    )


def how_to_go_on(folder: Path) -> str:
    """Say how to go on with the run of a folder.

    Args:
        folder: The run folder.

    Returns:
        For a person.
    """
    for content in readable(manifests(folder / CHECKPOINT)):
        if "unknown" not in content["strategy"]:
            again = f"{program()} resume={shlex.quote(str(folder))}"
            return f"{content['round']} rounds are kept, go on with: {again}"
    return f"no round is kept that can be gone on from; what there is lies in {folder}"


def read_checkpoint(
    path: Path, content: Mapping[str, Any], damage: str
) -> tuple[Checkpoint, dict[int, Place]]:
    """Read the checkpoint of a manifest.

    Args:
        path: The manifest.
        content: What it says.
        damage: For the checkpoint.

    Returns:
        The checkpoint, and where each client's state lies.

    Raises:
        Damaged: A file is not there, or not as the manifest says, or not what it should be.
    """
    folder = path.parent
    for entry in entries_of(content):
        _check(folder / entry["file"], entry)
    places: dict[int, Place] = {}
    for entry in content["states"]:
        places |= _states(folder / entry["file"])
    checkpoint = Checkpoint(
        server_round=content["round"],
        arrays=_arrays(folder, content["arrays"], ARRAYS),
        states=SavedStates(places),
        strategy=_thaw(folder, content["strategy"]),
        clients=_rows(folder, content["rows"]),
        probes=read_arrays(_arrays(folder, content[PROBES], PROBES)) if PROBES in content else {},
        lines=content["lines"],
        versions=content["versions"],
        damage=damage,
    )
    return checkpoint, places


def readable(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read those manifests that can be read."""
    contents = []
    for path in paths:
        with suppress(CheckpointError):
            contents.append(read_manifest(path))
    return contents


def _check(path: Path, entry: Entry) -> None:
    try:
        if path.is_symlink():
            raise Damaged(f"{path}: damaged: it is a link, which is not followed")
        found = path.stat().st_size, sha256_of(path)
    except OSError as error:
        raise Damaged(f"{path}: cannot be read: {error.strerror}") from error
    if found != (entry["bytes"], entry["sha256"]):
        raise Damaged(f"{path}: damaged: it has not the hash that the manifest says")


def _thaw(folder: Path, entry: Entry) -> RecordDict:
    path = folder / entry["file"]
    try:
        return thaw(path.read_bytes())
    except ValueError as error:
        raise Damaged(f"{path}: {error}") from error


def _arrays(folder: Path, entry: Entry, name: str) -> ArrayRecord:
    record = _thaw(folder, entry).get(name)
    if not isinstance(record, ArrayRecord):
        raise Damaged(f"{folder / entry['file']}: has no arrays called {name!r}")
    return record


def _states(path: Path) -> dict[int, Place]:
    try:
        return read_places(path)
    except ValueError as error:
        raise Damaged(f"{path}: {error}") from error


def _rows(folder: Path, entries: Sequence[Entry]) -> pa.Table:
    table = ClientsTable().since(0)
    for entry in entries:
        path = folder / entry["file"]
        try:
            part = pq.read_table(path)
            table = pa.concat_tables([table, part], promote_options="default")
        except (pa.ArrowException, OSError, TypeError, ValueError) as error:
            raise Damaged(f"{path}: not a per-client table: {error}") from error
        if part.num_rows != entry["rows"]:
            raise Damaged(f"{path}: has {part.num_rows} rows, the manifest says {entry['rows']}")
    return table
