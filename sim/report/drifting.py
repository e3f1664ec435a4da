"""Which clients drift most: by each measure the one whose last value is furthest out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.report.drawing import Floats
from sim.report.reading import Run, read_table
from sim.run_files import CLIENTS

FEWEST_CLIENTS = 3
"""Of two neither is further out than the other."""

MEASURES = {
    "js_to_ensemble": ("Jensen-Shannon divergence to the ensemble, nats", 1),
    "kl_to_ensemble": ("KL from the mean answer, nats", 1),
    "disagreement": ("disagreement with the others", 1),
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


@dataclass(frozen=True)
class Furthest:
    """The client that is furthest out by one measure.

    Attributes:
        measure: A column of `clients.parquet`.
        meaning: What that is.
        client: Its id.
        architecture: Its network's name; "" if that is not known.
        value: Its last one.
        following: The last value of the client that comes next.
        median: Of all clients' last values.
        since: From which round on it was furthest out of the cohort in every round that it was in.
    """

    measure: str
    meaning: str
    client: int
    architecture: str
    value: float
    following: float
    median: float
    since: int


def furthest(run: Run) -> list[Furthest]:
    """Find who is furthest out by each measure of drift.

    Args:
        run: Any run.

    Returns:
        One for each measure that at least three clients have a value of; none where the first two
        are alike.

    Raises:
        ReportError: The table of clients cannot be read.
    """
    table = read_table(run.folder / CLIENTS, ("round", "client", "architecture", *MEASURES))
    if not {"round", "client"} <= table.keys():
        return []
    found = (_furthest(table, name) for name in MEASURES if name in table)
    return [one for one in found if one is not None]


def sentence(rows: Sequence[Furthest]) -> str:
    """Say who is furthest out by most measures.

    Args:
        rows: As `furthest` finds them, at least one.

    Returns:
        Such as "Client 3 (mlp) is furthest out by 8 of 9 measures."
    """
    ((client, architecture), count), *_ = Counter(
        (row.client, row.architecture) for row in rows
    ).most_common()
    name = f"Client {client}" + (f" ({architecture})" if architecture else "")
    return f"{name} is furthest out by {count} of {len(rows)} measures."


def _furthest(table: dict[str, Any], name: str) -> Furthest | None:
    said, sign = MEASURES[name]
    known = np.isfinite(table[name])
    order = np.argsort(table["round"][known], kind="stable")
    clients, rounds, values = (table[key][known][order] for key in ("client", "round", name))
    ids, at = np.unique(clients[::-1], return_index=True)
    if len(ids) < FEWEST_CLIENTS:
        return None
    out = sign * values[::-1][at]
    second, first = np.argsort(out, kind="stable")[-2:]
    if out[first] == out[second]:
        return None
    kinds = table.get("architecture", np.full(len(known), ""))
    return Furthest(
        measure=name,
        meaning=said,
        client=int(ids[first]),
        architecture=str(kinds[known][order][clients == ids[first]][0]),
        value=float(sign * out[first]),
        following=float(sign * out[second]),
        median=float(np.median(sign * out)),
        since=_since(rounds, sign * values, clients == ids[first]),
    )


def _since(rounds: npt.NDArray[Any], out: Floats, own: npt.NDArray[np.bool_]) -> int:
    """Go back from the last round as far as nobody was further out, nor as far."""
    numbers, place = np.unique(rounds, return_inverse=True)
    others = np.full(len(numbers), -np.inf)
    np.maximum.at(others, place[~own], out[~own])
    began = int(rounds[own][-1])
    for number, value, other in zip(
        rounds[own][::-1], out[own][::-1], others[place[own]][::-1], strict=True
    ):
        if value <= other:
            break
        began = int(number)
    return began
