"""Where frozen states are kept: in memory up to a limit, and beyond it in files."""

from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from pathlib import Path


class StateStore(MutableMapping[int, bytes]):
    """Frozen states by client id: the latest used in memory up to a limit, the others in files.

    Setting, getting and counting cost the same however many states there are. Not for several
    threads at once.
    """

    def __init__(self, folder: Path, memory_limit_bytes: int) -> None:
        """Open an empty store.

        Args:
            folder: For the files, and for nothing else: states that an earlier store left there
                are removed. It is made when the first state is spilled.
            memory_limit_bytes: How many bytes of states to keep in memory, >= 0.

        Raises:
            ValueError: The limit is negative.
        """
        if memory_limit_bytes < 0:
            raise ValueError(f"memory_limit_bytes={memory_limit_bytes}: expected >= 0")
        self._folder = folder
        self._limit = memory_limit_bytes
        self._memory: OrderedDict[int, bytes] = OrderedDict()  # least recently used first
        self._on_disk: dict[int, tuple[Path, int]] = {}  # file and size of those not in memory
        self._on_both: dict[int, tuple[Path, int]] = {}  # of those in memory that have a file too
        self.memory_bytes = 0
        self._remove_files()

    def refer(self, client_id: int, path: Path, size_bytes: int) -> None:
        """Take a state from a file of somebody else's: read when asked for, never removed.

        Args:
            client_id: Whose state it is.
            path: The file, outside the store's folder; it must stay as it is until this client's
                state is set anew.
            size_bytes: Its size.
        """
        self._forget(client_id)
        self._on_disk[client_id] = (path, size_bytes)

    def close(self) -> None:
        """Forget all states and remove the files written here."""
        self._memory.clear()
        self._on_disk.clear()
        self._on_both.clear()
        self.memory_bytes = 0
        self._remove_files()

    # --- the mapping ---

    def __getitem__(self, client_id: int) -> bytes:
        if client_id in self._memory:
            self._memory.move_to_end(client_id)
            return self._memory[client_id]
        frozen = self._read(client_id, *self._on_disk[client_id])
        self._on_both[client_id] = self._on_disk.pop(client_id)
        self._remember(client_id, frozen)
        return frozen

    def __setitem__(self, client_id: int, frozen: bytes) -> None:
        self._forget(client_id)
        self._remember(client_id, frozen)

    def __delitem__(self, client_id: int) -> None:
        if client_id not in self:
            raise KeyError(client_id)
        self._forget(client_id)

    def __contains__(self, client_id: object) -> bool:
        return client_id in self._memory or client_id in self._on_disk

    def __iter__(self) -> Iterator[int]:
        return iter([*self._memory, *self._on_disk])  # a copy: reading a state moves it

    def __len__(self) -> int:
        return len(self._memory) + len(self._on_disk)

    # --- steps ---

    def _remember(self, client_id: int, frozen: bytes) -> None:
        self._memory[client_id] = frozen
        self.memory_bytes += len(frozen)
        while self.memory_bytes > self._limit:
            oldest, state = next(iter(self._memory.items()))
            there = self._on_both.pop(oldest, None)
            self._on_disk[oldest] = there or self._spill(oldest, state)
            self.memory_bytes -= len(self._memory.pop(oldest))

    def _forget(self, client_id: int) -> None:
        self.memory_bytes -= len(self._memory.pop(client_id, b""))
        file = self._on_disk.pop(client_id, None) or self._on_both.pop(client_id, None)
        if file is not None and file[0].parent == self._folder:
            file[0].unlink(missing_ok=True)

    def _spill(self, client_id: int, frozen: bytes) -> tuple[Path, int]:
        path = self._folder / f"{client_id}.safetensors"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(frozen)
        except OSError as error:
            raise OSError(
                f"client {client_id}: cannot spill its state to {path}: {error}"
            ) from error
        return path, len(frozen)

    @staticmethod
    def _read(client_id: int, path: Path, size_bytes: int) -> bytes:
        try:
            frozen = path.read_bytes()
        except OSError as error:
            raise OSError(f"client {client_id}: cannot read its state {path}: {error}") from error
        if len(frozen) != size_bytes:
            raise ValueError(
                f"client {client_id}: its state {path} has {len(frozen)} bytes, "
                f"expected {size_bytes}"
            )
        return frozen

    def _remove_files(self) -> None:
        for path in self._folder.glob("[0-9]*.safetensors"):
            path.unlink()
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()
