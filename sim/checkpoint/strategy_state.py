"""What a strategy keeps between rounds, as records that a checkpoint can hold."""

import inspect
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)

from clients.duck_typing import offers
from clients.messages.arrays import read_arrays, write_arrays


@runtime_checkable
class Resumable(Protocol):
    """A strategy that says itself what it keeps between rounds."""

    def state(self) -> RecordDict:
        """Return all that later rounds depend on.

        Returns:
            Records; none if nothing is kept.

        Raises:
            NotImplementedError: A part of it keeps something that it cannot tell; says which.
        """
        ...

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned, in a strategy made from the same config."""
        ...


KEPT: dict[type[Strategy], dict[str, type]] = {
    FedAvg: {},
    FedProx: {},
    FedMedian: {},
    FedTrimmedAvg: {},
    Krum: {},
    MultiKrum: {},
    Bulyan: {},
    QFedAvg: {},
    FedAvgM: {"current_arrays": ArrayRecord, "momentum_vector": list},
    FedAdagrad: {"m_t": dict, "v_t": dict},
    FedAdam: {"m_t": dict, "v_t": dict},
    FedYogi: {"m_t": dict, "v_t": dict},
}
"""What Flower's strategies keep from round to round, as flwr 1.41 has it; a test fails if one of
them gets another attribute."""

RENEWED = {"server_opt", "current_arrays"}
"""Their attributes that follow from others or are set anew at the start of every round."""


def strategy_state(strategy: Strategy) -> RecordDict:
    """Collect what a strategy keeps between rounds.

    Args:
        strategy: One that is `Resumable`, or one of Flower's that only averages or adapts, or made
            from these without further attributes.

    Returns:
        One record for each attribute that is set; for a `Resumable` what it says.

    Raises:
        NotImplementedError: It may keep something that cannot be known; says what to do.
    """
    if isinstance(strategy, Resumable) and offers(strategy, Resumable):
        return strategy.state()
    values = {name: getattr(strategy, name) for name in _kept(strategy)}
    return RecordDict({n: _record_of(value) for n, value in values.items() if value is not None})


def restore_strategy(strategy: Strategy, state: RecordDict) -> None:
    """Give a newly made strategy what another kept.

    Args:
        strategy: Of the same class and settings as that one.
        state: As `strategy_state` returned it.

    Raises:
        NotImplementedError: As in `strategy_state`.
        ValueError: The state is that of another kind of strategy.
    """
    if isinstance(strategy, Resumable) and offers(strategy, Resumable):
        strategy.restore(state)
        return
    forms = _kept(strategy)
    if foreign := state.keys() - forms.keys():
        raise ValueError(f"{type(strategy).__name__} keeps no {', '.join(sorted(foreign))}")
    for name, record in state.array_records.items():
        setattr(strategy, name, _value_of(record, forms[name]))


def _kept(strategy: Strategy) -> dict[str, type]:
    name = type(strategy).__qualname__
    known = next((base for base in type(strategy).__mro__ if base in KEPT), None)
    if known is None:
        raise NotImplementedError(f"{name} does not say what it keeps: give it state and restore")
    settings = {key for base in known.__mro__ for key in inspect.signature(base).parameters}
    unknown = vars(strategy).keys() - settings - RENEWED - KEPT[known].keys()
    if unknown:
        raise NotImplementedError(
            f"{name} has {', '.join(sorted(unknown))} beyond what {known.__name__} has and does "
            "not say whether it changes: give it state and restore"
        )
    return KEPT[known]


def _record_of(value: Any) -> ArrayRecord:
    if isinstance(value, ArrayRecord):
        return value
    named = dict(enumerate(value)) if isinstance(value, list) else value
    return write_arrays({str(key): np.asarray(array) for key, array in named.items()})


def _value_of(record: ArrayRecord, form: type) -> Any:
    if form is ArrayRecord:
        return record
    arrays = read_arrays(record)
    return list(arrays.values()) if form is list else arrays
