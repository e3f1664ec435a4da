"""What the rules of a strategy keep between rounds.

Most keep nothing: they are functions, or frozen dataclasses or `functools.partial` of functions. A
rule that learns is an object, and only it can say what it has learnt.
"""

import inspect
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from flwr.app import RecordDict

from clients.duck_typing import offers


@runtime_checkable
class StatefulRule(Protocol):
    """A scorer, combiner or loss that goes on, in a resumed run, from what it had learnt."""

    def state(self) -> RecordDict:
        """Return all that its later answers depend on."""
        ...

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        ...


def state_of(rules: Mapping[str, Any]) -> RecordDict:
    """Collect what rules keep.

    Args:
        rules: By the name of the axis they are on.

    Returns:
        Their records, as `axis.record`; none for functions.

    Raises:
        NotImplementedError: A rule is neither a function nor a `StatefulRule`; names it.
    """
    state = RecordDict()
    for axis, rule in rules.items():
        if isinstance(rule, StatefulRule) and offers(rule, StatefulRule):
            for name, record in rule.state().items():
                state[f"{axis}.{name}"] = record
        elif not _keeps_nothing(rule):
            raise NotImplementedError(
                f"{axis} {type(rule).__module__}.{type(rule).__qualname__} is an object, which may "
                "keep something from round to round: give it state and restore"
            )
    return state


def restore(rules: Mapping[str, Any], state: RecordDict) -> None:
    """Give rules what `state_of` collected of others like them.

    Args:
        rules: As they were given to `state_of`.
        state: What it returned.
    """
    for axis, rule in rules.items():
        if isinstance(rule, StatefulRule) and offers(rule, StatefulRule):
            mine = {k: v for k, v in state.items() if k.startswith(f"{axis}.")}
            rule.restore(RecordDict({k.removeprefix(f"{axis}."): v for k, v in mine.items()}))


def _keeps_nothing(rule: Any) -> bool:
    if isinstance(rule, partial):
        return all(map(_keeps_nothing, (rule.func, *rule.args, *rule.keywords.values())))
    if is_dataclass(rule) and not inspect.isclass(rule) and rule.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return all(map(_keeps_nothing, vars(rule).values()))
    # A class is called to make something new; what cannot be called is a number or a list of them.
    return (
        inspect.isfunction(rule)
        or inspect.isbuiltin(rule)
        or inspect.isclass(rule)
        or not callable(rule)
    )
