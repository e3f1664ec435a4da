"""Checkpoints: a folder from which a run goes on with the bits that it would have had.

A checkpoint is a manifest and the files that it names. Files never change: what is new in a round
is written under a name with the round in it, what is not is named again. The round is committed
when the new manifest takes the old one's name; what only the old one named is removed after that.
Nothing that is read is a pickle, and nothing is read whose hash is not the manifest's.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from clients.architectures import Parameters
from clients.arrays import read_arrays, write_arrays
from clients.messages import ARRAYS
from sim.clients_table import ClientsTable
from sim.grid import PoolGrid
from sim.manifest import (
    UNFINISHED,
    CheckpointError,
    Entry,
    entries_of,
    finish,
    only_in,
    read_manifest,
    remove,
    sha256,
    write_manifest,
    write_unfinished,
)
from sim.run_folder import versions
from sim.state_store import StateStore
from sim.states import freeze, thaw
from sim.strategy_state import restore_strategy, strategy_state
from sim.tracking import Tracker

MANIFEST, STATES, PROBES = "manifest.json", "states", "probes"
OURS = re.compile(r"(states/)?[a-z0-9]+-\d{6,}\.(safetensors|parquet)")
"""Names of files in a checkpoint folder; a manifest that names others is not followed."""


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
    """

    server_round: int
    arrays: ArrayRecord
    states: StateStore
    strategy: RecordDict
    clients: pa.Table
    probes: Parameters
    lines: dict[str, int]
    versions: dict[str, str]


class Checkpoints:
    """The checkpoint folder of one run; keeps one checkpoint, the last."""

    def __init__(self, folder: Path, seed: int, config_sha256: str) -> None:
        """Prepare to commit rounds, or to load the last; nothing is read or written yet.

        Args:
            folder: For the checkpoint, and for nothing else; made at the first commit.
            seed: The run's seed.
            config_sha256: Hash of that part of the config which the bits depend on.
        """
        self.folder = folder
        self._about = {"seed": seed, "config_sha256": config_sha256}
        self._content: dict[str, Any] = {"rows": [], "states": {}}
        self._num_rows = 0
        self.done: Checkpoint | None = None

    # --- in a run ---

    def start(
        self, strategy: Strategy, grid: PoolGrid, arrays: ArrayRecord
    ) -> tuple[ArrayRecord, int]:
        """Hand everyone what they had at the checkpoint that was loaded, if one was.

        Args:
            strategy: As newly made.
            grid: As newly made.
            arrays: The global model's parameters in a run that begins.

        Returns:
            The global model's parameters to go on with, and the first round to run.
        """
        if self.done is None:
            return arrays, 1
        restore_strategy(strategy, self.done.strategy)
        grid.states.load(self.done.states)
        return self.done.arrays, self.done.server_round + 1

    def after_rounds(
        self,
        every: int,
        rounds: int,
        warn: Callable[[str], None],
        strategy: Strategy,
        grid: PoolGrid,
        tracker: Tracker,
    ) -> Callable[[int, ArrayRecord], None]:
        """Say what to call when a round is done.

        Args:
            every: Commit each so many rounds, and the last; 0 = never.
            rounds: The last round.
            warn: Told why a checkpoint cannot be resumed from, where it cannot.
            strategy: The run's.
            grid: The run's.
            tracker: The run's.

        Returns:
            For the round loop's `commit`.
        """

        def commit(server_round: int, arrays: ArrayRecord) -> None:
            if every and (server_round % every == 0 or server_round == rounds):
                states, clients, lines = grid.states.changed(), tracker.clients, tracker.lines()
                about = strategy, clients, lines, tracker.state()
                why_not = self.commit(server_round, arrays, states, *about)
                if why_not:
                    warn(f"this checkpoint cannot be resumed: {why_not}")

        return commit

    # --- writing ---

    def commit(
        self,
        server_round: int,
        arrays: ArrayRecord,
        states: Iterable[tuple[int, bytes]],
        strategy: Strategy,
        clients: ClientsTable,
        lines: Mapping[Path, int],
        probes: Parameters | None = None,
    ) -> str:
        """Commit a round: afterwards, and not before, a run can go on from it.

        Args:
            server_round: The round that is done.
            arrays: The global model's parameters after it.
            states: Client ids and frozen states, of the clients whose state changed since the last
                commit.
            strategy: The strategy. If it cannot tell what it keeps, the checkpoint is written all
                the same, and says so when a run shall be resumed from it.
            clients: The per-client table so far; only what is new is written.
            lines: How many lines each growing file of the run folder has.
            probes: What the probes keep.

        Returns:
            "", or why no run can be resumed from this checkpoint.
        """
        (self.folder / STATES).mkdir(parents=True, exist_ok=True)
        tag, before = f"-{server_round:06d}", self._content
        content: dict[str, Any] = {
            "round": server_round,
            **self._about,
            "versions": versions(),
            "lines": {path.name: count for path, count in lines.items()},
            "arrays": self._write(f"arrays{tag}.safetensors", freeze(RecordDict({ARRAYS: arrays}))),
            "strategy": self._write_strategy(strategy, tag),
            "rows": list(before["rows"]),
            "states": dict(before["states"]),
        }
        if probes:
            frozen = freeze(RecordDict({PROBES: write_arrays(probes)}))
            content[PROBES] = self._write(f"probes{tag}.safetensors", frozen)
        if clients.num_rows > self._num_rows:
            buffer = BytesIO()
            pq.write_table(clients.since(self._num_rows), buffer)
            content["rows"].append(self._write(f"clients{tag}.parquet", buffer.getvalue()))
        for client_id, frozen in states:
            name = f"{STATES}/{client_id}{tag}.safetensors"
            content["states"][str(client_id)] = self._write(name, frozen)
        new = [self.folder / name for name in only_in(content, before)]
        finish(new, also=[path for path in (*lines, self.folder.parent) if path.exists()])
        write_manifest(self.folder / MANIFEST, content)
        self._content, self._num_rows = content, clients.num_rows
        remove(self.folder / name for name in only_in(before, content))
        return str(content["strategy"].get("unknown", ""))

    def _write_strategy(self, strategy: Strategy, tag: str) -> Entry:
        try:
            state = strategy_state(strategy)
        except NotImplementedError as reason:
            return {"unknown": str(reason)}
        return self._write(f"strategy{tag}.safetensors", freeze(state))

    def _write(self, name: str, content: bytes) -> Entry:
        write_unfinished(self.folder / name, content)
        return {"file": name, "bytes": len(content), "sha256": sha256(content)}

    # --- reading ---

    def load(self, rounds: int) -> Checkpoint:
        """Read the last checkpoint; `start` and what is committed from now on go on from it.

        Files that an interrupted commit left behind are removed.

        Args:
            rounds: The last round of the run.

        Returns:
            The checkpoint, each of its files checked against its hash.

        Raises:
            CheckpointError: There is none, or it is damaged, of another run or format, or of a
                strategy that cannot be resumed; names the file.
        """
        path = self.folder / MANIFEST
        content = read_manifest(path)
        for key, value in self._about.items():
            if content[key] != value:
                raise CheckpointError(
                    f"{path}: its {key} is {content[key]}, this run's {value}: config.yaml was "
                    "changed, or the checkpoint is of another run"
                )
        if content["round"] > rounds:
            raise CheckpointError(f"rounds={rounds}: {path} is of round {content['round']} already")
        if "unknown" in content["strategy"]:
            raise CheckpointError(f"{path}: cannot be resumed: {content['strategy']['unknown']}")
        for entry in entries_of(content):
            self._check(entry)
        states = StateStore(self.folder / "none", memory_limit_bytes=0)
        for client_id, entry in content["states"].items():
            states.refer(int(client_id), self.folder / entry["file"], entry["bytes"])
        clients = self._clients(content["rows"])
        self._content, self._num_rows = content, clients.num_rows
        self._sweep()
        self.done = Checkpoint(
            server_round=content["round"],
            arrays=self._thaw(content["arrays"]).array_records[ARRAYS],
            states=states,
            strategy=self._thaw(content["strategy"]),
            clients=clients,
            probes=self._probes(content),
            lines=content["lines"],
            versions=content["versions"],
        )
        return self.done

    def _check(self, entry: Entry) -> None:
        path = self.folder / entry["file"]
        if OURS.fullmatch(entry["file"]) is None:
            raise CheckpointError(f"{self.folder / MANIFEST}: names a file {entry['file']!r}")
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
        if (path.stat().st_size, digest) != (entry["bytes"], entry["sha256"]):
            raise CheckpointError(f"{path}: damaged: it has not the hash that the manifest says")

    def _thaw(self, entry: Entry) -> RecordDict:
        path = self.folder / entry["file"]
        try:
            return thaw(path.read_bytes())
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error

    def _probes(self, content: Mapping[str, Any]) -> Parameters:
        if PROBES not in content:
            return {}
        return read_arrays(self._thaw(content[PROBES]).array_records[PROBES])

    def _clients(self, entries: Sequence[Entry]) -> pa.Table:
        parts = [pq.read_table(self.folder / entry["file"]) for entry in entries]
        return pa.concat_tables([ClientsTable().since(0), *parts], promote_options="default")

    def _sweep(self) -> None:
        named = {entry["file"] for entry in entries_of(self._content)} | {MANIFEST}
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            ours = OURS.fullmatch(name.removesuffix(UNFINISHED)) or name == MANIFEST + UNFINISHED
            if ours and name not in named:
                path.unlink()
