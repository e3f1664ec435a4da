"""A tracker and a display that are not there yet: what they are told before is told them then.

So a strategy is complete, and has refused what it cannot bear, before a run folder is begun.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clients.messages.round_views import GraphView, RoundView
    from sim.topology.topology import Topology
    from sim.tracking.console import Display
    from sim.tracking.tracker import Tracker


class Pending:
    """Takes what a tracker and a display are told."""

    def __init__(self) -> None:
        """Begin without either."""
        self._before: list[Callable[[Display], object]] = []
        self._both: tuple[Tracker, Display] | None = None

    def begin(self, tracker: "Tracker", display: "Display") -> None:
        """Tell them what there was to say, and from now on at once."""
        self._both = tracker, display
        for say in self._before:
            say(display)

    def view(self, view: "RoundView") -> None:
        """Hand a round on to the tracker."""
        assert self._both is not None, "no round before the folder is begun"
        self._both[0].view(view)

    def graph(self, view: "GraphView") -> None:
        """Hand on who heard of whom."""
        assert self._both is not None, "no round before the folder is begun"
        self._both[0].graph(view)

    def warn(self, text: str) -> None:
        """Have the display warn."""
        self._say(lambda display: display.warn(text))

    def topology(self, topology: "Topology") -> "Topology":
        """Have the display say what graph peers are on; return it."""
        self._say(lambda display: display.topology(topology))
        return topology

    def _say(self, say: "Callable[[Display], object]") -> None:
        if self._both is None:
            self._before.append(say)
        else:
            say(self._both[1])
