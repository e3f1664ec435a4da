"""A round in numbers: the line of `metrics.jsonl`, and what it cost."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.analysis.probes.values import Curve
from sim.engine.rounds import RoundReport
from sim.tracking.clients_table import CLOCK, IDENTITY, MEASURES, OF_CLIENTS, noted

SPREAD = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
"""Quantiles under which a per-client value is shown, beside its mean."""

RESERVED = {*IDENTITY, *MEASURES, *OF_CLIENTS}
"""Names that no probe may give to a value of clients: they are columns already."""


def summarise(
    report: RoundReport,
    rows: list[dict[str, Any]],
    probed: dict[str, float],
    by_client: Sequence[str] = (),
) -> dict[str, Any]:
    """Reduce a round to the line of `metrics.jsonl`: no times, so its bytes repeat.

    Args:
        report: What the round loop reports.
        rows: The round's rows of the per-client table.
        probed: What the probes found of the whole round.
        by_client: Columns that the probes added to the rows.

    Returns:
        Nested names and numbers: round, student, strategy, clients, probes, bytes, failures;
        and simulated_time_s, if there is a virtual clock.
    """
    clients: dict[str, dict[str, float]] = {}
    for measure in dict.fromkeys((*OF_CLIENTS, *by_client, *noted(report.exchanges))):
        values = [row[measure] for row in rows if np.isfinite(row.get(measure, np.nan))]
        if values:
            quantiles = np.quantile(values, list(SPREAD.values()))
            clients[measure] = {"mean": float(np.mean(values))}
            clients[measure] |= {k: float(q) for k, q in zip(SPREAD, quantiles, strict=True)}
    clock = {} if report.simulated_time_s is None else {CLOCK: report.simulated_time_s}
    return {
        "round": report.server_round,
        "student": report.student,
        "strategy": {k.replace("-", "_"): v for k, v in (report.train | report.evaluated).items()},
        "clients": clients,
        "probes": probed,
        "bytes": {
            "request": sum(row["request_bytes"] for row in rows),
            "reply": sum(row["reply_bytes"] for row in rows),
        },
        "failures": sum(bool(exchange.failure) for exchange in report.exchanges),
        **clock,
    }


def extremes(values: dict[str, float] | None) -> dict[str, float] | None:
    """Keep the least, the mean and the largest of a per-client value."""
    return None if values is None else {name: values[name] for name in ("min", "mean", "max")}


def whose(line: dict[str, Any], measure: str) -> dict[str, Any]:
    """Return what `result.json` has of a measure: of student, ensemble and clients in a round."""
    return {
        f"student_{measure}": line["student"].get(measure),
        f"ensemble_{measure}": line["strategy"].get(f"ensemble_{measure}"),
        f"clients_{measure}": extremes(line["clients"].get(measure)),
        f"clients_private_{measure}": extremes(line["clients"].get(f"private_{measure}")),
    }


def flat(line: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Turn nested names into single ones, `clients/accuracy/mean`, of finite numbers."""
    tags: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, dict):
            tags |= flat(value, f"{prefix}{key}/")
        elif value is not None and np.isfinite(value):  # null is how a line says that it is not
            tags[prefix + key] = float(value)
    return tags


def watched(rows: list[dict[str, Any]], client_ids: Sequence[int]) -> dict[str, float]:
    """Return curves of their own for some clients.

    Args:
        rows: Of a round.
        client_ids: Whose.

    Returns:
        Numbers by tag, `watch/client_3/accuracy`.
    """
    return {
        f"watch/client_{row['client']}/{name}": float(value)
        for row in rows
        if row["client"] in client_ids
        for name, value in row.items()
        if name not in ("round", "client") and isinstance(value, int | float)
    }


OVER = {
    "megabytes": ("accuracy_by_megabyte", "megabytes sent"),
    CLOCK: ("accuracy_by_simulated_second", "simulated seconds"),
}
"""Figures of accuracy, by what it cost: their names and their axes'."""


def accuracy_of(line: dict[str, Any]) -> float | None:
    """Return the student's accuracy, or where there is none the clients' mean one.

    Without a server what is measured as the student is the mean of the peers' parameters, which no
    peer has: there it is the clients' too.
    """
    found: float | None = line["student"].get("accuracy")
    if found is None or "edge_bytes" in line["strategy"]:
        found = line["clients"].get("accuracy", {}).get("mean", found)
    return found


def costs(line: dict[str, Any], before: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return what a run has spent so far, and what it got for that.

    Args:
        line: Of `metrics.jsonl`.
        before: What this returned for the lines before it.

    Returns:
        `megabytes` sent both ways, without a server between peers, and, where there is a clock,
        `simulated_time_s`; where there is an accuracy, `accuracy_per_megabyte` and
        `accuracy_per_simulated_second`.
    """
    spent = before[-1] if before else {}
    sent = line["strategy"].get("edge_bytes", sum(line["bytes"].values()))
    found = {"megabytes": spent.get("megabytes", 0.0) + sent / 1e6}
    if CLOCK in line:
        found[CLOCK] = spent.get(CLOCK, 0.0) + line[CLOCK]
    if (accuracy := accuracy_of(line)) is not None:
        for per, amount in zip(("megabyte", "simulated_second"), [*found.values()], strict=False):
            if amount > 0:
                found[f"accuracy_per_{per}"] = accuracy / amount
    return found


def over_costs(
    lines: Sequence[dict[str, Any]], spent: Sequence[dict[str, float]]
) -> dict[str, Curve]:
    """Draw what was reached over what was spent for it.

    Args:
        lines: Of `metrics.jsonl`.
        spent: What `costs` returned for each.

    Returns:
        Figures by name, of what there is.
    """
    figures = {}
    for cost, (name, axis) in OVER.items():
        pairs = [
            (until[cost], accuracy)
            for until, line in zip(spent, lines, strict=True)
            if cost in until and (accuracy := accuracy_of(line)) is not None
        ]
        if pairs:
            x, y = np.array(pairs, dtype=np.float64).T
            figures[name] = Curve(axis, "accuracy", {"accuracy": (x, y)})
    return figures


def between_peers(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Sum up what peers sent each other without a server.

    Args:
        lines: Of `metrics.jsonl`.

    Returns:
        `messages`, `edge_bytes`, `lost_messages` and `late_messages`; nothing with a server.
    """
    names = ("messages", "edge_bytes", "lost_messages", "late_messages")
    there = [line["strategy"] for line in lines if "edge_bytes" in line["strategy"]]
    return {name: sum(line[name] for line in there) for name in names if there}
