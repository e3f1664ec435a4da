"""Letters that come in a later round than they were sent in: which are due, which are of no use."""

from collections.abc import Collection, Mapping, Sequence

from flwr.app import RecordDict

from clients.messages.payload_routing import KeptPayloads, Letter

Late = tuple[int, int, Letter]
"""Due in which round, for whom, and what."""

Weighed = dict[tuple[str, int], tuple[RecordDict, int | None]]
"""Payloads by name and sender, with the bytes in which each was sent; None = older, not known."""


def round_of(name: str) -> int:
    """Return the round in which a payload was made, from its name."""
    return int(name.rpartition("@")[2])


def due_now(
    late: Sequence[Late], server_round: int, kind: str, awake: Collection[int], keep: bool
) -> tuple[dict[int, list[Letter]], list[Late], int]:
    """Take out letters that are due.

    Args:
        late: All that are on their way.
        server_round: 1..R.
        kind: Of payloads; others wait for their turn.
        awake: Who gets them.
        keep: Whether those for others come in the next round; else these are lost.

    Returns:
        Those that arrive, by receiver; those that go on waiting; and how many find nobody.
    """
    found: dict[int, list[Letter]] = {}
    waiting: list[Late] = []
    for due, i, letter in late:
        if due > server_round or kind_of(letter) != kind:
            waiting.append((due, i, letter))
        elif i in awake:
            found.setdefault(i, []).append(letter)
        elif keep:
            waiting.append((server_round + 1, i, letter))
    arrived = sum(map(len, found.values()))
    return found, waiting, len(late) - len(waiting) - arrived


def without_overtaken(
    late: Sequence[Late], kind: str, letters: Mapping[int, Sequence[Letter]]
) -> list[Late]:
    """Give up letters that are older than what their receivers have of the same senders.

    Args:
        late: All that are on their way.
        kind: Of payloads; others stay.
        letters: By receiver, what it gets now.

    Returns:
        Those that may still be of use.
    """
    newer = {(i, each.sender): round_of(each.name) for i in letters for each in letters[i]}
    return [
        (due, i, letter)
        for due, i, letter in late
        if kind_of(letter) != kind or round_of(letter.name) >= newer.get((i, letter.sender), 0)
    ]


def kind_of(letter: Letter) -> str:
    """Return what kind of payload a letter is, from its name."""
    return letter.name.rpartition("@")[0]


def records_of(late: Sequence[Late], payloads: KeptPayloads) -> RecordDict:
    """Return all records of late letters' payloads, each under a path that `payloads_in` reads."""
    return RecordDict(
        {
            f"payload/{name}/{sender}/{key}": record
            for name, sender in sorted({(letter.name, letter.sender) for _, _, letter in late})
            for key, record in payloads.read(name, sender).items()
        }
    )


def payloads_in(state: RecordDict, late: Sequence[Late], sizes: Sequence[int | None]) -> Weighed:
    """Return the payloads of a state.

    Args:
        state: With what `records_of` returned among others.
        late: All letters that are on their way.
        sizes: Bytes in which the payload of each was sent; None = not known.

    Returns:
        They, by name and sender.
    """
    found: dict[tuple[str, int], RecordDict] = {}
    for path, record in state.items():
        if path.startswith("payload/"):
            _, name, sender, key = path.split("/", 3)
            found.setdefault((name, int(sender)), RecordDict())[key] = record
    weigh = {(each.name, each.sender): s for (*_, each), s in zip(late, sizes, strict=True)}
    return {made: (payload, weigh[made]) for made, payload in found.items()}
