"""TensorBoard's cards: in which group a number of a round stands, and on whose curve.

TensorBoard sorts groups by their names and opens the first two, so ours are numbered in the order
in which they are read. It colours by run, so student, ensemble and clients are runs of their own:
their curves stand on one card, each with a colour and a legend.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

LEARNING, CLIENTS, DRIFT, TRUST, STRATEGY, WATCHED, COST, BANDS = (
    "1 learning", "2 clients", "3 drift", "4 trust", "5 strategy", "6 watched", "7 cost", "8 bands",
)  # fmt: skip
RUN = ""
"""The curve of what is no student's, ensemble's or client's: the run's own."""

CURVES = {"min": "clients min", "median": "clients median", "max": "clients max"}
"""Of a measure that the student has too: these of its quantiles over clients, and their curves."""

OF_TRUST = re.compile(
    r"weight_.*|effective_teachers|largest_weight|right_weight|confidence_(right|wrong)"
    r"|wrong_but_confident|right"
)
"""Probes of whom the ensemble trusts, and of who deserves it."""

NAME_LENGTH = 80
"""Of a run: longer names do not fit beside the curves."""

Layout = dict[str, dict[str, list[Any]]]


class Place(NamedTuple):
    """Where a number is shown: on whose curve, and on which card of which group."""

    curve: str
    card: str


OVERVIEW = {
    "accuracy": f"{LEARNING}/accuracy",
    "mean IoU": f"{LEARNING}/miou",
    "R2": f"{LEARNING}/r2",
    "output drift": f"{DRIFT}/output_(js|disagreement)",
    "who was right": f"{TRUST}/right",
    "accuracy per megabyte": f"{COST}/accuracy_per_megabyte",
    "accuracy per simulated second": f"{COST}/accuracy_per_simulated_second",
}
"""Custom scalars that tell how a federation does, by the cards in them."""


def places(tag: str, learnt: Collection[str]) -> Iterator[Place]:
    """Say where a number is shown.

    Args:
        tag: Its name in a line of `metrics.jsonl`, with `/` for each level.
        learnt: Measures by which student, ensemble and clients are compared.

    Yields:
        One place; of a quantile over clients of what is learnt two: beside the student's, and in
        the band that custom scalars draw.
    """
    group, _, name = tag.partition("/")
    if group == "student":
        yield Place("student", f"{LEARNING}/{name}")
    elif group == "strategy" and name.startswith("ensemble_"):
        yield Place("ensemble", f"{LEARNING}/{name.removeprefix('ensemble_')}")
    elif group == "clients":
        measure, _, quantile = name.rpartition("/")
        if measure in learnt and quantile in CURVES:
            yield Place(CURVES[quantile], f"{LEARNING}/{measure}")
        yield Place(RUN, f"{BANDS}/{name}")
    elif group == "probes":
        curve, measure = _whose(name)
        yield Place(curve, f"{TRUST if OF_TRUST.fullmatch(measure) else DRIFT}/{measure}")
    elif group in ("strategy", "watch"):
        yield Place(RUN, f"{STRATEGY if group == 'strategy' else WATCHED}/{name}")
    else:
        yield Place(RUN, f"{COST}/{name if group == 'cost' else tag.replace('/', '_')}")


def layout(cards: Collection[str]) -> Layout:
    """Say how TensorBoard's custom scalars show a run.

    Args:
        cards: All that there are. Each measure of clients among them gets a chart with the band
            from a quarter of the clients to three quarters, and one with the band that holds all.

    Returns:
        Charts by category and title, as `SummaryWriter.add_custom_scalars` takes them.
    """

    def band(measure: str, low: str, high: str) -> list[Any]:
        return ["Margin", [f"{BANDS}/{measure}/{name}" for name in ("median", low, high)]]

    measures = [found[1] for card in cards if (found := re.fullmatch(f"{BANDS}/(.*)/median", card))]
    charts: Layout = {
        "overview": {
            title: ["Multiline", [f"({pattern})$"]]
            for title, pattern in OVERVIEW.items()
            if any(re.fullmatch(pattern, card) for card in cards)
        },
        "half of the clients": {name: band(name, "q25", "q75") for name in measures},
        "all clients": {name: band(name, "min", "max") for name in measures},
    }
    return {category: shown for category, shown in charts.items() if shown}


def run_name(choices: Mapping[str, Any]) -> str:
    """Name a run by what it was told, as a folder may be called: `strategy=feddf,seed=0`."""
    told = sorted(choices.items(), key=lambda item: item[0] == "seed")  # else as they were told
    name = ",".join(f"{key}={value}" for key, value in told)
    return re.sub(r"[^\w.,=+-]", "_", name)[:NAME_LENGTH] or "run"


class HeldBack:
    """Numbers that have been the same in every round: a card with a level line says nothing."""

    def __init__(self) -> None:
        """Begin with none."""
        self._level: dict[Place, tuple[float, int, int]] = {}
        self._moving: set[Place] = set()

    def shown(self, step: int, place: Place, value: float) -> Iterator[tuple[int, float]]:
        """Take in a number; yield what is to be shown now.

        Args:
            step: Of the round.
            place: Where it would stand.
            value: The number, finite.

        Yields:
            Steps and numbers: none while it is what it was, and once it is not, the two ends of
            the level line before it too.
        """
        always = place.card.split("/")[0] in (LEARNING, WATCHED, BANDS)
        if not always and place not in self._moving:
            first, began, last = self._level.get(place, (value, step, step))
            if first == value:
                self._level[place] = (value, began, step)
                return
            self._moving.add(place)
            del self._level[place]
            yield from ((each, first) for each in dict.fromkeys((began, last)))
        yield step, value

    def seen_once(self) -> Iterator[tuple[int, Place, float]]:
        """Yield what only one round had, and no line can be of: step, place and number."""
        for place, (value, began, last) in self._level.items():
            if began == last:
                yield began, place, value


def _whose(name: str) -> tuple[str, str]:
    """Split `student_ece` into whose curve and which measure; a probe's own name is the run's."""
    found = re.fullmatch("(student|ensemble|oracle)_(.+)", name)
    return (found[1], found[2]) if found else (RUN, name)
