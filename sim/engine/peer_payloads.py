"""What clients made for other clients, by handles that only the pool can read."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from flwr.app import RecordDict

from clients.messages.payload_routing import Post
from clients.messages.sizes import size_bytes
from sim.workers.pools import Pool
from sim.workers.state_serialization import freeze, thaw
from sim.workers.tasks import Group, Outcome


class Payloads:
    """Payloads by name and client; where each is, the pool knows."""

    def __init__(self, pool: Pool) -> None:
        """Begin without any.

        Args:
            pool: Whose handles they are.
        """
        self._pool = pool
        self._handles: dict[str, dict[int, Any]] = {}
        self._bytes: dict[str, dict[int, int]] = {}

    def take_in(self, name: str, outcome: Outcome) -> None:
        """Note what a group's clients left to be kept."""
        for answer, handle in zip(outcome.answers, outcome.kept, strict=True):
            if handle is not None:
                self._handles.setdefault(name, {})[answer.client_id] = handle
                self._bytes.setdefault(name, {})[answer.client_id] = answer.kept_bytes

    def delivered(self, group: Group, post: Post) -> Group:
        """Add to a group the letters of its clients, each payload once.

        Args:
            group: Of clients that may have letters.
            post: Of all clients.

        Returns:
            The group.

        Raises:
            KeyError: A payload is not there; names it.
        """
        letters = tuple(tuple(post.letters.get(task.client_id, ())) for task in group.tasks)
        wanted = sorted({(letter.name, letter.sender) for own in letters for letter in own})
        return replace(
            group,
            mix=post.mix,
            letters=letters,
            payloads=tuple(self._handle(*each) for each in wanted),
            places={each: place for place, each in enumerate(wanted)},
        )

    def received_bytes(self, post: Post, requests: Mapping[int, int]) -> dict[int, int]:
        """Add what others' payloads weigh to the bytes of each client's request."""
        return {
            client_id: own
            + sum(
                self._bytes[letter.name][letter.sender]
                for letter in post.letters.get(client_id, ())
                if letter.sender != client_id
            )
            for client_id, own in requests.items()
        }

    def size(self, name: str, client_id: int) -> int:
        """Return the bytes of a payload, as Flower would serialise it."""
        return self._bytes[name][client_id]

    def read(self, name: str, client_id: int) -> RecordDict:
        """Fetch a payload."""
        frozen = self._pool.frozen(self._handle(name, client_id))
        assert frozen is not None, "a payload that is there"
        return thaw(frozen)

    def keep(
        self, name: str, client_id: int, payload: RecordDict, weighs: int | None = None
    ) -> None:
        """Take in a payload that was not made here, such as a checkpoint's.

        Args:
            name: Its name.
            client_id: Who made it.
            payload: As a codec, if there is one, decoded it.
            weighs: Bytes in which it was sent; None = those of the payload.
        """
        self._handles.setdefault(name, {})[client_id] = self._pool.keep(freeze(payload))
        self._bytes.setdefault(name, {})[client_id] = (
            size_bytes(payload) if weighs is None else weighs
        )

    def forget(self, names: Iterable[str]) -> None:
        """Drop the payloads of these names."""
        for name in names:
            self._handles.pop(name, None)
            self._bytes.pop(name, None)

    def _handle(self, name: str, client_id: int) -> Any:
        try:
            return self._handles[name][client_id]
        except KeyError:
            raise KeyError(f"client {client_id} has left no payload '{name}'") from None
