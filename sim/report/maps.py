"""Heat maps of a run's clients: how good each was in each round, what it learns from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.report.drawing import Floats
from sim.report.reading_client_tables import ClientTables, architectures_of

MOST_ROWS = 1000
"""How many clients a map shows; of more, so many at equal distances."""
MOST_COLUMNS = 1000
FEW_CLIENTS = 30
"""So many can be named beside a map one by one."""

QUALITY = {
    "accuracy": "accuracy of clients' own networks on the test set",
    "private_accuracy": "accuracy of the global model on clients' private data",
    "train_loss": "training loss in nats",
}
DRIFT = {
    "js_to_ensemble": "Jensen-Shannon divergence of answers to the clients' mean answer, nats",
    "cosine_to_mean": "cosine of a client's update to the mean update",
}
"""What maps of rounds may show: of each the first that the run has."""
MEASURED = ("round", "client", "architecture", *QUALITY, *DRIFT)
HELD = ("client", "label", "num_examples")
"""Columns of `clients.parquet` and of `partition.parquet`."""


@dataclass(frozen=True)
class Map:
    """A matrix with what is written beside it.

    Attributes:
        title: Above it.
        values: [rows, columns], NaN where there is nothing.
        columns: Their names.
        marks: (row, text) beside it.
        labels: Of columns, rows and values.
        percent: Whether values are shares.
        note: What a reader must know of it; may be "".
    """

    title: str
    values: Floats
    columns: list[str]
    marks: list[tuple[float, str]]
    labels: tuple[str, str, str]
    percent: bool
    note: str


def maps_of(tables: ClientTables) -> list[Map]:
    """Make a run's maps.

    Args:
        tables: With the columns that MEASURED and HELD name.

    Returns:
        Client by round, and client by class, as far as there are tables for them.
    """
    table = tables.clients
    by_round = [*_by_round(table, "clients", QUALITY), *_by_round(table, "drift", DRIFT)]
    return [*by_round, *_by_class(tables.partition, architectures_of(table))]


def _by_round(table: Mapping[str, Any], title: str, measures: Mapping[str, str]) -> Iterator[Map]:
    there = (name for name in measures if name in table and np.isfinite(table[name]).any())
    measure = next(there, None)
    if measure is None or not {"round", "client"} <= table.keys():
        return
    counted = np.isfinite(table[measure])
    architectures = architectures_of(table)
    clients, note = _chosen(np.unique(table["client"]), architectures)
    rounds = np.unique(table["round"][counted])
    rounds = rounds[np.unique(np.linspace(0, len(rounds) - 1, MOST_COLUMNS).astype(int))]
    counted &= np.isin(table["client"], clients) & np.isin(table["round"], rounds)
    values = np.full((len(clients), len(rounds)), np.nan)
    row = _position(clients, table["client"][counted])
    values[row, np.searchsorted(rounds, table["round"][counted])] = table[measure][counted]
    yield Map(
        title=f"{title} over rounds",
        values=values,
        columns=[str(number) for number in rounds],
        marks=_marks(clients, architectures),
        labels=("round", "client", measure.replace("_", " ")),
        percent=measure.endswith("accuracy"),
        note=f"{measures[measure]}; empty where a client was not asked or has no value{note}",
    )


def _by_class(table: Mapping[str, Any], architectures: dict[int, str]) -> Iterator[Map]:
    if not set(HELD) <= table.keys():
        return
    clients, note = _chosen(np.unique(table["client"]), architectures)
    labels = np.unique(table["label"])[:MOST_COLUMNS]
    counted = np.isin(table["client"], clients) & np.isin(table["label"], labels)
    values = np.full((len(clients), len(labels)), np.nan)
    row = _position(clients, table["client"][counted])
    column = np.searchsorted(labels, table["label"][counted])
    values[row, column] = table["num_examples"][counted]
    yield Map(
        title="private examples of each class",
        values=values,
        columns=[str(label) for label in labels],
        marks=_marks(clients, architectures),
        labels=("class", "client", "examples"),
        percent=False,
        note=f"empty where a client has none{note}",
    )


def _chosen(
    clients: npt.NDArray[np.integer[Any]], architectures: dict[int, str]
) -> tuple[npt.NDArray[np.integer[Any]], str]:
    """Order clients by architecture, then id; take some at equal distances of too many."""
    ordered = sorted(clients.tolist(), key=lambda c: (str(architectures.get(c, "")), c))
    if len(ordered) <= MOST_ROWS:
        return np.array(ordered), ""
    kept = np.linspace(0, len(ordered) - 1, MOST_ROWS).astype(int)
    return np.array(ordered)[kept], f"; {MOST_ROWS:,} of {len(ordered):,} clients are shown"


def _position(
    clients: npt.NDArray[np.integer[Any]], wanted: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.integer[Any]]:
    """Find each wanted client's row; all are among the clients."""
    order = np.argsort(clients)
    return order[np.searchsorted(clients[order], wanted)]


def _marks(
    clients: npt.NDArray[np.integer[Any]], architectures: dict[int, str]
) -> list[tuple[float, str]]:
    kinds = [str(architectures.get(client, "")) for client in clients.tolist()]
    if len(clients) <= FEW_CLIENTS:
        names = zip(kinds, clients.tolist(), strict=True)
        return [(row, f"{kind} {client}".strip()) for row, (kind, client) in enumerate(names)]
    middles = {
        kind: kinds.index(kind) + kinds.count(kind) / 2 - 0.5 for kind in dict.fromkeys(kinds)
    }
    room = 0.03 * len(clients)  # marks of small groups would lie upon each other
    marks: list[tuple[float, str]] = []
    for kind, middle in middles.items():
        if not marks or middle - marks[-1][0] >= room:
            marks.append((middle, kind or "all"))
    return marks
