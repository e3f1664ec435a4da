"""Who gets what from whom in a round of a federation without a server."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol, get_args

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord, RecordDict
from scipy.sparse import csr_array

from clients.arrays import read_arrays, write_arrays
from clients.routing import KeptPayloads, Letter
from strategies.late_letters import Late, due_now, without_overtaken
from strategies.letter_weights import (
    LOST,
    Missing,
    Sent,
    give_own,
    held_back,
    mixed_row,
    newest,
)

Ints = npt.NDArray[np.int64]
Mixing = Callable[[int], csr_array]
"""Round -> W [n receivers, n senders]: `sim.topology.Topology.mixing`, or one like it."""

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
        lost: Messages that never arrive, whose receiver is asleep, or that a newer one overtook.
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
            missing: What becomes of the weight of a neighbour that does not answer; see
                `letter_weights.mixed_row`. "sender", where weights are pushed: what does not arrive
                stays with the sender, what is late counts when it comes, so that no weight is ever
                lost, and none is made.

        Raises:
            ValueError: There is no such choice.
        """
        if missing not in get_args(Missing):
            raise ValueError(
                f"strategy.missing={missing}: expected renormalise, own, drop or sender"
            )
        self.mixing = mixing
        self.availability = availability
        self.num_peers = num_peers
        self._missing, self._pushed = missing, missing == "sender"
        self._late: list[Late] = []
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
        awake, made = set(self.awake(server_round)), set(have)
        if self._pushed:  # whoever has sent nothing keeps its weight, and takes none
            awake &= made
        rows = self._rows(server_round, with_own)
        sent = self._sent(server_round, rows, awake, made)
        due, self._late, lost = due_now(self._late, server_round, kind, awake, self._pushed)
        if self._pushed:
            sent = held_back(sent, due.keys())
        name = payload_name(kind, server_round)
        found = self._post(server_round, name, sent, due)
        letters: dict[int, list[Letter]] = {}
        if self._pushed:
            kept = _kept(sent)
            for i in awake:
                letters[i] = give_own(i, found.get(i, []), name, kept.get(i, 0.0))
        else:
            for i in awake:
                own = name if with_own and i in made else None
                arrived, row = newest(found.get(i, [])), rows.get(i, {})
                letters[i] = mixed_row(i, arrived, row, self._missing, own)
        letters = {i: own for i, own in letters.items() if own}
        late = sum(each.name != name for own in letters.values() for each in own)
        lost += sum(map(len, due.values())) - late + sum(delay == LOST for *_, delay in sent)
        if not self._pushed:
            on_their_way = len(self._late)
            self._late = without_overtaken(self._late, kind, letters)
            lost += on_their_way - len(self._late)
        self._learn(letters, name)
        names = self.waiting()
        self._known = {key: value for key, value in self._known.items() if key in names}
        return Delivery(letters, lost, late)

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

    def _rows(self, server_round: int, with_own: bool) -> dict[int, dict[int, float]]:
        """Return W of a round: weight by receiver and sender."""
        matrix = self.mixing(server_round).tocoo()
        rows: dict[int, dict[int, float]] = {}
        for i, j, weight in zip(
            matrix.row.tolist(), matrix.col.tolist(), matrix.data.tolist(), strict=True
        ):
            if weight > 0 and (with_own or i != j):
                rows.setdefault(i, {})[j] = weight
        return rows

    def _sent(
        self,
        server_round: int,
        rows: dict[int, dict[int, float]],
        awake: Collection[int],
        made: Collection[int],
    ) -> list[Sent]:
        """Say when what was made arrives; who sleeps gets nothing in time."""
        sent = [(i, j, w) for i, row in rows.items() for j, w in row.items() if j in made]
        ends = (np.array([each[k] for each in sent], dtype=np.int64) for k in (1, 0))
        delays = self.availability.delays(server_round, *ends).tolist()
        return [
            (i, j, w, 0 if i == j else LOST if delay == 0 and i not in awake else delay)
            for (i, j, w), delay in zip(sent, delays, strict=True)
        ]

    def _post(
        self, server_round: int, name: str, sent: list[Sent], due: dict[int, list[Letter]]
    ) -> dict[int, list[Letter]]:
        """Put what arrives now with what is due, by receiver; note what comes later."""
        found = {i: [*letters] for i, letters in due.items()}
        for i, j, weight, delay in sent:
            if delay == 0:
                found.setdefault(i, []).append(Letter(j, name, weight))
            elif delay > 0:
                self._late.append((server_round + delay, i, Letter(j, name, weight)))
                self._known[name] = self._informed
        return found

    def _learn(self, letters: dict[int, list[Letter]], name: str) -> None:
        """Note whose influence has come to whom."""
        before = self._informed
        after = before.copy()
        for receiver, own in letters.items():
            for letter in own:
                known = before if letter.name == name else self._known[letter.name]
                after[receiver] |= known[letter.sender]
        self._informed = after


def _kept(sent: list[Sent]) -> dict[int, float]:
    """Add up by sender what does not arrive."""
    kept: dict[int, float] = {}
    for _, j, weight, delay in sent:
        if delay == LOST:
            kept[j] = kept.get(j, 0.0) + weight
    return kept
