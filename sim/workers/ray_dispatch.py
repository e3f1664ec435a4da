"""Groups on their way over the workers of a Ray pool: whoever is free takes the next.

A group is a pure function: if its worker dies it is run again, and nothing of the result changes.
Of the groups that a lost worker had, only the one that ran may be to blame; it is run again with
nothing behind it, and if that kills more workers (`DEATHS_OF_SEVERAL`) its clients are run one by
one.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import ray

from clients.messages.accumulator import Keep
from sim.errors import PoolLost
from sim.workers import ray_deaths
from sim.workers.group_recovery import failed, joined, singles
from sim.workers.in_flight import Piece, Sent, Whole
from sim.workers.quarantine import Suspects, timed_out
from sim.workers.ray_cluster import ENDED, LOOK_EVERY_S, require_ray
from sim.workers.ray_workers import RayWorkers
from sim.workers.tasks import Group, Outcome

IN_FLIGHT = 2
"""Groups sent ahead to each worker: with one it idles for a round trip (1.2 ms) after each."""

DEATHS, DEATHS_OF_SEVERAL = 2, 3
"""How many workers a group of one, or of several, may take with it before its client is run no
more, or it is cut up, which changes bits. One can die of something else, and so can the next: with
2 for several, two kills in one phase of two groups changed the bits of every sixth run."""

LOSSES = 5
"""After so many lost machines and connections a group is to blame all the same."""


class Dispatch:
    """One wave of groups."""

    def __init__(
        self,
        workers: RayWorkers,
        suspects: Suspects,
        groups: Iterable[Group],
        client_timeout_s: float | None,
        secure: Callable[[list[Any]], list[Any]],
        one_machine: bool = False,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            workers: They run it.
            suspects: Added to.
            groups: Of different clients.
            client_timeout_s: How long a client may take; None = for ever.
            secure: References of states and payloads -> references that outlive the workers.
            one_machine: Whether all is on this one: if it is lost, then Ray is, and `outcomes`
                raises `PoolLost`.
        """
        self._workers = workers
        self._suspects = suspects
        self._source = iter(groups)
        self._dry = False
        self._timeout_s = client_timeout_s
        self._secure = secure
        self._one_machine = one_machine
        self._look_at = 0.0
        self._again: deque[Piece] = deque()
        self._suspected: deque[Piece] = deque()
        self._place_of: dict[Any, int] = {}
        self._queues: dict[int, deque[Sent]] = {}
        self._since: dict[int, float] = {}
        places = sorted(workers.ready)
        # There and back, as who gets the longest group first should get the shortest of the next.
        self._free = deque(place for i in range(IN_FLIGHT) for place in places[:: 1 - 2 * (i % 2)])

    def outcomes(self) -> Iterator[Outcome]:
        """Run them; yield each outcome as it comes."""
        while True:
            yield from self._send_all()
            if not self._place_of:
                if self._dry and not self._again and not self._suspected:
                    return
                if not self._workers.loading:
                    yield from self._fail_all()
                    return
            waits = [*self._place_of, *self._workers.loading]
            done, _ = ray.wait(waits, num_returns=1, timeout=self._patience_s())
            if not done or time.monotonic() >= self._look_at:
                self._look()
            for answer in done:
                if answer in self._workers.loading:
                    self._look()
                    if (place := self._workers.loaded(answer)) is not None:
                        self._free.extend([place] * IN_FLIGHT)
                else:
                    yield from self._receive(answer)
            if self._timeout_s is not None:
                yield from self._stop_overdue()

    # --- sending ---

    def _send_all(self) -> Iterator[Outcome]:
        """Send what there are places for; yield what comes of those that are not to be run."""
        while self._free and (piece := self._next()) is not None:
            if (refused := self._suspects.refused(piece.group)) is not None:
                yield from self._finish(piece, refused)
            else:
                self._send(piece, self._free.popleft())
        for place in sorted(self._workers.ready) if self._suspected else ():
            if not self._queues.get(place) and place in self._free and self._suspected:
                self._close(place)  # whoever may kill its worker gets one for itself
                self._send(self._suspected.popleft(), place)

    def _next(self) -> Piece | None:
        if not self._again and not self._dry:
            group = next(self._source, None)
            self._dry = group is None
            if group is not None:
                cut = self._suspects.cut(group)
                whole = Whole(group, len(cut))
                self._again += [Piece(each, whole, part) for part, each in enumerate(cut)]
        return self._again.popleft() if self._again else None

    def _send(self, piece: Piece, place: int) -> None:
        """Start a piece; its handles go beside it, because Ray resolves only whole arguments."""
        group = piece.group
        flags = tuple(state is not None for state in group.states)
        bare = replace(group, content=None, states=flags, payloads=())
        there = [state for state in group.states if state is not None]
        objects = len(group.tasks) * (2 if isinstance(group.intake, Keep) else 1)
        call = self._workers.actors[place].run.options(num_returns=1 + objects)
        answer, *rest = call.remote(bare, group.content, *there, *group.payloads)
        queue = self._queues.setdefault(place, deque())
        if not queue:
            self._since[place] = time.monotonic()
        queue.append(Sent(piece, answer, rest))
        self._place_of[answer] = place

    def _close(self, place: int) -> None:
        self._free = deque(other for other in self._free if other != place)

    def _fail_all(self) -> Iterator[Outcome]:
        """Say of all that is left that no worker starts: trying again would be no use."""
        while (piece := self._next()) is not None or self._suspected:
            piece = piece or self._suspected.popleft()
            outcome = failed(piece.group, "no worker starts", self._workers.broken)
            yield from self._finish(piece, outcome)

    # --- receiving ---

    def _receive(self, answer: Any) -> Iterator[Outcome]:
        """Take in one answer; if there is none, its worker is lost."""
        place = self._place_of[answer]
        queue = self._queues[place]
        sent = next(each for each in queue if each.answer == answer)
        came = self._fetch(sent)
        if isinstance(came, ray.exceptions.RayError):
            self._look()
            yield from self._bury(place)
            return
        queue.remove(sent)
        self._place_of.pop(answer)
        self._since[place] = time.monotonic()
        self._free.extend([place] * (IN_FLIGHT if sent.piece.suspect else 1))
        yield from self._conclude(sent.piece, came)

    def _fetch(self, sent: Sent) -> "Outcome | str | ray.exceptions.RayError":
        """Fetch what came of a piece: an outcome, why it cannot be sent, or of what it died."""
        try:
            outcome: Outcome = ray.get(sent.answer)
            size = len(outcome.states)  # of all tasks, or none if the strategy's rule broke
            there = [*outcome.states, *outcome.kept]  # nothing is kept where nothing was to be
            found = [ref for flag, ref in zip(there, sent.objects, strict=False) if flag]
            secured = iter(self._secure(found))
        except (
            ray_deaths.UNREADABLE
        ) as error:  # ours ran, and an answer cannot be pickled, there or here
            return str(error)
        except ray_deaths.GONE as death:  # killed, out of memory, machine gone, ...
            return death
        except ray.exceptions.RayError as error:  # a full store or disk: no worker's doing
            raise ray_deaths.ended_by(error) from error
        handles = [next(secured) if flag else None for flag in there]
        return replace(outcome, states=handles[:size], kept=handles[size:])

    def _conclude(self, piece: Piece, came: Outcome | str) -> Iterator[Outcome]:
        if isinstance(came, Outcome):
            yield from self._finish(piece, came)
        elif len(piece.group.tasks) == 1:
            self._suspects.run_alone(piece.group)
            why = "it cannot be run, or its reply not be sent"
            yield from self._finish(piece, failed(piece.group, why, came))
        else:
            self._again += self._broken_up(piece)

    def _finish(self, piece: Piece, outcome: Outcome) -> Iterator[Outcome]:
        """Note what came of a piece; yield what came of its group, if that was the last."""
        whole = piece.whole
        whole.outcomes[piece.part] = outcome
        if len(whole.outcomes) < whole.pieces:
            return
        if whole.broke_up:
            self._suspects.judge(whole.group)
        parts = [whole.outcomes[part] for part in range(whole.pieces)]
        yield joined(whole.group, parts) if whole.pieces > 1 else outcome

    def _broken_up(self, piece: Piece, suspect: bool = False) -> list[Piece]:
        """Cut a group up: what its clients come to is folded, and rounded, in another order."""
        each = singles(piece.group)
        piece.whole.pieces, piece.whole.broke_up = len(each), True
        return [Piece(one, piece.whole, part, suspect=suspect) for part, one in enumerate(each)]

    # --- lost workers ---

    def _look(self) -> None:
        """Raise PoolLost if Ray itself has ended: it would be asked in vain for 60 s."""
        self._look_at = time.monotonic() + LOOK_EVERY_S
        if self._one_machine:
            require_ray()

    def _bury(self, place: int, overdue: bool = False) -> Iterator[Outcome]:
        """Replace a worker; see what is to become of all that it had."""
        queue = self._queues.pop(place)
        self._close(place)
        for sent in queue:
            self._place_of.pop(sent.answer)
        self._workers.replace(place)
        lost: list[tuple[Piece, ray.exceptions.RayError]] = []
        for sent in queue:
            came = self._fetch(sent)
            if isinstance(came, ray.exceptions.RayError):
                lost.append((sent.piece, came))
            else:
                yield from self._conclude(sent.piece, came)
        # They ran in this order: those behind the first had not begun.
        self._again.extendleft(piece for piece, _ in reversed(lost[1:]))
        if lost and overdue:
            yield from self._time_out(lost[0][0])
        elif lost:
            yield from self._blame(*lost[0], alone=len(lost) == 1)

    def _blame(
        self, piece: Piece, death: "ray.exceptions.RayError", alone: bool
    ) -> Iterator[Outcome]:
        """Run again what a worker died of, or had when its machine was lost; not for ever."""
        machine, away = ray_deaths.machine_lost(death), ray_deaths.connection_lost(death)
        if self._one_machine and machine:
            raise PoolLost(ENDED)
        if (machine or away) and piece.losses < LOSSES:
            what = "a machine" if machine else "the connection to a worker"
            print(f"sim=ray: {what} was lost: what it had is run again", file=sys.stderr)
            piece.losses += 1
            (self._suspected if piece.suspect else self._again).append(piece)
            return
        single = len(piece.group.tasks) == 1
        piece.deaths += alone or not single
        if piece.deaths < (DEATHS if single else DEATHS_OF_SEVERAL):
            piece.suspect = True
            self._suspected.append(piece)
        elif single:
            outcome = self._suspects.quarantine(piece.group, DEATHS, ray_deaths.cause_of(death))
            yield from self._finish(piece, outcome)
        else:
            self._suspected += self._broken_up(piece, suspect=True)

    def _time_out(self, piece: Piece) -> Iterator[Outcome]:
        assert self._timeout_s is not None, "else nothing is overdue"
        if len(piece.group.tasks) > 1:
            self._suspected += self._broken_up(piece, suspect=True)
            return
        self._suspects.run_alone(piece.group)
        yield from self._finish(piece, timed_out(piece.group, self._timeout_s))

    def _stop_overdue(self) -> Iterator[Outcome]:
        for place, queue in list(self._queues.items()):
            if queue and self._left_s(place) <= 0 and not ray.wait([queue[0].answer], timeout=0)[0]:
                yield from self._bury(place, overdue=True)

    def _left_s(self, place: int) -> float:
        """Return how long the first in a worker's queue may still take; its clients share it."""
        limit = (self._timeout_s or 0.0) * len(self._queues[place][0].piece.group.tasks)
        return self._since[place] + limit - time.monotonic()

    def _patience_s(self) -> float | None:
        """Return how long to wait for an answer before something else is to be done."""
        times = [self._workers.say_if_waiting()] if self._workers.loading else []
        if self._timeout_s is not None:
            times += [self._left_s(place) for place, queue in self._queues.items() if queue]
        times += [LOOK_EVERY_S] if self._one_machine else []
        soonest = min(times, default=float("inf"))
        return None if soonest == float("inf") else max(0.0, soonest)
