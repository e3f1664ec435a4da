"""What a person sees while a run goes on, and at its end."""

import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from clients.partition import PartitionSummary
from sim.tracking.program import program

if TYPE_CHECKING:
    from sim.topology.topology import Topology
GROUP = {"ensemble": "ensemble", "fused": "fused", "peers_mean": "mean of peers"}
"""Of several models together, as a round's line names their measures."""


class Display:
    """A progress bar over rounds and answers, a line per round, and the final table."""

    def __init__(
        self,
        rounds: int,
        architectures: Sequence[str],
        shape: PartitionSummary,
        measure: str = "accuracy",
        where: str = "",
    ) -> None:
        """Say who takes part, and start the bars.

        Args:
            rounds: Number of rounds to come.
            architectures: Name of each client's architecture.
            shape: How the private set was cut among them.
            measure: Which of the task's measures is shown.
            where: In which processes they run, and why; "" = as they were told to.
        """
        self._measure = measure
        # Flower logs each step of its strategies; this tells the round.
        logging.getLogger("flwr").setLevel(logging.WARNING)
        self.console = Console()
        self._introduce(architectures, shape, where)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._rounds = self._progress.add_task("rounds", total=rounds)
        self._answers = self._progress.add_task("clients", total=None)
        self._progress.start()

    def _introduce(self, architectures: Sequence[str], shape: PartitionSummary, where: str) -> None:
        names = sorted(set(architectures))
        kinds = ", ".join(f"{architectures.count(name)} {name}" for name in names)
        self.console.print(
            f"{len(architectures)} clients ({kinds}), {shape.sizes.min()} to {shape.sizes.max()} "
            f"examples each, of "
            f"{shape.mean_effective_classes:.1f} effective classes (exp of entropy) on average"
            + (where and f"; {where}"),
            highlight=False,
            soft_wrap=True,
        )

    def warn(self, text: str) -> None:
        """Say what a person should know and no program minds."""
        self.console.print(f"[red]{escape(text)}[/red]", highlight=False, soft_wrap=True)

    def resume(
        self, server_round: int, changed: Mapping[str, tuple[str, str]], damage: str = ""
    ) -> None:
        """Say after which round the run goes on.

        Args:
            server_round: The last round that is done.
            changed: Versions then and now, by name, of what is not as it was.
            damage: Why no later checkpoint is gone on from; "" = there is none.
        """
        if damage:
            self.warn(f"the last checkpoint cannot be used, an earlier one is: {damage}")
        over = server_round >= (self._progress.tasks[0].total or 0)
        left = ": all are done, rounds=... goes on further" if over else ""
        self.console.print(f"goes on after round {server_round}{left}", highlight=False)
        self._progress.update(self._rounds, completed=server_round)
        for name, (then, now) in changed.items():
            self.warn(f"begun with {name} {then}, goes on with {now}: the bits may differ")

    def topology(self, topology: "Topology") -> "Topology":
        """Say what graph peers are on; return it."""
        about = topology.report()
        degrees = f"{about['least_degree']} to {about['largest_degree']}"
        diameter = "" if about["diameter"] is None else f", diameter {about['diameter']}"
        self.console.print(
            f"{about['graph']}: {about['edges']:.0f} edges a round, {degrees} receivers each"
            f"{diameter}, {about['components']} component{'s' * (about['components'] > 1)}, "
            f"{'mixing rate' if about['changes'] else 'spectral gap'} {about['spectral_gap']:.4f}",
            highlight=False,
            soft_wrap=True,
        )
        return topology

    def answer(self, done: int, total: int) -> None:
        """Show how many clients of a batch have answered."""
        self._progress.update(self._answers, completed=done, total=total)

    def round(self, line: dict[str, Any], first_failure: str) -> None:
        """Show a round's line and advance the bar.

        Args:
            line: Of `metrics.jsonl`.
            first_failure: Who failed first in the round, and why; "" if nobody did.
        """
        parts, own = [f"round {line['round']}"], self._measure
        if own in line["student"]:
            mean = "consensus_distance" in line["strategy"]
            name = "mean of parameters" if mean else "student"
            parts.append(f"{name} {line['student'][own]:.4f}")
        for whose, name in GROUP.items():
            if (measure := f"{whose}_{own}") in line["strategy"]:
                parts.append(f"{name} {line['strategy'][measure]:.4f}")
        for measure, name in ((own, "clients"), (f"private_{own}", "on private data")):
            if values := line["clients"].get(measure):
                parts.append(
                    f"{name} {values['mean']:.4f} [{values['min']:.4f} .. {values['max']:.4f}]"
                )
        self.console.print("  ".join(parts), highlight=False, soft_wrap=True)
        dropped = line["strategy"].get("dropped_examples", 0)
        if dropped and "distillation_loss" not in line["strategy"]:
            self.warn(
                f"nothing was distilled: of {dropped:.0f} examples every score is 0, or nobody "
                "answered them"
            )
        if line["failures"]:
            self.console.print(
                f"[red]{line['failures']} replies failed, see failures.jsonl; the first: [/red]"
                + escape(first_failure),
                highlight=False,
                soft_wrap=True,
            )
        self._progress.advance(self._rounds)

    def stop(self) -> None:
        """Take the bars away."""
        self._progress.stop()

    def result(self, result: dict[str, Any], folder: str) -> None:
        """Show the final table and how to open TensorBoard.

        Args:
            result: The content of `result.json`.
            folder: The run folder's path.
        """
        own = self._measure
        clients = result[f"clients_{own}"] or {}
        private = result[f"clients_private_{own}"] or {}
        table = Table(title=f"{own} on the test set", title_justify="left")
        table.add_column("model")
        table.add_column(own, justify="right")
        for name, value in (
            ("student", result[f"student_{own}"]),
            ("teacher ensemble", result[f"ensemble_{own}"]),
            ("fused classifier", result.get("fused_accuracy")),
            ("mean of peers", result.get("peers_mean_accuracy")),
            ("best client", clients.get("max")),
            ("mean client", clients.get("mean")),
            ("worst client", clients.get("min")),
            ("student on the best client's private data", private.get("max")),
            ("student on the mean client's private data", private.get("mean")),
            ("student on the worst client's private data", private.get("min")),
        ):
            if value is not None:
                table.add_row(name, f"{value:.4f}")
        self.console.print(table)
        if early := result.get("stopped_early"):
            said = f"ended early, after round {early['after_round']}: {early['reason']}"
            self.console.print(said, highlight=False, markup=False, soft_wrap=True)
        self.console.print(
            f"bytes down {result['request_bytes']:,}  up {result['reply_bytes']:,}  "
            f"seconds {result['wall_time_s']:.1f}  failures {result['failures']}",
            highlight=False,
        )
        if "simulated_time_s" in result:
            seconds = f"{result['simulated_time_s']:,.2f}"
            self.console.print(f"simulated seconds {seconds}", highlight=False)
        if "edge_bytes" in result:
            self.console.print(
                f"between peers: bytes {result['edge_bytes']:,.0f}  messages "
                f"{result['messages']:.0f}  lost {result['lost_messages']:.0f}  late "
                f"{result['late_messages']:.0f}",
                highlight=False,
            )
        self.console.print(f"run folder  {folder}", highlight=False, soft_wrap=True)
        place = shlex.quote(folder)
        self.console.print(f"{program()} report {place}", highlight=False, soft_wrap=True)
        tensorboard = Path(sys.executable).with_name("tensorboard")
        self.console.print(f"{tensorboard} --logdir {place}", highlight=False, soft_wrap=True)
