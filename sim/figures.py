"""Heat maps and curves as small pictures; they know nothing of where they will be shown."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sim.probes.values import Curve, Table

Picture = npt.NDArray[np.uint8]

DPI, WIDTH, HEIGHT = 70, 4.5, 3.2
"""315 x 224 points: 6 to 12 kB as PNG, 25 ms to draw."""
MOST_NAMES = 16
"""How many ticks of an axis are named; of more every second, third, ..."""


def picture_of(figure: Table | Curve, title: str) -> Picture:
    """Draw what a probe gave: colours [height, width, 3]."""
    return heat_map(figure, title) if isinstance(figure, Table) else line_plot(figure, title)


def heat_map(table: Table, title: str) -> Picture:
    """Draw a table.

    Args:
        table: [R, S]; empty cells are grey.
        title: Above it.

    Returns:
        Colours [height, width, 3].
    """
    figure, axes = _blank(title)
    axes.set_facecolor("0.8")
    image = axes.imshow(np.ma.masked_invalid(table.values), aspect="auto", interpolation="none")
    figure.colorbar(image)
    axes.set_xlabel(table.columns)
    axes.set_ylabel(table.rows)
    rows, columns = table.values.shape
    _name(axes.yaxis, rows, table.row_names)
    _name(axes.xaxis, columns, table.column_names)
    return _drawn(figure)


def line_plot(curve: Curve, title: str) -> Picture:
    """Draw lines over one axis.

    Args:
        curve: The lines.
        title: Above them.

    Returns:
        Colours [height, width, 3].
    """
    figure, axes = _blank(title)
    if curve.diagonal:
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, (x, y) in curve.lines.items():
        axes.plot(x, y, marker=".", linewidth=1, label=name)
    axes.set_xlabel(curve.x)
    axes.set_ylabel(curve.y)
    if len(curve.lines) > 1:
        axes.legend(fontsize=7)
    return _drawn(figure)


def _blank(title: str) -> tuple[Figure, Any]:
    # Not pyplot: it keeps every figure, for all threads, until it is told not to.
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=8)
    axes.tick_params(labelsize=7)
    return figure, axes


def _name(axis: Any, number: int, names: Any) -> None:
    step = -(-number // MOST_NAMES)
    places = range(0, number, step)
    axis.set_ticks(list(places), [str(names[i]) if len(names) else str(i) for i in places])


def _drawn(figure: Figure) -> Picture:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
