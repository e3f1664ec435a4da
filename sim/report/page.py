"""The page: everything a report says, put into its two templates.

The only module that knows jinja2. Names and texts from files are escaped: in HTML by jinja2, in
Markdown here.
"""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sim.report import drawing, failures, tables
from sim.report.drifting import Furthest, furthest, sentence
from sim.report.figures import Panel, method_panels, run_panels
from sim.report.maps import Map, maps_of
from sim.report.methods import Method, config_differences, methods_of
from sim.report.reading import Run

MARK = "stillhouse-report"
"""What a file begins with that a later report may be written over."""
MOST_PANELS = 60
MOST_MAPPED = 6
"""Of how many methods the clients are mapped, and of how many configs are shown in full."""


def render(runs: Sequence[Run]) -> tuple[str, str]:
    """Make a report.

    Args:
        runs: At least one.

    Returns:
        The page as HTML, and the same without figures as Markdown.

    Raises:
        ReportError: A table of a run cannot be read.
    """
    methods = methods_of(runs)
    alone = runs[0] if len(runs) == 1 else None
    compared = tables.comparisons(methods)
    panels = run_panels(alone) if alone else method_panels(methods)
    said = {
        "mark": MARK,
        "title": alone.name if alone else ", ".join(dict.fromkeys(_source(run) for run in runs)),
        "alone": alone,
        "methods": methods,
        "runs": runs,
        "final": tables.final_table(methods),
        "cards": _cards(alone) if alone else [],
        "compared": compared,
        "most_paired": tables.MOST_PAIRED,
        "bars": _bars(compared),
        "listed": tables.runs_table(methods),
        "groups": _drawn(panels[:MOST_PANELS]),
        "left_out": max(0, len(panels) - MOST_PANELS),
        "legend": [] if alone else _legend_of(methods),
        "shown": _shown(methods[:MOST_MAPPED]),
        "shown_methods": methods[:MOST_MAPPED],
        "reasons": failures.reasons(runs),
        "most_reasons": failures.MOST_REASONS,
        "differences": config_differences(methods) if alone is None else [],
    }
    environment = Environment(
        loader=PackageLoader("sim.report", ""),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": _cell, "between": tables.between, "fenced": _fenced}
    page, twin = (environment.get_template(f"page.{kind}.j2") for kind in ("html", "md"))
    return page.render(said), twin.render(said)


def _source(run: Run) -> str:
    return run.source.resolve().name


def _cards(run: Run) -> list[tuple[str, str]]:
    """The numbers that a reader looks for first."""
    found = tables.accuracies(run)
    shown = [(name, f"{100 * found[name]:.1f} %") for name in list(found)[:4]]
    return [*shown, ("rounds", str(run.rounds)), ("failures", str(tables.failure_count(run)))]


def _drawn(panels: Sequence[Panel]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Draw panels under their headings; a legend tells the curves of a panel apart."""
    groups = []
    numbered = enumerate(panels)
    for heading, members in groupby(numbered, key=lambda pair: pair[1].group):
        figures = []
        for number, panel in members:
            drawn = drawing.curves(panel.title, panel.curves, panel.x_label, panel.percent)
            described = f"{panel.title} over {panel.x_label}"
            legend = [(c.label, c.style.colour, c.style.dash) for c in panel.curves if c.label]
            svg = drawing.svg(drawn, f"p{number}", described)
            needed = len(panel.curves) > 1 or any(curve.bands for curve in panel.curves)
            figures.append(
                {"svg": svg, "legend": list(dict.fromkeys(legend)), "told_apart": needed}
            )
        groups.append((heading, figures))
    return groups


def _legend_of(methods: Sequence[Method]) -> list[tuple[str, str, str]]:
    styles = [drawing.Style(number) for number in range(len(methods))]
    return [(m.name, s.colour, s.dash) for m, s in zip(methods, styles, strict=True)]


def _shown(methods: Sequence[Method]) -> list[dict[str, Any]]:
    """Show the clients of each method that has any: maps, and who drifts most."""
    shown = []
    for number, method in enumerate(methods):
        figures = [
            {"svg": _map_svg(one, f"m{number}-{nth}"), "note": one.note}
            for nth, one in enumerate(maps_of(method.shown))
        ]
        rows = furthest(method.shown)
        if figures or rows:
            said = sentence(rows) if rows else ""
            drift = {"said": said, "table": _drift_table(rows)} if rows else None
            shown.append({"method": method, "figures": figures, "drift": drift})
    return shown


def _drift_table(rows: Sequence[Furthest]) -> tables.Table:
    head = ["measure", "meaning", "client", "its value", "the next", "median", "since round"]
    numbers = [[f"{n:.3g}" for n in (row.value, row.following, row.median)] for row in rows]
    names = [f"{row.client} {row.architecture}".strip() for row in rows]
    cells = [
        [row.measure, row.meaning, name, *three, str(row.since)]
        for row, name, three in zip(rows, names, numbers, strict=True)
    ]
    return tables.Table(head, cells)


def _map_svg(one: Map, prefix: str) -> str:
    figure = drawing.heat_map(
        one.title, one.values, one.columns, one.marks, one.labels, one.percent
    )
    return drawing.svg(figure, prefix, f"{one.labels[2]} by {one.labels[1]} and {one.labels[0]}")


def _bars(compared: Sequence[tables.Comparison]) -> list[dict[str, float] | None]:
    """Place each interval on a line from 0 to 100 that all of them and zero fit on."""
    intervals = [one.difference.interval for one in compared]
    ends = [abs(end) for interval in intervals if interval for end in interval]
    scale = 48 / max([*ends, 1e-9])
    return [
        interval
        and {
            "low": 50 + scale * interval[0],
            "high": 50 + scale * interval[1],
            "mean": 50 + scale * one.difference.mean,
        }
        for one, interval in zip(compared, intervals, strict=True)
    ]


def _cell(text: Any) -> str:
    """Write anything so that a Markdown table shows it as it is."""
    flat = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", flat.replace("&", "&amp;").replace("<", "&lt;"))


def _fenced(text: str) -> str:
    """Put text between fences that it cannot contain."""
    longest = max([2, *(len(run) for run in re.findall("`+", text))])
    fence = "`" * (longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"
