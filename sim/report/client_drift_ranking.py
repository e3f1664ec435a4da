"""Which clients drift most: by each measure the one that is furthest out of its round.

Clients are compared within a round only. Everybody learns, so values of different rounds tell how
old they are: a client that was last asked in round 2 would drift most for ever. So it is the last
round in which enough clients have a measure that says who, and rounds with fewer say nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.report.drawing import Floats
from sim.report.reading_client_tables import descriptions_of

FEWEST_CLIENTS = 3
"""Of two neither is further out than the other."""

MEASURES = {
    "js_to_ensemble": ("Jensen-Shannon divergence to the ensemble, nats", 1),
    "kl_to_ensemble": ("KL from the mean answer, nats", 1),
    "disagreement": ("disagreement with the others", 1),
    "deviation": ("distance from the mean answer, in units of the labels", 1),
    "recall_gap": ("recall less the student's", -1),
    "ece": ("calibration error", 1),
    "overconfidence": ("confidence less accuracy", 1),
    "wrong_but_confident_rate": ("share of answers that are wrong but confident", 1),
    "forgetting": ("recall forgotten since its best", 1),
    "relative_update_norm": ("length of the update, by that of the parameters", 1),
    "cosine_to_mean": ("cosine of the update to the mean update", -1),
    "cka_with_student": ("CKA of features with the student's", -1),
}
"""Columns of `clients.parquet`: what each is, and whether drift makes it more or less."""

MOST_NAMED = 3
FEWEST_MEASURES, STANDS_OUT = 4, 0.75
"""A client stands out that leads by so many measures, and this share of them."""
"""So many clients are named where several are furthest out by equally many measures."""


@dataclass(frozen=True)
class Often:
    """The client that was furthest out most often: what a sampled cohort cannot tell alone.

    Attributes:
        client: Its id.
        architecture: Its network's name; "" if that is not known.
        led: In how many rounds it was furthest out.
        ranked: Of how many that it was in and that had enough clients.
    """

    client: int
    architecture: str
    led: int
    ranked: int


@dataclass(frozen=True)
class Furthest:
    """Who is furthest out by one measure, in the last round that at least three clients have it in.

    Attributes:
        measure: A column of `clients.parquet`.
        round: Which round that is.
        ranked: How many clients have the measure in that round.
        known: How many have it in any round that has three clients.
        client: The id of the one that is furthest out; None where the first two are alike.
        architecture: Its network's name; "" if that is not known.
        value: Its value in that round.
        following: The value of the client that comes next.
        median: Of the clients of that round.
        since: From which round on it was furthest out in every round that it was in and that had
            three clients; None where there is no such client.
        often: Who was furthest out most often; None if nobody is alone in that.
    """

    measure: str
    round: int
    ranked: int
    known: int
    client: int | None
    architecture: str
    value: float
    following: float
    median: float
    since: int | None
    often: Often | None

    @property
    def meaning(self) -> str:
        """What the measure is."""
        return MEASURES[self.measure][0]


def furthest(table: Mapping[str, Any]) -> list[Furthest]:
    """Find who is furthest out by each measure of drift.

    Args:
        table: Columns of `clients.parquet`, [rows] each; may lack any.

    Returns:
        One for each measure that at least three clients have in some round.
    """
    if not {"round", "client"} <= table.keys():
        return []
    kinds = descriptions_of(table)
    ranked = ((name, _rankings(table, name)) for name in MEASURES if name in table)
    return [_furthest(name, rankings, kinds) for name, rankings in ranked if rankings]


def sentence(rows: Sequence[Furthest]) -> str:
    """Say who is furthest out by most measures.

    Args:
        rows: As `furthest` finds them, at least one.

    Returns:
        Such as "Client 3 (mlp) is furthest out by 8 of 9 measures in round 5."
    """
    counts = Counter((row.client, row.architecture) for row in rows if row.client is not None)
    ties = sum(row.client is None for row in rows)
    rounds = {row.round for row in rows}
    when = f"in round {max(rounds)}" if len(rounds) == 1 else "in the last round of each"
    if not counts:
        return f"Nobody is furthest out {when}: the first are alike by all {len(rows)} measures."
    most = max(counts.values())
    first = [_named(*who) for who, count in counts.items() if count == most]
    several = len(first) > 1
    names = " and ".join(first) if len(first) <= MOST_NAMED else f"{len(first)} clients"
    by = f"by {most} of {len(rows)} measure{'s' * (len(rows) > 1)}{' each' * several}"
    alike = f"; by {ties} the first are alike" if ties else ""
    said = f"{names} {'are' if several else 'is'} furthest out {by} {when}{alike}."
    return said[0].upper() + said[1:]


def outlier(rows: Sequence[Furthest]) -> str:
    """Say who stands out, and since when, if anybody does: somebody is always furthest out.

    Args:
        rows: As `furthest` finds them.

    Returns:
        A sentence, if one client is furthest out by at least three of four measures; else "".
    """
    counts = Counter(row.client for row in rows if row.client is not None)
    client, most = next(iter(counts.most_common(1)), (None, 0))
    if most < max(FEWEST_MEASURES, STANDS_OUT * len(rows)):
        return ""
    since = Counter(row.since for row in rows if row.client == client).most_common(1)[0][0]
    return f"{sentence(rows)[:-1]}, by most of them since round {since}."


def _named(client: int, architecture: str) -> str:
    return f"client {client}" + (f" ({architecture})" if architecture else "")


@dataclass(frozen=True)
class _Ranking:
    """A round's clients, [K], and how far out each is, [K]; K >= FEWEST_CLIENTS."""

    number: int
    clients: npt.NDArray[np.integer[Any]]
    out: Floats

    @property
    def leader(self) -> int | None:
        second, first = np.argsort(self.out, kind="stable")[-2:]
        return int(self.clients[first]) if self.out[first] > self.out[second] else None


def _rankings(table: Mapping[str, Any], name: str) -> list[_Ranking]:
    known = np.isfinite(table[name])
    order = np.argsort(table["round"][known], kind="stable")
    rounds, clients, values = (table[key][known][order] for key in ("round", "client", name))
    numbers, starts = np.unique(rounds, return_index=True)
    parts = (np.split(part, starts[1:]) for part in (clients, MEASURES[name][1] * values))
    return [
        _Ranking(int(number), asked, out)
        for number, asked, out in zip(numbers, *parts, strict=True)
        if len(asked) >= FEWEST_CLIENTS
    ]


def _furthest(name: str, rankings: Sequence[_Ranking], kinds: Mapping[int, str]) -> Furthest:
    sign, last = MEASURES[name][1], rankings[-1]
    client, ordered = last.leader, np.sort(last.out)
    return Furthest(
        measure=name,
        round=last.number,
        ranked=len(last.clients),
        known=len(np.unique(np.concatenate([each.clients for each in rankings]))),
        client=client,
        architecture="" if client is None else kinds.get(client, ""),
        value=float(sign * ordered[-1]),
        following=float(sign * ordered[-2]),
        median=float(sign * np.median(ordered)),
        since=None if client is None else _since(client, rankings),
        often=_often(rankings, kinds),
    )


def _since(client: int, rankings: Sequence[_Ranking]) -> int:
    """Go back from the last round, which it leads, as far as it leads all that it was in."""
    began = rankings[-1].number
    for ranking in reversed(rankings):
        if client in ranking.clients:
            if ranking.leader != client:
                break
            began = ranking.number
    return began


def _often(rankings: Sequence[_Ranking], kinds: Mapping[int, str]) -> Often | None:
    """Of those that led equally often the one that was there less often comes first."""
    led = Counter(leader for each in rankings if (leader := each.leader) is not None)
    asked = Counter(client for each in rankings for client in each.clients.tolist())
    standing = sorted(((count, -asked[who], who) for who, count in led.items()), reverse=True)
    if not standing or (len(standing) > 1 and standing[0][:2] == standing[1][:2]):
        return None
    count, _, client = standing[0]
    return Often(client, kinds.get(client, ""), count, asked[client])
