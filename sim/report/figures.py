"""Which curves a report has: of everything that has a name and a number."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from sim.report.costs import EDGES, PEERS_MEAN, Spenders, cost_curves
from sim.report.drawing import Curve, Style
from sim.report.methods import Method
from sim.report.reading import Run, natural
from sim.report.series import Series, banded, curve, method_curves, series_of
from sim.report.tables import accuracies

MAIN = ("student/accuracy", "student/loss", "strategy/ensemble_accuracy", "strategy/ensemble_loss")
BAND = "clients: median, quartiles, range"
MOST_IN_A_PANEL = 20
FIRST = "Accuracy and loss"
OF_CLIENTS = "What clients differ in"
"""The headings of what every run has, and of the other values of clients."""


@dataclass(frozen=True)
class Panel:
    """What one set of axes shows.

    Attributes:
        title: Above it.
        curves: What to draw.
        group: The heading that it comes under.
        x_label: What is told along it.
        percent: Whether values are shares.
    """

    title: str
    curves: Sequence[Curve]
    group: str
    x_label: str = "round"
    percent: bool = False


def run_panels(run: Run) -> list[Panel]:
    """Lay out the curves of one run.

    Args:
        run: Any run.

    Returns:
        Accuracy and loss of student, ensemble and clients; then every other number, those of one
        prefix before a slash in one panel.
    """
    found = series_of(run)
    main = [panel for panel in (_main(found, "accuracy"), _main(found, "loss")) if panel.curves]
    rest: list[Panel] = []
    for name in found:
        measure = name.removeprefix("clients/").removesuffix("/median")
        if name == f"clients/{measure}/median" and measure not in ("accuracy", "loss"):
            lines = [banded(found, f"clients/{measure}", Style(2), BAND)]
            group = _group_of(measure)
            panel = Panel(f"clients: {measure}", lines, group, percent=_share(measure))
            (main if group == FIRST else rest).append(panel)
    return [*main, *_over_costs([Spenders("", Style(0), [found])]), *rest, *_others(found)]


def _group_of(measure: str) -> str:
    """Say under which heading a measure of clients comes: `train_loss` is a loss, `ece` is not."""
    return FIRST if re.search("(^|_)(accuracy|loss)$", measure) else OF_CLIENTS


def _main(found: Mapping[str, Series], measure: str) -> Panel:
    student = PEERS_MEAN if EDGES in found else "student"
    names = {student: f"student/{measure}", "teacher ensemble": f"strategy/ensemble_{measure}"}
    lines = [
        curve(found[name], Style(n), label)
        for n, (label, name) in enumerate(names.items())
        if name in found
    ]
    if f"clients/{measure}/median" in found:
        lines.append(banded(found, f"clients/{measure}", Style(2), BAND))
    whose = f"{lines[0].label}: " if len(lines) == 1 and not lines[0].bands else ""
    return Panel(f"{whose}{measure}", lines, FIRST, percent=_share(measure))


def _others(found: Mapping[str, Series]) -> list[Panel]:
    panels = []
    names = [name for name in found if _section(name) and name not in MAIN]
    names.sort(key=natural)
    shared = Counter(_two_words(name) for name in names)
    for (section, prefix), members in groupby(names, lambda n: (_section(n), _prefix(n, shared))):
        together = list(members)
        for start in range(0, len(together), MOST_IN_A_PANEL):
            part = together[start : start + MOST_IN_A_PANEL]
            lines = [curve(found[m], Style(n), _leaf(m, prefix)) for n, m in enumerate(part)]
            panels.append(Panel(prefix, lines, section, percent=_share(prefix)))
    return panels


def _section(name: str) -> str:
    top = name.split("/")[0]
    return {"probes": "Probes", "strategy": "Strategy", "student": "Student"}.get(
        top, "" if top in ("clients", "bytes", "failures") else "Other numbers"
    )


def _prefix(name: str, shared: Counter[str]) -> str:
    """Say in which panel a number is.

    `probes/recall/3` is in recall, and `strategy/peer_loss_mlp` in peer_loss if there are others;
    `probes/output_js` has a panel of its own.
    """
    parts = name.split("/")
    words = _two_words(name)
    return "/".join(parts[1:-1]) or (words if words and shared[words] > 1 else parts[-1])


def _two_words(name: str) -> str:
    words = name.rpartition("/")[2].split("_")
    return "_".join(words[:2]) if len(words) > 2 else ""


def _leaf(name: str, prefix: str) -> str:
    leaf = name.rpartition("/")[2]
    return leaf.removeprefix(f"{prefix}_")


def _share(name: str) -> bool:
    words = re.split(r"[_/\W]", name)
    return not {"accuracy", "disagreement", "share", "recall"}.isdisjoint(words)


def _over_costs(spenders: Sequence[Spenders]) -> list[Panel]:
    return [
        Panel(title, lines, FIRST, along, percent=True)
        for title, along, lines in cost_curves(spenders)
    ]


def method_panels(methods: Sequence[Method]) -> list[Panel]:
    """Lay out the curves of several methods, a panel for each number that any of them has.

    Args:
        methods: At least one.

    Returns:
        Accuracies and losses first; in each panel a curve for each method, and faint ones for runs
        that are not over.
    """
    runs = [(run, series_of(run)) for method in methods for run in method.runs]
    names = dict.fromkeys(name for _, found in runs for name in found)
    first = [*MAIN]
    clients = [n for n in sorted(names) if re.fullmatch(r"clients/(\w+/mean|\w*accuracy/min)", n)]
    groups = {name: _group_of(name.split("/")[1]) for name in clients}
    first += sorted(clients, key=lambda name: groups[name] != FIRST)
    rest = sorted((n for n in names if _section(n) and n not in first), key=_section_first)
    panels = []
    for name in [n for n in first if n in names] + rest:
        lines = [
            line
            for number, method in enumerate(methods)
            for line in method_curves(runs, method, name, Style(number))
        ]
        section = groups.get(name, FIRST if name in MAIN else _section(name))
        shown = re.sub(r"^clients/(\w+)/(\w+)$", r"clients: \1, \2", name)
        shown = re.sub("^strategy/ensemble_(?=accuracy|loss)", "teacher ensemble ", shown)
        shown = re.sub("^(strategy|probes)/", "", shown).replace("/", " ")
        panels.append(Panel(shown, lines, section, percent=_share(name)))
    spenders = [
        Spenders(
            method.name,
            Style(number),
            [found for run, found in runs if run in method.runs and run.result is not None],
            [found for run, found in runs if run in method.runs and run.result is None],
        )
        for number, method in enumerate(methods)
    ]
    at = sum(panel.group == FIRST for panel in panels)
    return [*panels[:at], *_over_costs(spenders), *panels[at:]]


def dot_rows(methods: Sequence[Method]) -> list[tuple[str, list[tuple[str, list[float]]]]]:
    """Lay out accuracies of runs of one round, of which a curve would be a dot.

    Args:
        methods: At least one.

    Returns:
        Panels of rows with a value for each seed: of one method a row for each accuracy, of several
        a panel for each with a row for each method.
    """
    known = {method.name: [accuracies(run) for run in method.finished] for method in methods}
    names = [*dict.fromkeys(n for runs in known.values() for found in runs for n in found)]
    values = {
        (who, name): [found[name] for found in runs if name in found]
        for who, runs in known.items()
        for name in names
    }
    if len(methods) == 1:
        return [(FIRST, [(name, values[methods[0].name, name]) for name in names])]
    return [(name, [(who, values[who, name]) for who in known if values[who, name]])
            for name in names]  # fmt: skip


def _section_first(name: str) -> tuple[int, list[tuple[int, str]]]:
    order = ("Student", "Probes", "Strategy", "Other numbers")
    return order.index(_section(name)), natural(name)
