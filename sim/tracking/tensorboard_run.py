"""A run in TensorBoard: scalars by curve, histograms, pictures, texts and hyperparameters.

The only module that knows `SummaryWriter`.
"""

from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import histogram, hparams, scalar

from sim.analysis.probes.values import Numbers
from sim.tracking import projector
from sim.tracking.tensorboard_cards import (
    CLIENTS,
    COST,
    CURVES,
    DRIFT,
    LEARNING,
    RUN,
    HeldBack,
    Layout,
    Place,
    layout,
    places,
    run_name,
)

BINS = 30
"""Of a histogram over clients, from the least to the largest value."""
CODE = "    "  # as Markdown has it
LEARNT = frozenset({"accuracy", "loss"})
COMPARED = (
    Place("student", f"{LEARNING}/accuracy"), Place("ensemble", f"{LEARNING}/accuracy"),
    Place(CURVES["min"], f"{LEARNING}/accuracy"), Place("student", f"{LEARNING}/loss"),
    Place(RUN, f"{DRIFT}/output_js"), Place(RUN, f"{COST}/megabytes"),
)  # fmt: skip
"""By which the page that compares runs does."""


class TensorBoardRun:
    """Writes what TensorBoard shows of a run, one file of events for each curve."""

    def __init__(
        self,
        folder: Path,
        texts: Mapping[str, str],
        choices: Mapping[str, Any],
        shown: list[dict[str, float]],
    ) -> None:
        """Open the run's own file; the others as there is something for them.

        Args:
            folder: Of all events. In it the run has a folder that is called by its choices, which
                is the run's name in TensorBoard; one that is gone on with keeps it.
            texts: Shown as they are, by name.
            choices: What the run was told on the command line, by key, for the page that compares
                the runs of a sweep; of a run that is gone on with they are there already.
            shown: Numbers by tag of the rounds that are gone on after.
        """
        began = sorted(path.name for path in folder.glob("*") if path.is_dir())
        self.folder = folder / (began[0] if began else run_name(choices))
        self._done = len(shown)
        self._writers: dict[str, SummaryWriter] = {}
        self._held, self._layout = HeldBack(), Layout()
        self._cards = dict[str, None]()
        for step, tags in enumerate(shown, 1):
            self._placed(step, tags)
        projector.go_on_after(self.folder, self._done)
        for name, text in texts.items():
            self._writer(RUN).add_text(name, indent(text, CODE))
        self._compared = bool(choices or shown)  # in a run that is gone on with it has begun
        if choices:
            self._compare(choices)

    def show(self, step: int, tags: Mapping[str, float], values: Mapping[str, Numbers]) -> None:
        """Show a round.

        Args:
            step: 1..R.
            tags: Finite numbers by their names in `metrics.jsonl`, with `/` for each level.
            values: Of clients [K], finite, by measure: a histogram each.
        """
        # One event for all of a curve, not one each: a third of the time and of the bytes.
        together: dict[tuple[str, int], Any] = {}
        for at, place, value in self._placed(step, tags):
            one = scalar(place.card, value)  # type: ignore[no-untyped-call]
            together.setdefault((place.curve, at), type(one)()).value.extend(one.value)
        for measure, each in values.items():
            one = histogram(f"{CLIENTS}/{measure}", each, bin_edges(each, BINS))  # type: ignore[no-untyped-call]
            together.setdefault((RUN, step), type(one)()).value.extend(one.value)
        for (curve, at), summary in sorted(together.items(), key=lambda item: item[0]):
            self._add(summary, curve=curve, step=at)
        if (charts := layout(self._cards)) != self._layout:
            self._layout = charts
            self._writer(RUN).add_custom_scalars(charts)
        for writer in self._writers.values():
            writer.flush()

    def picture(self, name: str, picture: np.ndarray[Any, np.dtype[np.uint8]], step: int) -> None:
        """Show a picture [height, width, 3] of a round."""
        self._writer(RUN).add_image(f"figures/{name}", picture, step, dataformats="HWC")

    def succeed(self) -> None:
        """Say on the page that compares runs that this one did not fail."""
        if self._compared:
            *_, ends = hparams({}, {})  # type: ignore[no-untyped-call]
            self._add(ends)

    def close(self) -> None:
        """Show what was not moving for want of a second round, and close the files."""
        for at, place, value in self._held.seen_once():
            self._add(scalar(place.card, value), curve=place.curve, step=at)  # type: ignore[no-untyped-call]
        for writer in self._writers.values():
            writer.close()

    def _placed(self, step: int, tags: Mapping[str, float]) -> list[tuple[int, Place, float]]:
        """Return what is to be shown of a round's numbers: step, place and number."""
        found = []
        learnt = LEARNT.union(tag.split("/")[1] for tag in tags if tag.startswith("student/"))
        for tag, value in tags.items():
            for place in places(tag, learnt):
                self._cards[place.card] = None
                found += [(at, place, one) for at, one in self._held.shown(step, place, value)]
        return found

    def _writer(self, curve: str) -> SummaryWriter:
        if curve not in self._writers:
            # TensorBoard hides what an interrupted run had written of the rounds to come.
            purge = self._done + 1 if self._done else None
            self._writers[curve] = SummaryWriter(str(self.folder / curve), purge_step=purge)
        return self._writers[curve]

    def _compare(self, choices: Mapping[str, Any]) -> None:
        """Begin the session of the page that compares runs, in this folder and in no other."""
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        experiment, begins, _ = hparams(dict(choices), {})  # type: ignore[no-untyped-call]
        data = experiment.value[0].metadata.plugin_data
        told = HParamsPluginData.FromString(data.content)
        for curve, card in COMPARED:
            shown = f"{curve} {card.partition('/')[2]}".strip()
            name = {"group": curve, "tag": card}
            told.experiment.metric_infos.add(name=name, display_name=shown)
        data.content = told.SerializeToString()
        self._add(experiment)
        self._add(begins)

    def _add(self, summary: Any, *, curve: str = RUN, step: int | None = None) -> None:
        writer = self._writer(curve).file_writer
        assert writer is not None, "it is there until the writer is closed"
        writer.add_summary(summary, step)


def bin_edges(values: Numbers, bins: int) -> Numbers:
    """Cut the range of values into bins of a histogram.

    Args:
        values: Finite, at least one.
        bins: How many, >= 1.

    Returns:
        Ascending edges [bins + 1]. Values that differ by rounding only, between which there is no
        room for so many, are in the middle of a range as wide as the values are large.
    """
    low, high = float(values.min()), float(values.max())
    largest = max(1.0, abs(low), abs(high))
    if high - low < 1e-9 * largest:
        low, high = low - largest / 2, high + largest / 2
    return np.linspace(low, high, bins + 1)
