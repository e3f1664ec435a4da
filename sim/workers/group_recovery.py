"""What to make of groups that could not be run as they are."""

from dataclasses import replace
from itertools import chain

from clients.messages.accumulator import Reducer
from sim.workers.tasks import Answer, Group, Outcome


def singles(group: Group) -> list[Group]:
    """Cut a group into groups of one."""
    letters = group.letters or ((),) * len(group.tasks)
    each = zip(group.tasks, group.states, letters, strict=True)
    return [replace(group, tasks=(t,), states=(s,), letters=(own,)) for t, s, own in each]


def joined(group: Group, outcomes: list[Outcome]) -> Outcome:
    """Make one outcome of those of a group's clients, each of which was run alone."""
    parts = [outcome.part for outcome in outcomes if outcome.part is not None]
    merged = None
    if parts and isinstance(group.intake, Reducer):
        merged = group.intake.merge(iter(parts))
    return Outcome(
        number=group.number,
        answers=list(chain.from_iterable(outcome.answers for outcome in outcomes)),
        states=list(chain.from_iterable(outcome.states for outcome in outcomes)),
        kept=list(chain.from_iterable(outcome.kept for outcome in outcomes)),
        part=merged,
        broken=next((outcome.broken for outcome in outcomes if outcome.broken), ""),
        notes=tuple(chain.from_iterable(outcome.notes for outcome in outcomes)),
    )


def failed(group: Group, reason: str, traceback: str = "") -> Outcome:
    """Say of all clients of a group that they failed, and why."""
    answers = [
        Answer(task.client_id, None, failure=reason, raised=True, traceback=traceback)
        for task in group.tasks
    ]
    nothing = [None] * len(answers)
    return Outcome(group.number, answers, nothing, nothing)
