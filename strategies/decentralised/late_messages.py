"""Letters that come in a later round than they were sent in: which are due, which are of no use."""

from collections.abc import Collection, Mapping, Sequence

from clients.messages.routing import Letter

Late = tuple[int, int, Letter]
"""Due in which round, for whom, and what."""


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
