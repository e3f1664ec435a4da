"""Heat maps and curves as small pictures; they know nothing of where they will be shown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from clients.messages.round_views import GraphView
from sim.analysis.probes.neighbours import MOST_PEERS, accuracy_by_peer
from sim.analysis.probes.values import Curve, Table

Picture = npt.NDArray[np.uint8]

DPI, WIDTH, HEIGHT = 70, 5.0, 3.6
"""350 x 252 points, as wide as TensorBoard shows them: any other width is made jagged there."""
MOST_NAMES = 12
"""How many ticks of an axis are named; of more every second, third, ..."""


class Painter:
    """Draws, and keeps the axes of each name: filling them anew takes a quarter of making them."""

    def __init__(self) -> None:
        """Begin without any axes."""
        self._kept: dict[tuple[object, ...], tuple[Figure, Any]] = {}

    def pictures(
        self,
        server_round: int,
        figures: Mapping[str, Table | Curve],
        rows: Sequence[dict[str, Any]],
        graph: GraphView | None,
    ) -> Iterator[tuple[str, Picture]]:
        """Draw a round.

        Args:
            server_round: 1..R.
            figures: What probes gave, by name.
            rows: Of the per-client table, for the accuracy of each peer.
            graph: Who heard of whom; drawn unless there are too many.

        Yields:
            Name and picture.
        """
        for name, figure in figures.items():
            yield name, self.picture(name, figure, f"{name}, round {server_round}")
        if graph is not None and len(graph.present) <= MOST_PEERS:
            from sim.tracking.graph_picture import graph_picture  # here: it imports networkx

            values = accuracy_by_peer([*rows], len(graph.present))
            title = f"accuracy over the graph, round {server_round}"
            yield "graph", graph_picture(graph, values, title)

    def picture(self, name: str, what: Table | Curve, title: str) -> Picture:
        """Draw what a probe gave.

        Args:
            name: Of the value; it looks alike from round to round.
            what: A table, whose empty cells are grey, or a curve.
            title: Above it.

        Returns:
            Colours [252, 350, 3].
        """
        looks = _looks(what)
        if (name, *looks) not in self._kept:
            self._kept = {key: kept for key, kept in self._kept.items() if key[0] != name}
            self._kept[name, *looks] = _heat_map(what) if isinstance(what, Table) else _lines(what)
        figure, drawn = self._kept[name, *looks]
        if isinstance(what, Table):
            drawn.set_data(np.ma.masked_invalid(what.values))
            drawn.autoscale()
        else:
            for line, (x, y) in zip(drawn, what.lines.values(), strict=True):
                line.set_data(x, y)
            figure.axes[0].relim()
            figure.axes[0].autoscale_view()
        figure.axes[0].set_title(title, fontsize=8)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _looks(what: Table | Curve) -> tuple[object, ...]:
    """Return all but the numbers: what the axes were made for."""
    if isinstance(what, Curve):
        return what.x, what.y, *what.lines, what.diagonal
    names = tuple(map(str, what.row_names)), tuple(map(str, what.column_names))
    return what.rows, what.columns, what.values.shape, *names


def _heat_map(table: Table) -> tuple[Figure, Any]:
    longest = max((len(str(name)) for name in table.row_names), default=2)
    left = min(0.5, 0.12 + 0.015 * longest)
    figure, axes = _blank((left, 0.16, 0.82 - left, 0.74))
    axes.set_facecolor("0.8")
    image = axes.imshow(table.values, aspect="auto", interpolation="none")
    bar = figure.add_axes((0.85, 0.16, 0.03, 0.74))
    bar.tick_params(labelsize=7)
    figure.colorbar(image, cax=bar)
    axes.set_xlabel(table.columns, fontsize=8)
    axes.set_ylabel(table.rows, fontsize=8)
    rows, columns = table.values.shape
    _name(axes.yaxis, rows, table.row_names)
    _name(axes.xaxis, columns, table.column_names)
    return figure, image


def _lines(curve: Curve) -> tuple[Figure, Any]:
    figure, axes = _blank((0.16, 0.16, 0.8, 0.74))
    if curve.diagonal:
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    lines = [axes.plot([], [], marker=".", linewidth=1, label=name)[0] for name in curve.lines]
    axes.set_xlabel(curve.x, fontsize=8)
    axes.set_ylabel(curve.y, fontsize=8)
    if len(lines) > 1:
        axes.legend(fontsize=7, loc="upper left")
    return figure, lines


def _blank(place: tuple[float, float, float, float]) -> tuple[Figure, Any]:
    # Not pyplot: it keeps every figure, for all threads, until it is told not to. And no layout
    # engine: it draws everything twice.
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI)
    axes = figure.add_axes(place)
    axes.tick_params(labelsize=7)
    return figure, axes


def _name(axis: Any, number: int, names: Sequence[object]) -> None:
    places = range(0, number, max(1, -(-number // MOST_NAMES)))
    axis.set_ticks(list(places), [str(names[i]) if len(names) else str(i) for i in places])
