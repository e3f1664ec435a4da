"""Drawing with matplotlib, straight into SVG that can stand in a page among others.

The only module of the report that knows matplotlib. Texts and axes take the page's colours, so that
a figure is legible on a dark page and on paper; legends are the page's, so that they cannot cover a
curve.
"""

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

Floats = npt.NDArray[np.float64]

COLOURS = (
    *("#2f7ed8", "#e6762c", "#2a9d5c", "#d1495b", "#8e6fc1"),
    *("#9c6b4e", "#1ba8b8", "#d17ab5", "#a89a1a", "#7f8c8d"),
)
DASHES = ("", "6 2.5", "1.5 2", "8 2 1.5 2")
"""Stroke patterns in SVG's notation; ten colours times four of them tell forty curves apart."""

INK, RULE = "#010203", "#040506"
"""Stand for the page's colours until the SVG is finished."""

LEFT = 0.135
"""Share of a panel's width beside its axes, where no number is longer than "100 %"."""

MOST_POINTS = 500
"""A longer curve is thinned to so many points, its last one among them."""

LARGE = 1e5
"""From here on numbers beside an axis are written in thousands, millions and so on."""

SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stillhouse",
    "text.parse_math": False,  # a name from a file may hold a dollar sign
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor"), INK),
    **{"ytick.labelcolor": INK, "axes.edgecolor": RULE, "xtick.color": RULE, "ytick.color": RULE},
    **{"grid.color": RULE, "grid.linewidth": 0.5, "grid.alpha": 0.5},
}


@dataclass(frozen=True)
class Style:
    """How a curve looks: number n of a sequence that repeats after forty."""

    number: int = 0

    @property
    def colour(self) -> str:
        """Of COLOURS."""
        return COLOURS[self.number % len(COLOURS)]

    @property
    def dash(self) -> str:
        """Of DASHES."""
        return DASHES[self.number // len(COLOURS) % len(DASHES)]


@dataclass(frozen=True)
class Curve:
    """A line and the bands around it.

    Attributes:
        x: [P] ascending.
        y: [P], NaN for a gap.
        bands: (low [P], high [P]) each; the wider come first.
        style: Colour and dashes.
        faint: Whether it stands behind the others: a run that is not over.
        label: What the legend calls it; "" = not in the legend.
    """

    x: Floats
    y: Floats
    bands: Sequence[tuple[Floats, Floats]] = ()
    style: Style = field(default_factory=Style)
    faint: bool = False
    label: str = ""


def curves(title: str, lines: Sequence[Curve], x_label: str, percent: bool) -> Figure:
    """Draw curves into one panel.

    Args:
        title: Above it.
        lines: What to draw.
        x_label: Below it.
        percent: Whether values are shares, to be shown in percent.

    Returns:
        A figure in which curve n is the group `curve-n` and its bands are `band-n-m`.
    """
    with matplotlib.rc_context(SETTINGS):
        # No layout engine, which the others need for names: a page of fifty took twice as long.
        figure = Figure(figsize=(4.4, 2.9))
        axes = figure.add_subplot()
        for number, line in enumerate(lines):
            _curve(axes, number, line)
        axes.set_title(short(title, 52), fontsize=10, loc="left")
        axes.set_xlabel(x_label)
        axes.grid(axis="y")
        # One tick will do where there is one round: more of them would be fractions of a round.
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=x_label == "round", min_n_ticks=1))
        counts = not percent and all(_whole(line) for line in lines)
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=counts, min_n_ticks=1))
        _write_numbers(axes, percent)
        _make_room(axes)
    return figure


def dots(title: str, rows: Sequence[tuple[str, Sequence[float]]]) -> Figure:
    """Draw values of a few rows as dots on one line each, with their mean.

    Args:
        title: Above them.
        rows: Name and values of each, shares; the first is uppermost.

    Returns:
        A figure in which the dots of row n are the group `dots-n`.
    """
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(4.4, 0.9 + 0.28 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for number, (_, values) in enumerate(rows):
            style, places = Style(number), np.full(len(values), -number)
            drawn = axes.scatter(values, places, color=style.colour, alpha=0.7, s=18)
            drawn.set_gid(f"dots-{number}")
            if len(values) > 1:
                axes.plot(float(np.mean(values)), -number, "|", color=INK, markersize=13)
        axes.set_yticks(range(0, -len(rows), -1), [short(name, 30) for name, _ in rows])
        axes.set_ylim(0.5 - len(rows), 0.5)
        axes.set_title(short(title, 52), fontsize=10, loc="left")
        axes.grid(axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(6, min_n_ticks=1))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def _whole(line: Curve) -> bool:
    drawn = np.concatenate([line.y, *(end for band in line.bands for end in band)])
    drawn = drawn[np.isfinite(drawn)]
    return bool((drawn == np.round(drawn)).all())


def _write_numbers(axes: Axes, percent: bool) -> None:
    """Write large numbers as 1.2M: matplotlib's power of ten would stand in the title."""
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if max(-low, high) >= LARGE:
            axis.set_major_formatter(EngFormatter(sep=""))
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    elif max(map(abs, axes.get_ylim())) < LARGE:
        axes.ticklabel_format(axis="y", useOffset=False, scilimits=(-4, 5))


def _make_room(axes: Axes) -> None:
    """Place a panel so that its numbers, and what they all are times, are inside its figure."""
    written = axes.yaxis.get_major_formatter()
    longest = max(map(len, written.format_ticks(list(axes.yaxis.get_majorticklocs()))), default=0)
    left = max(LEFT, 0.05 + 0.0165 * longest)
    axes.set_position((left, 0.16, 0.98 - left, 0.68 if written.get_offset() else 0.74))


def _curve(axes: Axes, number: int, line: Curve) -> None:
    kept = np.unique(np.linspace(0, len(line.x) - 1, min(len(line.x), MOST_POINTS)).astype(int))
    x, y = line.x[kept], line.y[kept]
    for nth, (low, high) in enumerate(line.bands):
        band = axes.fill_between(
            x, low[kept], high[kept], color=line.style.colour, alpha=0.16, linewidth=0
        )
        band.set_gid(f"band-{number}-{nth}")
    dash = tuple(map(float, line.style.dash.split()))
    (drawn,) = axes.plot(
        x,
        y,
        color=line.style.colour,
        linewidth=1.0 if line.faint else 1.8,
        alpha=0.55 if line.faint else 1.0,
        linestyle=(0, (1.5, 1.5)) if line.faint else (0, dash) if dash else "-",
        marker="o" if len(x) <= 12 else "",
        markersize=3.5,
    )
    drawn.set_gid(f"curve-{number}")


def heat_map(
    title: str,
    values: Floats,
    x: Sequence[str],
    y: Sequence[tuple[float, str]],
    labels: tuple[str, str, str],
    percent: bool,
) -> Figure:
    """Draw a matrix as an image, however large it is.

    Args:
        title: Above it.
        values: [rows, columns]; NaN stays empty.
        x: The columns' names; as many of them are shown as there is room for.
        y: (row, text) of the marks beside it.
        labels: Of columns, rows and values.
        percent: Whether values are shares, to be shown in percent.

    Returns:
        A figure with the image as group `heat-map`.
    """
    with matplotlib.rc_context(SETTINGS):
        height = float(np.clip(1.2 + 0.16 * len(values), 2.4, 5.2))
        figure = Figure(figsize=(5.6, height), layout="constrained", dpi=120)
        axes = figure.add_subplot()
        image = axes.imshow(values, aspect="auto", interpolation="nearest", cmap="viridis")
        image.set_gid("heat-map")
        step = max(1, -(-len(x) // 12))
        shown = range(0, len(x), step)
        axes.set_xticks(list(shown), [x[n] for n in shown])
        axes.set_yticks([at for at, _ in y], [short(text, 24) for _, text in y], fontsize=7)
        axes.tick_params(length=2)
        axes.set_title(short(title, 60), fontsize=10, loc="left")
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        shares: Any = PercentFormatter(1.0, symbol=" %") if percent else None
        bar = figure.colorbar(image, ax=axes, label=labels[2], format=shares, pad=0.02)
        bar.outline.set_visible(False)
    return figure


def svg(figure: Figure, prefix: str, described: str) -> str:
    """Turn a figure into an SVG element for a page of several.

    Args:
        figure: As the functions above return it.
        prefix: What all its ids begin with; no other figure of the page may have it.
        described: What a reader who does not see it is told.

    Returns:
        `<svg ...>...</svg>` without anything that acts outside of it.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        # A name may be in a script that matplotlib's font lacks; the browser's fonts draw it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)  # has `*` as selector
    text = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    text = text.replace(INK, "currentColor").replace(RULE, "var(--rule)")
    label = described.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def short(text: str, most: int) -> str:
    """Cut a text, at so many letters."""
    return text if len(text) <= most else text[: most - 1] + "…"
