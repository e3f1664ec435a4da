"""Who gets what from whom in a round of a federation without a server."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol, get_args

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord, RecordDict
from scipy.sparse import csr_array

from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.payload_routing import KeptPayloads, Letter
from strategies.decentralised.influence import Influence
from strategies.decentralised.late_messages import (
    Late,
    Weighed,
    due_now,
    payloads_in,
    records_of,
    without_overtaken,
)
from strategies.decentralised.mixing import (
    LOST,
    Missing,
    Sent,
    give_own,
    held_back,
    kept_by_sender,
    mixed_row,
    newest,
)

Ints = npt.NDArray[np.int64]
Mixing = Callable[[int], csr_array]
"""Round -> W [n receivers, n senders]: `sim.topology.Topology.mixing`, or one like it."""

LATE, OWING, BYTES = "late", "owing", "bytes"


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
    """Turns mixing weights and availability into letters; remembers what is still on its way."""

    def __init__(
        self,
        mixing: Mixing,
        availability: Availability,
        num_clients: int,
        missing: Missing = "renormalise",
    ) -> None:
        """Begin with nothing on its way.

        Args:
            mixing: Round -> W.
            availability: Who is there, and what arrives.
            num_clients: n, how many peers there are.
            missing: What becomes of the weight of a neighbour that does not answer; see
                `mixing.mixed_row`. "sender", where weights are pushed: what does not arrive
                stays with the sender, what is late counts when it comes: no weight is lost or made.

        Raises:
            ValueError: There is no such choice.
        """
        if missing not in get_args(Missing):
            raise ValueError(
                f"strategy.missing={missing}: expected renormalise, own, drop or sender"
            )
        self.mixing = mixing
        self.availability = availability
        self.num_peers, self.missing = num_clients, missing
        self._pushed = missing == "sender"
        self._late: list[Late] = []
        self._influence = Influence(num_clients)
        self._owing: set[int] = set()  # who has pushed all it had, and could not take what came

    # --- a round ---

    def making(self, server_round: int) -> list[int]:
        """Return who makes something to send in a round, ascending: who is awake and owes nothing.

        Where weights are pushed, who could not take what came has no weight until it does.
        """
        return [k for k in self.awake(server_round) if k not in self._owing]

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
            awake &= made | self._owing
        rows = self._rows(server_round, with_own)
        sent = self._sent(server_round, rows, awake, made)
        due, self._late, lost = due_now(self._late, server_round, kind, awake, self._pushed)
        if self._pushed:
            sent = held_back(sent, due.keys())
        name = payload_name(kind, server_round)
        found = self._post(server_round, name, sent, due)
        letters: dict[int, list[Letter]] = {}
        if self._pushed:
            kept = kept_by_sender(sent)
            for i in awake:
                letters[i] = give_own(i, found.get(i, []), name, kept.get(i, 0.0))
        else:
            for i in awake:
                own = name if with_own and i in made else None
                arrived, row = newest(found.get(i, [])), rows.get(i, {})
                letters[i] = mixed_row(i, arrived, row, self.missing, own)
        letters = {i: own for i, own in letters.items() if own}
        late = [(i, each) for i, own in letters.items() for each in own if each.name != name]
        lost += sum(map(len, due.values())) - len(late) + sum(delay == LOST for *_, delay in sent)
        if not self._pushed:
            on_their_way = len(self._late)
            self._late = without_overtaken(self._late, kind, letters)
            lost += on_their_way - len(self._late)
        self._influence.learn(letters, name, self.waiting())
        return Delivery(letters, lost, sum(each.sender != i for i, each in late))

    def taken(self, server_round: int, delivery: Delivery, peers: Collection[int]) -> None:
        """Let pushed letters that could not be taken come again in the next round.

        Their receiver has pushed all that it had, so that its old weight counts no more: else
        weight would be made from nothing. Until it takes them it sends nothing, and what others
        would send it stays with them.

        Args:
            server_round: Of the delivery.
            delivery: What was sent out.
            peers: Who took what came.
        """
        if not self._pushed:
            return
        failed = delivery.letters.keys() - set(peers)
        self._owing = self._owing - set(peers) | failed
        for i in sorted(failed):
            self._late += [(server_round + 1, i, letter) for letter in delivery.letters[i]]
            self._influence.unlearn(i, delivery.letters[i])

    def informed_share(self) -> float:
        """Return the share of ordered pairs (i, j) in which j could have influenced i, in [1/n, 1].

        Own influence counts.
        """
        return self._influence.share()

    def informed(self) -> npt.NDArray[np.bool_]:
        """Return who could have influenced whom [n receivers, n]."""
        return self._influence.table()

    def waiting(self) -> set[str]:
        """Return the names of payloads that are still on their way."""
        return {letter.name for _, _, letter in self._late}

    def end(self) -> set[str]:
        """Give up what is on its way; return the names of those payloads."""
        names, self._late, self._owing = self.waiting(), [], set()
        self._influence.forget()
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
            BYTES: np.array([payloads.size(e.name, e.sender) for e in letters], dtype=np.int64),
            OWING: np.array(sorted(self._owing), dtype=np.int64),
            **self._influence.state(),
        }
        names = ConfigRecord({"late": [letter.name for letter in letters]})
        on_their_way = records_of(self._late, payloads)
        return RecordDict({LATE: write_arrays(arrays), "names": names, **on_their_way})

    def restore(self, state: RecordDict) -> Weighed:
        """Go on from what `state` returned; return the payloads on their way."""
        arrays = read_arrays(state.array_records[LATE])
        names: Any = state.config_records["names"]["late"]
        columns = [arrays[key].tolist() for key in ("due", "receiver", "sender", "weight")]
        self._late = [
            (due, i, Letter(j, name, weight))
            for due, i, j, weight, name in zip(*columns, names, strict=True)
        ]
        self._owing = set(arrays[OWING].tolist())
        self._influence.restore(arrays)
        sizes = arrays[BYTES].tolist() if BYTES in arrays else [None] * len(names)
        return payloads_in(state, self._late, sizes)

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
        """Say when what was made arrives; who sleeps gets nothing in time, who owes nothing."""

        def when(i: int, j: int, delay: int) -> int:
            if i == j:
                return 0
            return LOST if i in self._owing or (delay == 0 and i not in awake) else delay

        sent = [(i, j, w) for i, row in rows.items() for j, w in row.items() if j in made]
        ends = (np.array([each[k] for each in sent], dtype=np.int64) for k in (1, 0))
        delays = self.availability.delays(server_round, *ends).tolist()
        return [(i, j, w, when(i, j, d)) for (i, j, w), d in zip(sent, delays, strict=True)]

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
                self._influence.send_late(name)
        return found
