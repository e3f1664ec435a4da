"""What letters weigh where they are used: a row of W where peers mix, columns where they push."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from clients.messages.payload_routing import Letter
from strategies.decentralised.late_messages import round_of

Missing = Literal["renormalise", "own", "drop", "sender"]
LOST = -1

Sent = tuple[int, int, float, int]
"""Receiver, sender, weight, and how many rounds later it arrives; LOST for never."""


def newest(letters: Iterable[Letter]) -> list[Letter]:
    """Keep the newest letter of each sender, ordered by sender."""
    found: dict[int, Letter] = {}
    for letter in sorted(letters, key=lambda each: round_of(each.name)):
        found[letter.sender] = letter
    return [found[sender] for sender in sorted(found)]


def mixed_row(
    receiver: int,
    letters: Iterable[Letter],
    row: Mapping[int, float],
    missing: Missing,
    own: str | None,
) -> list[Letter]:
    """Weigh the letters of one receiver so that they sum to what its row of W does.

    Whenever a letter was sent, it weighs what W says in the round in which it is used; one whose
    sender is no neighbour any more weighs what it did when it was sent, as far as there is room.

    Args:
        receiver: Whose letters they are.
        letters: One of each sender, ordered by sender.
        row: Weight by sender, of this round; its sum, one where W's rows sum to one, is what the
            letters' weights sum to. Without any neighbour that is one.
        missing: What becomes of the weight of a sender whose letter is not there: "renormalise"
            shares it among those that are, "own" gives it to the receiver's own, "drop" leaves it
            out. Too much weight is always shared.
        own: Name of what the receiver made; None = nothing, or it does not count.

    Returns:
        The letters, ordered by sender, of positive weight.
    """
    weighed = [replace(each, weight=row.get(each.sender, each.weight)) for each in letters]
    if row.keys() == {letter.sender for letter in weighed}:
        return weighed
    total = sum(row.values()) or 1.0
    if not weighed:
        return [] if own is None else [Letter(receiver, own, total)]
    left = total - sum(letter.weight for letter in weighed)
    if left > 0 and missing == "drop":
        return weighed
    if left > 0 and missing == "own" and own is not None:
        return give_own(receiver, weighed, own, left)
    arrived = sum(letter.weight for letter in weighed)
    return [replace(each, weight=each.weight * (total / arrived)) for each in weighed]


def give_own(receiver: int, letters: Sequence[Letter], own: str, weight: float) -> list[Letter]:
    """Give more weight to what a receiver made itself in this round.

    Args:
        receiver: Who it is.
        letters: What it gets, in any order.
        own: Name of what it made.
        weight: To be added, >= 0; without any it gets no letter from itself.

    Returns:
        The letters, ordered by sender and by round.
    """
    mine = next((each for each in letters if each.name == own and each.sender == receiver), None)
    others = [each for each in letters if each is not mine]
    if mine is not None:
        others.append(replace(mine, weight=mine.weight + weight))
    elif weight > 0:
        others.append(Letter(receiver, own, weight))
    return sorted(others, key=lambda each: (each.sender, round_of(each.name)))


def held_back(sent: Sequence[Sent], reached: Collection[int]) -> list[Sent]:
    """Let those keep what they push who would have nothing left: a mean of no weight is none.

    Where W has a diagonal there is nobody: all keep a share.

    Args:
        sent: All of a round; what is lost stays with its sender.
        reached: Who gets something that was sent in an earlier round.

    Returns:
        The same, with what is kept marked as lost.
    """
    held: set[int] = set()
    keep = {*reached, *(j for _, j, _, delay in sent if delay == LOST)}
    while (
        bare := {j for _, j, _, _ in sent}
        - held
        - keep
        - {i for i, j, _, delay in sent if delay == 0 and j not in held}
    ):
        held |= bare
    return [(i, j, weight, LOST if j in held else delay) for i, j, weight, delay in sent]


def kept_by_sender(sent: Iterable[Sent]) -> dict[int, float]:
    """Add up by sender what does not arrive."""
    kept: dict[int, float] = {}
    for _, j, weight, delay in sent:
        if delay == LOST:
            kept[j] = kept.get(j, 0.0) + weight
    return kept
