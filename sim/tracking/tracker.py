"""What a run leaves behind for people: TensorBoard events and the lines of the run folder.

The number of tags does not depend on the number of clients: per-client values become quantiles and
one histogram, but for clients that are watched.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from clients.duck_typing import offers
from clients.messages.round_views import GraphView, RoundView
from clients.models.factory import Parameters
from sim.analysis.probes.findings import Findings
from sim.analysis.probes.neighbours import neighbour_drift
from sim.analysis.probes.schedule import is_due
from sim.analysis.probes.values import KeepsState, Probe
from sim.engine.rounds import RoundReport
from sim.tracking import projector
from sim.tracking.clients_table import CLOCK, ClientsTable, client_rows
from sim.tracking.round_metrics import (
    RESERVED,
    between_peers,
    costs,
    flat,
    over_costs,
    summarise,
    watched,
    whose,
)
from sim.tracking.run_folder import (
    FAILURES,
    METRICS,
    append_failures,
    append_line,
    read_lines,
    versions,
)
from sim.tracking.tensorboard_run import TensorBoardRun
from sim.workers.process_setup import seeded_globals

if TYPE_CHECKING:
    from sim.tracking.figures import Painter

EVENTS = "events"
ACCURACY = "accuracy"


class Tracker:
    """Writes a run folder round by round. Reads what it is given and changes nothing."""

    def __init__(
        self,
        folder: Path,
        probes: Mapping[str, Probe],
        config_text: str,
        clients: pa.Table | None = None,
        kept: Parameters | None = None,
        *,
        proxy_labels: np.ndarray[Any, np.dtype[np.int64]] | None = None,
        figures_every: int = 0,
        watch: Sequence[int] = (),
        choices: Mapping[str, Any] | None = None,
        measure: str = ACCURACY,
        last_round: int | None = None,
    ) -> None:
        """Open the run folder's files; lines that `metrics.jsonl` has already are gone on from.

        Args:
            folder: The run folder; must exist.
            probes: What to compute from each round's view, by name.
            config_text: The resolved config as YAML, shown in TensorBoard's text page.
            clients: The per-client table of the rounds that there are lines of.
            kept: What `state` returned at the end of those rounds.
            proxy_labels: Classes of the proxy set, shown to probes and to nobody else; None = it
                has none that mean what the clients' do.
            figures_every: Draw figures in round 1 and every so many rounds after it; 0 = never.
            watch: Client ids that get curves of their own.
            choices: What the run was told on the command line, by key, for the page that compares
                the runs of a sweep; of a run that is gone on with they are there already.
            measure: Which of the task's measures `result.json` has beside the accuracy.
            last_round: Whose figures wait for `close`, a second after the result; None = none's.
        """
        self.folder = folder
        self._measure = measure
        self.clients = ClientsTable(clients)
        self.summaries = read_lines(folder / METRICS)
        self._costs = list[dict[str, float]]()
        shown = self._gone_through()
        self._probes = probes
        self._labels = None if proxy_labels is None else torch.from_numpy(np.array(proxy_labels))
        self._figures_every, self._watch = figures_every, watch
        self._graph: GraphView | None = None
        self.found = Findings()
        self._painter: Painter | None = None
        self._last_round, self._undrawn = last_round, list[Callable[[], None]]()
        self._round_began = time.perf_counter()
        for name, probe in _keepers(probes).items():
            own = {k: v for k, v in (kept or {}).items() if k.startswith(f"{name}/")}
            probe.restore({key.removeprefix(f"{name}/"): value for key, value in own.items()})
        about = "\n".join(f"{name}: {number}" for name, number in versions().items())
        texts = {"config": config_text, "environment": about}
        self._tensorboard = TensorBoardRun(folder / EVENTS, texts, choices or {}, shown)

    def view(self, view: RoundView) -> None:
        """Probe a round; what is found goes into the round's summary, rows and figures.

        Args:
            view: As the strategy or the round loop made it, without labels.

        Raises:
            ProbeError: A probe did what no probe may; names it.
        """
        if self._labels is not None and view.proxy_ids:
            view = replace(view, labels=self._labels[torch.tensor(view.proxy_ids)].flatten())
        with seeded_globals(np.random.SeedSequence(view.server_round)):  # a probe may draw
            self.found.ask(self._probes, view, RESERVED)
        if view.proxy_ids and is_due(view.server_round, self._figures_every):
            points = projector.coordinates(view)
            projector.add(self._tensorboard.folder, view.server_round, *points)

    def graph(self, view: GraphView) -> None:
        """Take in who heard of whom in a round of a federation without a server."""
        self.found.take("(neighbours)", neighbour_drift(view))
        self._graph = view

    def round(self, report: RoundReport) -> dict[str, Any]:
        """Write one round down.

        Args:
            report: What the round loop reports.

        Returns:
            The round's line of `metrics.jsonl`.
        """
        rows = client_rows(report.exchanges)
        for row in rows:
            for name, values in self.found.clients.items():
                if name in row:  # a client's own word for something else
                    row[f"client_{name}"] = row.pop(name)
                if row["client"] in values:
                    row[name] = values[row["client"]]
        self.clients.add(rows)
        own = [] if self._measure == ACCURACY else [self._measure, f"private_{self._measure}"]
        line = summarise(report, rows, self.found.numbers, [*own, *self.found.clients])
        self.summaries.append(line)
        self._costs.append(costs(line, self._costs))
        append_line(self.folder / METRICS, line)
        append_failures(self.folder, report.exchanges)
        self._show(line, rows)
        self.found, self._graph = Findings(), None
        return line

    def state(self) -> Parameters:
        """Return what the probes keep between rounds, by probe and name."""
        return {
            f"{name}/{key}": value
            for name, probe in _keepers(self._probes).items()
            for key, value in probe.state().items()
        }

    def lines(self) -> dict[Path, int]:
        """Count the lines written to `metrics.jsonl` and `failures.jsonl`."""
        failures = sum(line["failures"] for line in self.summaries)
        return {self.folder / METRICS: len(self.summaries), self.folder / FAILURES: failures}

    def totals(self) -> dict[str, Any]:
        """Sum the run up for `result.json`: accuracies of the last round, bytes of all."""
        last, own = self.summaries[-1], self._measure
        return {
            **{name: spent for name, spent in self._costs[-1].items() if name == CLOCK},
            **whose(last, ACCURACY),
            **({} if own == ACCURACY else {"measure": own, **whose(last, own)}),
            "request_bytes": sum(line["bytes"]["request"] for line in self.summaries),
            "reply_bytes": sum(line["bytes"]["reply"] for line in self.summaries),
            "failures": sum(line["failures"] for line in self.summaries),
            **between_peers(self.summaries),
        }

    def write(self) -> None:
        """Write the per-client table, and a file of failures if there was none."""
        (self.folder / FAILURES).touch()
        self.clients.write(self.folder)

    def close(self) -> None:
        """Draw what was left, write the files, and close that of events."""
        try:
            if sys.exception() is None:  # else the run did not succeed
                self._tensorboard.succeed()
            for draw in self._undrawn:
                draw()
        finally:
            self.write()
            self._tensorboard.close()

    def _gone_through(self) -> list[dict[str, float]]:
        """Take in the lines that there are; return the tags of each."""
        shown = []
        for number, line in enumerate(self.summaries, 1):
            try:
                self._costs.append(costs(line, self._costs))
                shown.append(_tags(line, self._costs[-1]))
                self.lines()
            except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
                where = f"{self.folder / METRICS}: line {number}"
                raise ValueError(f"{where}: is none that a run has written") from error
        return shown

    def _show(self, line: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        step, now, tags = line["round"], time.perf_counter(), _tags(line, self._costs[-1])
        tags |= watched(rows, self._watch) | {"seconds/round": now - self._round_began}
        values = {}
        for measure in line["clients"]:
            every = np.array([row.get(measure, np.nan) for row in rows])
            values[measure] = every[np.isfinite(every)]
        self._tensorboard.show(step, tags, values)
        if is_due(step, self._figures_every):
            draw = partial(self._draw, step, rows, self.found, self._graph)
            if step == self._last_round:
                self._undrawn.append(draw)
            else:
                draw()
            self.clients.write(self.folder)  # for whoever looks while the run lasts
        self._round_began = now

    def _draw(
        self, step: int, rows: list[dict[str, Any]], found: Findings, graph: GraphView | None
    ) -> None:
        if self._painter is None:
            from sim.tracking.figures import Painter  # matplotlib, 0.3 s, only if there is need

            self._painter = Painter()
        figures = found.figures | over_costs(self.summaries, self._costs)
        for name, picture in self._painter.pictures(step, figures, rows, graph):
            self._tensorboard.picture(name, picture, step)


def _keepers(probes: Mapping[str, Probe]) -> dict[str, KeepsState]:
    """Pick the probes that keep something."""
    found: dict[str, KeepsState] = {}
    for name, probe in probes.items():
        if isinstance(probe, KeepsState) and offers(probe, KeepsState):
            found[name] = probe
    return found


def _tags(line: dict[str, Any], spent: dict[str, float]) -> dict[str, float]:
    """Turn a line of `metrics.jsonl`, and what was spent until then, into numbers by tag."""
    shown = {name: value for name, value in flat(line).items() if name != "round"}
    return shown | {f"cost/{name}": value for name, value in spent.items()}
