"""The page: everything a report says, put into its two templates.

The only module that knows jinja2. Names and texts from files are escaped: in HTML by jinja2, in
Markdown here.
"""

import re
import shlex
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sim.report import drawing, failures, statistics, tables
from sim.report.client_drift_ranking import MEASURES, Furthest, Often, furthest, outlier, sentence
from sim.report.costs import EDGES
from sim.report.figures import FIRST, Panel, dot_rows, method_panels, run_panels
from sim.report.headlines import findings
from sim.report.learning_speed import SMOOTHING, progress_table
from sim.report.maps import HELD, MEASURED, Map, maps_of
from sim.report.methods import Method, config_differences, methods_of
from sim.report.reading import ReportError, Run
from sim.report.reading_client_tables import client_tables
from sim.report.series import series_of
from sim.report.statistics import Difference

MARK = "stillhouse-report"
"""What a file begins with that a later report may be written over."""
MOST_PANELS = 60
MOST_MAPPED = 6
"""Of how many methods the clients are mapped, and of how many configs are shown in full."""

DRIFT_ABOUT = (
    "Clients are compared within a round, the last in which three of them have the measure: who is "
    "furthest out, who comes next, the median, and since when that has been so in all such rounds "
    "that the client was in. Somebody always is: it means something where the value is far from "
    "the next and from the median."
)
OFTEN_ABOUT = (
    "Where not all clients were in that round, see who was furthest out most often, and of how "
    "many rounds that it was in."
)
NO_DRIFT = (
    "Nobody can be named: in no round have three clients a measure of drift. Probes find them, as "
    "far as the strategy has clients answer or send parameters of their own."
)


def render(runs: Sequence[Run], target: float | None = None) -> tuple[str, str]:
    """Make a report.

    Args:
        runs: At least one.
        target: An accuracy in (0, 1]: rounds until it was reached are counted.

    Returns:
        The page as HTML, and the same without figures as Markdown.

    Raises:
        ReportError: A table of a run cannot be read, or runs are measured by unlike things.
    """
    methods = methods_of(runs)
    alone = runs[0] if len(runs) == 1 else None
    compared, equal = tables.without_equal(tables.comparisons(methods))
    panels = run_panels(alone) if alone else method_panels(methods)
    brief = all(run.result is not None and run.rounds <= 1 for run in runs)
    lost, reasons = failures.missing([run.source for run in runs]), failures.reasons(runs)
    shown = _shown(methods[:MOST_MAPPED])
    drifting = [
        f"{each['method'].name}: {each['outlier']}" if len(methods) > 1 else each["outlier"]
        for each in shown
        if each["outlier"]
    ]
    said = {
        "mark": MARK,
        "title": alone.name if alone else ", ".join(dict.fromkeys(_source(run) for run in runs)),
        "alone": alone,
        "methods": methods,
        "runs": runs,
        "measure": _measure_of(runs),
        "final": tables.final_table(methods),
        "cards": _cards(alone) if alone else [],
        "progress": progress_table(methods, target),
        "smoothing": SMOOTHING,
        "command": " ".join(map(shlex.quote, alone.told)) if alone else "",
        "findings": findings(methods, runs, len(lost), reasons, compared, drifting),
        "missing": lost,
        "compared": compared,
        "equal": equal,
        "differences_table": tables.difference_table(compared),
        "judged": tables.judged(compared),
        "most_paired": tables.MOST_PAIRED,
        "resamples": statistics.RESAMPLES,
        "bars": _bars(compared),
        "listed": tables.runs_table(methods),
        "brief": brief,
        "groups": _dotted(methods) if brief else _drawn(panels[:MOST_PANELS]),
        "left_out": 0 if brief else max(0, len(panels) - MOST_PANELS),
        "legend": [] if alone or brief else _legend_of(methods),
        "shown": shown,
        "serverless": any(EDGES in series_of(run) for run in runs),
        "drift_about": DRIFT_ABOUT,
        "often_about": OFTEN_ABOUT,
        "no_drift": NO_DRIFT,
        "shown_methods": methods[:MOST_MAPPED],
        "reasons": reasons,
        "most_reasons": failures.MOST_REASONS,
        "differences": config_differences(methods) if alone is None else [],
    }
    templates = _templates()
    page, twin = (templates.get_template(f"page.{kind}.j2") for kind in ("html", "md"))
    return page.render(said), twin.render(said)


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("sim.report", ""),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": _cell, "between": tables.between, "fenced": _fenced}
    return environment


def tables_of(runs: Sequence[Run], target: float | None = None) -> dict[str, tables.Table]:
    """Make the tables of a report.

    Args:
        runs: At least one.
        target: As in `render`.

    Returns:
        `final`, `progress`, `differences` and `runs`; some may have no rows.
    """
    methods = methods_of(runs)
    return {
        "final": tables.final_table(methods),
        "progress": progress_table(methods, target),
        "differences": tables.difference_table(tables.comparisons(methods)),
        "runs": tables.runs_table(methods),
    }


def _measure_of(runs: Sequence[Run]) -> str:
    """Return by what runs are measured, which must be one thing for a table of them."""
    found = {str(run.result.get("measure", "accuracy")): run for run in runs if run.result}
    if len(found) > 1:
        told = ", ".join(f"{run.name} by {measure}" for measure, run in found.items())
        raise ReportError(f"runs of unlike tasks, {told}: expected those of one task at a time")
    return next(iter(found), "accuracy")


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


def _dotted(methods: Sequence[Method]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Draw the accuracies of runs of one round."""
    figures = [
        {
            "svg": drawing.svg(drawing.dots(title, rows), f"p{number}", f"{title} by seed"),
            "legend": [],
            "told_apart": False,
        }
        for number, (title, rows) in enumerate(dot_rows(methods))
    ]
    return [(FIRST, figures)] if figures else []


def _legend_of(methods: Sequence[Method]) -> list[tuple[str, str, str]]:
    styles = [drawing.Style(number) for number in range(len(methods))]
    return [(m.name, s.colour, s.dash) for m, s in zip(methods, styles, strict=True)]


def _shown(methods: Sequence[Method]) -> list[dict[str, Any]]:
    """Show the clients of each method that has any: maps, and who drifts most."""
    shown = []
    for number, method in enumerate(methods):
        tables_of = client_tables(method.shown, [*MEASURED, *MEASURES], HELD)
        figures = [
            {"svg": _map_svg(one, f"m{number}-{nth}"), "note": one.note}
            for nth, one in enumerate(maps_of(tables_of))
        ]
        rows = furthest(tables_of.clients)
        drift = {"said": sentence(rows), "table": _drift_table(rows)} if rows else None
        if figures or rows or tables_of.notes:
            notes = tables_of.notes
            shown.append(
                {
                    "method": method,
                    "figures": figures,
                    "drift": drift,
                    "notes": notes,
                    "outlier": outlier(rows),
                }
            )
    return shown


def _drift_table(rows: Sequence[Furthest]) -> tables.Table:
    """With the round where it is not one for all, and who led most often where cohorts differ."""
    columns = {
        "measure": [row.measure for row in rows],
        "meaning": [row.meaning for row in rows],
        "client": [
            f"{row.client} {row.architecture}".strip() if row.client is not None else "alike"
            for row in rows
        ],
        "its value": [f"{row.value:.4g}" for row in rows],
        "the next": [f"{row.following:.4g}" for row in rows],
        "median": [f"{row.median:.4g}" for row in rows],
        "in round": [str(row.round) for row in rows],
        "since round": [tables.NOTHING if row.since is None else str(row.since) for row in rows],
        "most often": [_most_often(row.often) for row in rows],
    }
    if len(set(columns["in round"])) == 1:
        del columns["in round"]
    if all(row.ranked == row.known for row in rows):
        del columns["most often"]
    return tables.Table([*columns], [*zip(*columns.values(), strict=True)])


def _most_often(often: Often | None) -> str:
    if often is None:
        return tables.NOTHING
    return f"{often.client} {often.architecture}".strip() + f", {often.led} of {often.ranked}"


def _map_svg(one: Map, prefix: str) -> str:
    figure = drawing.heat_map(
        one.title, one.values, one.columns, one.marks, one.labels, one.percent
    )
    return drawing.svg(figure, prefix, f"{one.labels[2]} by {one.labels[1]} and {one.labels[0]}")


def _bars(compared: Sequence[tables.Comparison]) -> list[dict[str, float] | None]:
    """Place each interval on a line from 0 to 100 that all of them and zero fit on."""
    differences = [one.difference for one in compared]
    ends = [abs(end) for one in differences for end in one.interval or ()]
    scale = 48 / max([*ends, 1e-9])
    return [_bar(one, scale) for one in differences]


def _bar(difference: Difference, scale: float) -> dict[str, float] | None:
    """Place an interval; one without width is a mark at its mean, and nothing at zero."""
    if difference.interval is None or (difference.alike and not difference.found):
        return None
    places = zip(("low", "high"), difference.interval, strict=True)
    line = {} if difference.alike else {name: 50 + scale * end for name, end in places}
    return {"mean": 50 + scale * difference.mean, **line}


def _cell(text: Any) -> str:
    """Write anything so that a Markdown table shows it as it is."""
    flat = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", flat.replace("&", "&amp;").replace("<", "&lt;"))


def _fenced(text: str) -> str:
    """Put text between fences that it cannot contain."""
    longest = max([2, *(len(run) for run in re.findall("`+", text))])
    fence = "`" * (longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"
