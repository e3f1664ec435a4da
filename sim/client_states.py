"""What each client keeps from one message to the next, by handles that only the pool can read."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from flwr.app import RecordDict

from sim.pool import Pool
from sim.states import thaw


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

    def put(self, client_id: int, handle: Any) -> None:
        """Replace a client's state."""
        self._handles[client_id] = handle
        self._changed.add(client_id)

    def changed(self) -> Iterator[tuple[int, bytes]]:
        """Yield (client id, frozen state) of all clients whose state is new since the last call."""
        changed, self._changed = sorted(self._changed), set()
        for client_id in changed:
            state = self._pool.frozen(self._handles[client_id])
            assert state is not None, "a changed state is there"
            yield client_id, state

    def load(self, states: Mapping[int, bytes]) -> None:
        """Give clients the states that an earlier run left them."""
        for client_id, state in states.items():
            self._handles[client_id] = self._pool.keep(state)
