"""Who gets what from whom in a round of a federation without a server."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord, RecordDict
from scipy.sparse import csr_array

from clients.arrays import read_arrays, write_arrays
from clients.routing import KeptPayloads, Letter

Ints = npt.NDArray[np.int64]
Mixing = Callable[[int], csr_array]
"""Round -> W [n receivers, n senders]: `sim.topology.Topology.mixing`, or one like it."""

Missing = Literal["renormalise", "own", "drop", "sender"]
LATE, INFORMED = "late", "informed"


class Availability(Protocol):
    """Who is there, and what arrives: `sim.topology.Availability`."""

    def present(self, server_round: int) -> npt.NDArray[np.bool_]:
        """Tell who belongs to the federation in a round [n]."""
        ...

    def awake(self, server_round: int) -> npt.NDArray[np.bool_]:
        """Tell who takes part in a round [n]."""
        ...

    def delays(self, server_round: int, senders: Ints, receivers: Ints) -> Ints:
        """Tell how many rounds later each message [E] arrives, -1 for never."""
        ...


@dataclass(frozen=True, eq=False)
class Delivery:
    """What arrives at one time.

    Attributes:
        letters: By receiver, ordered by sender; a receiver that nothing reaches has none.
        lost: Messages that never arrive, whose receiver is asleep, or that a newer one replaced.
        late: Messages of an earlier round among those that arrive.
    """

    letters: dict[int, list[Letter]]
    lost: int
    late: int

    def edges(self) -> tuple[Ints, Ints]:
        """Return senders and receivers of what went from one peer to another [E]."""
        pairs = [
            (letter.sender, receiver)
            for receiver, own in sorted(self.letters.items())
            for letter in own
            if letter.sender != receiver
        ]
        found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]


def payload_name(kind: str, server_round: int) -> str:
    """Name the payloads of a kind that are made in a round."""
    return f"{kind}@{server_round}"


def round_of(name: str) -> int:
    """Return the round in which a payload was made, from its name."""
    return int(name.rpartition("@")[2])


class Neighbours:
    """Turns mixing weights and availability into letters; remembers what is still on its way.

    It also remembers who could have influenced whom: a bit for each pair of peers, 12.5 MB for
    10,000 of them.
    """

    def __init__(
        self, mixing: Mixing, availability: Availability, num_peers: int, missing: Missing
    ) -> None:
        """Begin with nothing on its way.

        Args:
            mixing: Round -> W.
            availability: Who is there, and what arrives.
            num_peers: n.
            missing: What becomes of the weight of a neighbour that does not answer: "renormalise"
                shares it among those who do, "own" gives it to the receiver itself, "drop" leaves
                it out. "sender", where weights are pushed: what does not arrive stays with the
                sender, what is late counts when it comes, so that no weight is ever lost.

        Raises:
            ValueError: There is no such choice.
        """
        if missing not in ("renormalise", "own", "drop", "sender"):
            raise ValueError(
                f"strategy.missing={missing}: expected renormalise, own, drop or sender"
            )
        self.mixing = mixing
        self.availability = availability
        self.num_peers = num_peers
        self._missing = missing
        self._late: list[tuple[int, int, Letter]] = []  # due in which round, for whom
        self._informed = np.packbits(np.eye(num_peers, dtype=np.bool_), axis=1)
        self._known: dict[str, npt.NDArray[np.uint8]] = {}  # when a late letter was sent

    # --- a round ---

    def awake(self, server_round: int) -> list[int]:
        """Return who takes part in a round, ascending."""
        return [int(k) for k in np.flatnonzero(self.availability.awake(server_round))]

    def present(self, server_round: int) -> list[int]:
        """Return who belongs to the federation in a round, ascending."""
        return [int(k) for k in np.flatnonzero(self.availability.present(server_round))]

    def deliver(
        self, server_round: int, kind: str, have: Collection[int], with_own: bool = True
    ) -> Delivery:
        """Say which payloads arrive at which peers, and with which weights.

        Args:
            server_round: 1..R.
            kind: Of the payloads that were made now; what was made late is of the same.
            have: Who made one.
            with_own: Whether a receiver's own counts too.

        Returns:
            The letters of all who are awake.
        """
        matrix = self.mixing(server_round).tocoo()
        everyone = zip(matrix.row.tolist(), matrix.col.tolist(), matrix.data.tolist(), strict=True)
        entries = [(i, j, w) for i, j, w in everyone if w > 0 and (with_own or i != j)]
        awake, made = set(self.awake(server_round)), set(have)
        if self._missing == "sender":  # whoever has sent nothing keeps its weight, and takes none
            awake &= made
        sent = [(i, j, w) for i, j, w in entries if j in made]
        delays = self.availability.delays(
            server_round, *(np.array([e[k] for e in sent], dtype=np.int64) for k in (1, 0))
        )
        name = payload_name(kind, server_round)
        found: dict[int, list[Letter]] = {i: [] for i in awake}
        kept: dict[int, float] = {}  # by the sender, of what does not arrive
        lost = 0
        for (i, j, weight), delay in zip(sent, delays.tolist(), strict=True):
            letter = Letter(j, name, weight)
            if i == j or (delay == 0 and i in awake):
                found[i].append(letter)
            elif delay > 0:
                self._late.append((server_round + delay, i, letter))
                self._known[name] = self._informed
            else:
                lost += 1
                kept[j] = kept.get(j, 0.0) + weight
        late, missed = self._arrive(server_round, kind, found)
        if with_own:
            for i in awake & made:  # whom nothing reaches has what it made
                found[i] = found[i] or [Letter(i, name, 1.0)]
        rows: dict[int, dict[int, float]] = {}
        for i, j, weight in entries:
            rows.setdefault(i, {})[j] = weight
        letters = {
            i: self._weighed(i, own, rows.get(i, {}), kept.get(i, 0.0))
            for i, own in found.items()
            if own
        }
        self._learn(letters, name)
        names = self.waiting()
        self._known = {key: value for key, value in self._known.items() if key in names}
        return Delivery(letters, lost + missed, late)

    def informed_share(self) -> float:
        """Return the share of ordered pairs (i, j) in which j could have influenced i, in [1/n, 1].

        Own influence counts.
        """
        return float(np.bitwise_count(self._informed).sum()) / self.num_peers**2

    def informed(self) -> npt.NDArray[np.bool_]:
        """Return who could have influenced whom [n receivers, n]."""
        return np.unpackbits(self._informed, axis=1, count=self.num_peers).astype(np.bool_)

    def waiting(self) -> set[str]:
        """Return the names of payloads that are still on their way."""
        return {letter.name for _, _, letter in self._late}

    def end(self) -> set[str]:
        """Give up what is on its way; return the names of those payloads."""
        names, self._late, self._known = self.waiting(), [], {}
        return names

    # --- checkpoints ---

    def state(self, payloads: KeptPayloads) -> RecordDict:
        """Return all that is remembered, payloads on their way included."""
        letters = [letter for _, _, letter in self._late]
        arrays = {
            "due": np.array([due for due, _, _ in self._late], dtype=np.int64),
            "receiver": np.array([i for _, i, _ in self._late], dtype=np.int64),
            "sender": np.array([letter.sender for letter in letters], dtype=np.int64),
            "weight": np.array([letter.weight for letter in letters]),
            INFORMED: self._informed,
            **{f"known/{name}": value for name, value in self._known.items()},
        }
        state = RecordDict({LATE: write_arrays(arrays)})
        state["names"] = ConfigRecord({"late": [letter.name for letter in letters]})
        for name, sender in sorted({(letter.name, letter.sender) for letter in letters}):
            for key, record in payloads.read(name, sender).items():
                state[f"payload/{name}/{sender}/{key}"] = record
        return state

    def restore(self, state: RecordDict) -> dict[tuple[str, int], RecordDict]:
        """Go on from what `state` returned; return payloads on their way by name and sender."""
        arrays = read_arrays(state.array_records[LATE])
        names: Any = state.config_records["names"]["late"]
        columns = [arrays[key].tolist() for key in ("due", "receiver", "sender", "weight")]
        self._late = [
            (due, i, Letter(j, name, weight))
            for due, i, j, weight, name in zip(*columns, names, strict=True)
        ]
        self._informed = arrays[INFORMED].copy()
        known = {key: value for key, value in arrays.items() if key.startswith("known/")}
        self._known = {key.removeprefix("known/"): value.copy() for key, value in known.items()}
        payloads: dict[tuple[str, int], RecordDict] = {}
        for path, record in state.items():
            if path.startswith("payload/"):
                _, name, sender, key = path.split("/", 3)
                payloads.setdefault((name, int(sender)), RecordDict())[key] = record
        return payloads

    # --- steps ---

    def _arrive(
        self, server_round: int, kind: str, found: dict[int, list[Letter]]
    ) -> tuple[int, int]:
        """Add what is late and due; return how many came, and how many are of no use any more.

        Of two of one sender the newer counts, and who sleeps does not get it; but where weights are
        pushed nothing may be lost: both count, and who sleeps gets it in the next round.
        """
        waiting, came, missed = [], 0, 0
        for due, i, letter in self._late:
            if due > server_round or _kind_of(letter) != kind:
                waiting.append((due, i, letter))
            elif self._missing == "sender" and i not in found:
                waiting.append((server_round + 1, i, letter))
            elif i in found and (
                self._missing == "sender" or letter.sender not in {own.sender for own in found[i]}
            ):
                found[i].append(letter)
                came += 1
            else:
                missed += 1
        self._late = waiting
        return came, missed

    def _weighed(
        self, receiver: int, found: list[Letter], row: dict[int, float], kept: float
    ) -> list[Letter]:
        """Order a receiver's letters; see to the weights of those that are missing."""
        letters = sorted(found, key=lambda each: (each.sender, round_of(each.name)))
        senders = {letter.sender for letter in letters}
        total, arrived = sum(row.values()), sum(letter.weight for letter in letters)
        own = kept if self._missing == "sender" else total - arrived
        if self._missing == "drop" or (self._missing != "sender" and row.keys() == senders):
            return letters
        if self._missing == "sender" or (
            self._missing == "own" and receiver in senders and own > 0
        ):
            return [
                replace(each, weight=each.weight + own) if each.sender == receiver else each
                for each in letters
            ]
        return [replace(each, weight=each.weight * (total / arrived)) for each in letters]

    def _learn(self, letters: dict[int, list[Letter]], name: str) -> None:
        """Note whose influence has come to whom."""
        before = self._informed
        after = before.copy()
        for receiver, own in letters.items():
            for letter in own:
                known = before if letter.name == name else self._known[letter.name]
                after[receiver] |= known[letter.sender]
        self._informed = after


def _kind_of(letter: Letter) -> str:
    return letter.name.rpartition("@")[0]
