"""What a run leaves behind for people: TensorBoard events and the lines of the run folder.

The only module that knows `SummaryWriter`. The number of tags does not depend on the number of
clients: per-client values become quantiles and one histogram.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from clients.teachers import GraphView, RoundView
from sim.rounds import RoundReport
from sim.run_folder import (
    FAILURES,
    METRICS,
    append_line,
    client_rows,
    read_lines,
    write_clients,
)

Probe = Callable[[RoundView], dict[str, float]]

SPREAD = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
"""Quantiles under which a per-client value is shown, beside its mean."""


class Tracker:
    """Writes a run folder round by round. Reads what it is given and changes nothing."""

    def __init__(
        self,
        folder: Path,
        probes: Sequence[Probe],
        config_text: str,
        rows: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Open the run folder's files; lines that `metrics.jsonl` has already are gone on from.

        Args:
            folder: The run folder; must exist.
            probes: What to compute from each distillation round's view.
            config_text: The resolved config as YAML, shown in TensorBoard's text page.
            rows: Of the per-client table, of the rounds that there are lines of.
        """
        self.folder = folder
        self.rows = list(rows)
        self.summaries = read_lines(folder / METRICS)
        self._probes = probes
        self._probed: dict[str, float] = {}
        self._round_began = time.perf_counter()
        # TensorBoard hides what an interrupted run had written of the rounds to come.
        purge = len(self.summaries) + 1 if self.summaries else None
        self._writer = SummaryWriter(str(folder / "events"), purge_step=purge)
        indented = "\n".join("    " + line for line in config_text.splitlines())
        self._writer.add_text("config", indented)

    def view(self, view: RoundView) -> None:
        """Probe a distillation round; the numbers go into the round's summary."""
        for probe in self._probes:
            self._probed |= probe(view)

    def graph(self, view: GraphView) -> None:
        """Take in who heard of whom."""

    def round(self, report: RoundReport) -> dict[str, Any]:
        """Write one round down.

        Args:
            report: What the round loop reports.

        Returns:
            The round's line of `metrics.jsonl`.
        """
        rows = client_rows(report.exchanges)
        self.rows += rows
        line = summarise(report, rows, self._probed)
        self.summaries.append(line)
        append_line(self.folder / METRICS, line)
        for exchange in report.exchanges:
            if exchange.failure:
                append_line(
                    self.folder / FAILURES,
                    {
                        "round": exchange.server_round,
                        "client": exchange.client_id,
                        "architecture": exchange.architecture,
                        "phase": exchange.phase,
                        "failure": exchange.failure,
                        "traceback": exchange.traceback,
                    },
                )
        self._show(line, rows)
        self._probed = {}
        return line

    def lines(self) -> dict[Path, int]:
        """Count the lines written to `metrics.jsonl` and `failures.jsonl`."""
        failures = sum(line["failures"] for line in self.summaries)
        return {self.folder / METRICS: len(self.summaries), self.folder / FAILURES: failures}

    def totals(self) -> dict[str, Any]:
        """Sum the run up for `result.json`: accuracies of the last round, bytes of all."""
        last = self.summaries[-1]
        return {
            "student_accuracy": last["student"].get("accuracy"),
            "ensemble_accuracy": last["strategy"].get("ensemble_accuracy"),
            "clients_accuracy": _extremes(last["clients"].get("accuracy")),
            "clients_private_accuracy": _extremes(last["clients"].get("private_accuracy")),
            "request_bytes": sum(line["bytes"]["request"] for line in self.summaries),
            "reply_bytes": sum(line["bytes"]["reply"] for line in self.summaries),
            "failures": sum(line["failures"] for line in self.summaries),
        }

    def close(self) -> None:
        """Write the per-client table and close the event file."""
        (self.folder / FAILURES).touch()
        write_clients(self.folder, self.rows)
        self._writer.close()

    def _show(self, line: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        step, now = line["round"], time.perf_counter()
        for name, value in _flat(line).items():
            if name != "round":
                self._writer.add_scalar(name, value, step)
        self._writer.add_scalar("seconds/round", now - self._round_began, step)
        for measure in line["clients"]:
            values = np.array([row[measure] for row in rows if measure in row])
            self._writer.add_histogram(f"clients/{measure}", values, step)
        self._writer.flush()
        self._round_began = now


def summarise(
    report: RoundReport, rows: list[dict[str, Any]], probed: dict[str, float]
) -> dict[str, Any]:
    """Reduce a round to the line of `metrics.jsonl`: no times, so its bytes repeat.

    Args:
        report: What the round loop reports.
        rows: The round's rows of the per-client table.
        probed: What the probes found.

    Returns:
        Nested names and numbers: round, student, strategy, clients, probes, bytes, failures.
    """
    clients: dict[str, dict[str, float]] = {}
    for measure in ("accuracy", "loss", "private_accuracy", "private_loss", "train_loss"):
        values = [row[measure] for row in rows if np.isfinite(row.get(measure, np.nan))]
        if values:
            clients[measure] = {"mean": float(np.mean(values))}
            clients[measure] |= {k: float(np.quantile(values, q)) for k, q in SPREAD.items()}
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
    }


def _extremes(values: dict[str, float] | None) -> dict[str, float] | None:
    return None if values is None else {name: values[name] for name in ("min", "mean", "max")}


def _flat(line: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Turn nested names into TensorBoard tags, `clients/accuracy/mean`."""
    flat: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}/")
        else:
            flat[prefix + key] = float(value)
    return flat
