"""Checkpoints: a folder from which a run goes on with the bits that it would have had.

A checkpoint is a manifest and the files that it names. Files never change: what is new in a round
is written under a name with the round in it, what is not is named again. The round is committed
when the manifest gets its name; what only manifests before the last few named is removed after
that. Nothing that is read is a pickle, and nothing is read whose hash is not the manifest's.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from clients.messages.arrays import write_arrays
from clients.messages.requests import ARRAYS
from clients.models.factory import Parameters
from sim.checkpoint.manifest import (
    PROBES,
    CheckpointError,
    Damaged,
    Entry,
    clear,
    entries_of,
    manifests,
    name_of,
    ours,
    printable,
    read_manifest,
    sha256_of,
    write_manifest,
)
from sim.checkpoint.reading import Checkpoint as Checkpoint
from sim.checkpoint.reading import no_checkpoint, read_checkpoint, readable
from sim.checkpoint.strategy_state import restore_strategy, strategy_state
from sim.engine.grid import PoolGrid
from sim.files import finish, unfinished, write_unfinished
from sim.tracking.clients_table import ClientsTable
from sim.tracking.run_files import CONFIG, PARTITION, PARTITION_SUMMARY
from sim.tracking.run_folder import versions
from sim.tracking.tracker import Tracker
from sim.workers.state_files import Place, SavedStates, write_states
from sim.workers.state_serialization import freeze

MOST_STATE_FILES = 32
"""How many a checkpoint names at most before all states go to one file."""


class Checkpoints:
    """The checkpoint folder of one run; keeps the last few checkpoints."""

    def __init__(self, folder: Path, seed: int, config_sha256: str, kept: int = 2) -> None:
        """Prepare to commit rounds, or to load the last; nothing is read or written yet.

        Args:
            folder: For the checkpoints, and for nothing else; made at the first commit.
            seed: The run's seed.
            config_sha256: Hash of that part of the config which the bits depend on.
            kept: How many checkpoints to keep, >= 1.
        """
        self.folder = folder
        self._about = {"seed": seed, "config_sha256": config_sha256}
        self._number = kept
        self._kept: list[dict[str, Any]] = []  # contents of manifests, the last first
        self._places: dict[int, Place] = {}  # where the last has each client's state
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

        Raises:
            CheckpointError: The strategy cannot go on from what it is handed.
        """
        if self.done is None:
            return arrays, 1
        try:
            restore_strategy(strategy, self.done.strategy)
        except Exception as error:  # of anyone's strategy, from what anyone may have written
            raise CheckpointError(
                f"{self.folder / name_of(self.done.server_round)}: {type(strategy).__name__} "
                f"cannot go on from it: {type(error).__name__}: {error}"
            ) from error
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
        stopping: Callable[[], bool] = lambda: False,
        ended: Callable[[], bool] = lambda: False,
    ) -> Callable[[int, ArrayRecord], None]:
        """Say what to call when a round is done.

        Args:
            every: Commit each so many rounds, and the last; 0 = never.
            rounds: The last round.
            warn: Told why a checkpoint cannot be resumed from, where it cannot.
            strategy: The run's.
            grid: The run's.
            tracker: The run's.
            stopping: Whether the run was asked to stop: then this round is committed anyway.
            ended: Whether this round has become the last.

        Returns:
            For the round loop's `commit`.
        """

        def commit(server_round: int, arrays: ArrayRecord) -> None:
            due = every and (server_round % every == 0 or server_round == rounds or ended())
            if due or (stopping() and server_round < rounds):
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
        states: Mapping[int, bytes],
        strategy: Strategy,
        clients: ClientsTable,
        lines: Mapping[Path, int],
        probes: Parameters | None = None,
    ) -> str:
        """Commit a round: afterwards, and not before, a run can go on from it.

        Args:
            server_round: The round that is done.
            arrays: The global model's parameters after it.
            states: Frozen states by client id, of the clients whose state changed since the last
                commit; each is asked for once.
            strategy: The strategy. If it cannot tell what it keeps, the checkpoint is written all
                the same, and says so when a run shall be resumed from it.
            clients: The per-client table so far; what is new of it is written.
            lines: How many lines each growing file of the run folder has.
            probes: What the probes keep.

        Returns:
            "", or why no run can be resumed from this checkpoint.
        """
        clear(self.folder)
        tag = f"-{server_round:06d}"
        try:
            content: dict[str, Any] = {
                "round": server_round,
                **self._about,
                "versions": versions(),
                "lines": {path.name: count for path, count in lines.items()},
                "arrays": self._write(f"arrays{tag}", freeze(RecordDict({ARRAYS: arrays}))),
                "strategy": self._write_strategy(strategy, f"strategy{tag}"),
                "rows": self._write_rows(clients, f"clients{tag}.parquet"),
            }
            if probes:
                frozen = freeze(RecordDict({PROBES: write_arrays(probes)}))
                content[PROBES] = self._write(f"probes{tag}", frozen)
            content["states"], places = self._write_states(states, f"states{tag}.safetensors")
            before = {entry["file"] for entry in entries_of(self._kept[0])} if self._kept else ()
            names = [entry["file"] for entry in entries_of(content)]
            new = [self.folder / name for name in names if name not in before]
            finish(new, also=self._besides(lines))
            write_manifest(self.folder / name_of(server_round), content)
        except OSError:  # such as a full disk: make room, what is kept is whole
            self._remove_others()
            raise
        self._kept, self._places = [content, *self._kept][: self._number], places
        self._remove_others()
        return str(content["strategy"].get("unknown", ""))

    def _besides(self, lines: Mapping[Path, int]) -> list[Path]:
        """List what a resumed run reads beside the checkpoint: some grows, some is there once."""
        run = self.folder.parent
        once = () if self._kept else (run / CONFIG, run / PARTITION, run / PARTITION_SUMMARY)
        return [path for path in (*lines, *once, run) if path.exists()]

    def _write_strategy(self, strategy: Strategy, name: str) -> Entry:
        try:
            state = strategy_state(strategy)
        except NotImplementedError as reason:
            return {"unknown": printable(str(reason))}
        return self._write(name, freeze(state))

    def _write_rows(self, clients: ClientsTable, name: str) -> list[Entry]:
        """Write the new rows, with those of the files before that have no more: few files stay."""
        parts = [*self._kept[0]["rows"]] if self._kept else []
        new = clients.num_rows - sum(part["rows"] for part in parts)
        if not new:
            return parts
        while parts and parts[-1]["rows"] <= new:
            new += parts.pop()["rows"]
        buffer = BytesIO()
        pq.write_table(clients.since(clients.num_rows - new), buffer)
        write_unfinished(self.folder / name, buffer.getvalue())
        return [*parts, {**self._entry(name), "rows": new}]

    def _write_states(
        self, changed: Mapping[int, bytes], name: str
    ) -> tuple[list[Entry], dict[int, Place]]:
        """Write the changed states to a file; all of them, where too little of the others lives."""
        places = {key: place for key, place in self._places.items() if key not in changed}
        live: Counter[str] = Counter()
        for place in places.values():
            live[place.path.name] += place.size_bytes
        there = self._kept[0]["states"] if self._kept else []
        parts = [entry for entry in there if entry["file"] in live]
        if not changed:
            return parts, places
        old: Mapping[int, bytes] = SavedStates({})
        worn = sum(entry["bytes"] for entry in parts) > 2 * live.total()
        if worn or len(parts) >= MOST_STATE_FILES:
            old, places, parts = SavedStates(places), {}, []
        ids, path = sorted({*old, *changed}), self.folder / name
        states = (changed[key] if key in changed else old[key] for key in ids)
        places |= write_states(unfinished(path), path, ids, states)
        return [*parts, self._entry(name)], places

    def _write(self, name: str, content: bytes) -> Entry:
        write_unfinished(self.folder / f"{name}.safetensors", content)
        return self._entry(f"{name}.safetensors")

    def _entry(self, name: str) -> Entry:
        path = unfinished(self.folder / name)
        return {"file": name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}

    def _remove_others(self) -> None:
        """Remove what belongs to no checkpoint that is kept, but nothing that is not ours."""
        named = {name_of(content["round"]) for content in self._kept}
        named |= {entry["file"] for content in self._kept for entry in entries_of(content)}
        for path in self.folder.iterdir():
            if ours(path.name) and path.name not in named:
                path.unlink()

    # --- reading ---

    def load(self, rounds: int) -> Checkpoint:
        """Read the last checkpoint that is whole; what is committed from now on goes on from it.

        Nothing is removed before the next commit.

        Args:
            rounds: The last round of the run.

        Returns:
            The checkpoint, each of its files checked against its hash.

        Raises:
            CheckpointError: There is none, or none is whole, or the last is of another run or
                format, or of a strategy that cannot be resumed; names the file.
        """
        found = manifests(self.folder)
        damages: list[Damaged] = []
        for path in found:
            try:
                content = read_manifest(path)
                self._require_own(path, content, rounds)
                self.done, self._places = read_checkpoint(path, content, str(*damages[:1]))
            except Damaged as damage:
                damages.append(damage)
                continue
            self._kept = [content, *readable(found[len(damages) + 1 :])]
            return self.done
        raise damages[0] if damages else no_checkpoint(self.folder)

    def _require_own(self, path: Path, content: Mapping[str, Any], rounds: int) -> None:
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
