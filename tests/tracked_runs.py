"""Runs that were tracked, and what TensorBoard has of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from clients.messages.answers import Answers
from clients.messages.round_views import RoundView
from sim.analysis.probes import Probe, output_drift, trust
from sim.engine.rounds import RoundReport
from sim.tracking.tracker import Tracker
from strategies.aggregation.scorers import max_prob
from tests.federations import Run, distillation, inline, named, run_ours, simulated, tiny_clients

PROBES: tuple[Probe, ...] = (trust, output_drift)


def tracked(
    folder: Path,
    num_clients: int = 4,
    probes: Sequence[Probe] = PROBES,
    shown: dict[str, Any] | None = None,
    **changes: Any,
) -> Run:
    """Distil for two rounds, writing a run folder."""
    folder.mkdir()
    clients = tiny_clients(num_clients)
    options = {"proxy_labels": clients.splits.proxy.labels, **(shown or {})}
    tracker = Tracker(folder, named(probes), "seed: 7\nrounds: 2\n", **options)
    strategy = distillation(clients, **({"scorer": max_prob, "report": tracker.view} | changes))
    try:
        pool = inline(simulated(clients))
        return run_ours(pool, clients, strategy, rounds=2, report=tracker.round)
    finally:
        tracker.close()


def events_in(folder: Path) -> Path:
    """The folder that TensorBoard takes for the run."""
    (found,) = (path for path in (folder / "events").iterdir() if path.is_dir())
    return found


def events_of(folder: Path, curve: str = "") -> EventAccumulator:
    """What TensorBoard has of a run's own, or of one of its curves, by card."""
    sizes = {"histograms": 0, "images": 0}
    events = EventAccumulator(str(events_in(folder) / curve), size_guidance=sizes)
    events.Reload()
    return events


def curves_of(folder: Path) -> dict[str, EventAccumulator]:
    """The same of every curve; the run's own is called ""."""
    names = [path.name for path in events_in(folder).iterdir() if path.is_dir()]
    return {name: events_of(folder, name) for name in ("", *names)}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def hparams_of(folder: Path) -> dict[str, Any]:
    """What the page that compares runs is told, by tag."""
    found: dict[str, Any] = {}
    for path in events_in(folder).glob("events.*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "hparams":
                    content = value.metadata.plugin_data.content
                    found[value.tag] = HParamsPluginData.FromString(content)
    return found


def layout_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Charts by category and title; the last layout is what TensorBoard shows."""
    proto = layout_pb2.Layout()
    (*_, last) = events_of(folder).Tensors("custom_scalars__config__")
    proto.ParseFromString(last.tensor_proto.string_val[0])
    return {category.title: {c.title: c for c in category.chart} for category in proto.category}


def seen(num_clients: int = 2) -> RoundView:
    teachers = Answers(
        tuple(range(num_clients)), torch.zeros(num_clients, 0, 0),
        torch.zeros(num_clients, 0, dtype=torch.bool), None, torch.ones(num_clients),
    )  # fmt: skip
    return RoundView(1, (), teachers, torch.zeros(num_clients, 0), torch.zeros(0, 0), [])


def report(server_round: int, exchanges: list[Any]) -> RoundReport:
    return RoundReport(server_round, ArrayRecord(), {"accuracy": 0.5}, {}, {}, exchanges)
