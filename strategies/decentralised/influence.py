"""Who could have influenced whom in a federation without a server, by what has reached them."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from clients.messages.payload_routing import Letter
from clients.models.factory import Parameters

INFORMED, KNOWN = "informed", "known/"

Bits = npt.NDArray[np.uint8]
"""A bit for each pair of peers [n receivers, n / 8]: 12.5 MB for 10,000 peers."""


class Influence:
    """Follows letters; of those that are late it remembers what their senders knew."""

    def __init__(self, num_peers: int) -> None:
        """Begin with peers that know of themselves only."""
        self._num_peers = num_peers
        self._informed: Bits = np.packbits(np.eye(num_peers, dtype=np.bool_), axis=1)
        self._known: dict[str, Bits] = {}  # when a late letter was sent
        self._before = self._informed, self._known

    def share(self) -> float:
        """Return the share of ordered pairs (i, j) in which j could have influenced i."""
        return float(np.bitwise_count(self._informed).sum()) / self._num_peers**2

    def table(self) -> npt.NDArray[np.bool_]:
        """Return who could have influenced whom [n receivers, n]."""
        return np.unpackbits(self._informed, axis=1, count=self._num_peers).astype(np.bool_)

    def send_late(self, name: str) -> None:
        """Remember what is known now: a letter of this name comes in a later round."""
        self._known[name] = self._informed

    def learn(
        self, letters: Mapping[int, Sequence[Letter]], name: str, waiting: Collection[str]
    ) -> None:
        """Note whose influence has come to whom.

        Args:
            letters: By receiver.
            name: Of what was made in this round.
            waiting: Names of what is still on its way.
        """
        self._before = self._informed, self._known
        after = self._informed.copy()
        for receiver, own in letters.items():
            for letter in own:
                after[receiver] |= self._when_sent(letter.name)[letter.sender]
        self._informed = after
        self._known = {key: bits for key, bits in self._known.items() if key in waiting}

    def unlearn(self, receiver: int, letters: Iterable[Letter]) -> None:
        """Take back what a receiver has just learned: its letters come again.

        Args:
            receiver: Who could not take them.
            letters: That it got.
        """
        self._informed[receiver] = self._before[0][receiver]
        for letter in letters:
            self._known[letter.name] = self._when_sent(letter.name)

    def forget(self) -> None:
        """Give up what was on its way."""
        self._known = {}

    def state(self) -> Parameters:
        """Return all that is remembered, by name."""
        return {INFORMED: self._informed, **{KNOWN + key: b for key, b in self._known.items()}}

    def restore(self, arrays: Parameters) -> None:
        """Go on from what `state` returned; other names are not looked at."""
        self._informed = arrays[INFORMED].copy()
        known = {key: value for key, value in arrays.items() if key.startswith(KNOWN)}
        self._known = {key.removeprefix(KNOWN): value.copy() for key, value in known.items()}

    def _when_sent(self, name: str) -> Bits:
        """Return what was known when a letter was sent that came in the last round noted."""
        informed, known = self._before
        return known.get(name, informed)
