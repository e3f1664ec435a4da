"""What each client keeps from one message to the next, by handles that only the pool can read."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from flwr.app import RecordDict

from sim.workers.pools import Pool
from sim.workers.state_serialization import thaw


class ClientStates:
    """The states of those clients that have one."""

    def __init__(self, pool: Pool, handles: MutableMapping[int, Any]) -> None:
        """Begin without any.

        Args:
            pool: Whose handles they are.
            handles: Where to keep them, by client id; empty.
        """
        self._pool = pool
        self._handles = handles
        self._changed: set[int] = set()

    def of(self, client_id: int) -> RecordDict:
        """Return a client's state, as `Context.state` was after its last successful message."""
        state = self._pool.frozen(self._handles.get(client_id))
        return RecordDict() if state is None else thaw(state)

    def handle(self, client_id: int) -> Any:
        """Return the handle of a client's state; None if it has none yet."""
        return self._handles.get(client_id)

    def __contains__(self, client_id: int) -> bool:
        """Tell whether a client has a state, without reading one that lies in a file."""
        return client_id in self._handles

    def put(self, client_id: int, handle: Any) -> None:
        """Replace a client's state."""
        self._handles[client_id] = handle
        self._changed.add(client_id)

    def changed(self) -> Mapping[int, bytes]:
        """Return the states, fetched when asked for, that are new since the last call."""
        changed, self._changed = sorted(self._changed), set()
        return Fetched(changed, self._fetch)

    def load(self, states: Mapping[int, bytes]) -> None:
        """Give clients the states that an earlier run left them."""
        for client_id, state in states.items():
            self._handles[client_id] = self._pool.keep(state)

    def _fetch(self, client_id: int) -> bytes:
        state = self._pool.frozen(self._handles[client_id])
        assert state is not None, "a changed state is there"
        return state


class Fetched(Mapping[int, bytes]):
    """Frozen states by client id, of which no more than the one asked for is in memory."""

    def __init__(self, client_ids: Sequence[int], fetch: Callable[[int], bytes]) -> None:
        """Know whose states there are.

        Args:
            client_ids: In order.
            fetch: Client id -> frozen state.
        """
        self._ids = dict.fromkeys(client_ids)
        self._fetch = fetch

    def __getitem__(self, client_id: int) -> bytes:
        return self._fetch(client_id)

    def __contains__(self, client_id: object) -> bool:
        return client_id in self._ids

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)
