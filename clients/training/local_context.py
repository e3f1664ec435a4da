"""The local context: what a trainer may know, and keep, of the client that it trains.

A trainer that has an argument `local` is given one: who learns and in which round, what was sent,
arrays that stay the client's from round to round (a memory, a moving average, an importance of
parameters), and a way to note numbers of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from clients.signatures import names

Array = npt.NDArray[Any]
Received = Mapping[str, Mapping[str, Array]]
Phase = Literal["train", "digest", "distil"]


def nothing() -> dict[str, Any]:
    """Have nothing."""
    return {}


def no_plans() -> tuple[dict[str, Any], dict[str, Any]]:
    """Have a network as its architecture is built."""
    return {}, {}


class LocalContext:
    """The local context of one client in one call, or of the student.

    Attributes:
        client_id: Whose, 0-based; None = the student's.
        server_round: 1..R.
        phase: "train" on private data, "digest" of what was sent (a student that is fed back, soft
            labels of neighbours) on the proxy set, or "distil" of the student.
        notes: What was noted, by name.
    """

    def __init__(
        self,
        client_id: int | None,
        server_round: int,
        phase: Phase = "train",
        state: Callable[[], Mapping[str, Array]] = nothing,
        received: Callable[[], Received] = nothing,
        plans: Callable[[], Sequence[Mapping[str, Array]]] = no_plans,
    ) -> None:
        """Begin with what the client has kept.

        Args:
            client_id: As in `LocalContext`.
            server_round: As there.
            phase: As there.
            state: Reads what it has kept, by name.
            received: Reads the arrays that came with the request.
            plans: Reads the plan of its network's shape, and that with which it trained last.
        """
        self.client_id, self.server_round, self.phase = client_id, server_round, phase
        self.notes: dict[str, float] = {}
        self._read: dict[str, Callable[[], Any]] = {
            "state": lambda: {name: np.array(value) for name, value in state().items()},
            "received": received,
            "plans": plans,
        }
        self._there: dict[str, Any] = {}

    @property
    def state(self) -> dict[str, Any]:
        """Arrays by name, or tensors, that the client has again when it trains next.

        They are in checkpoints, and no other client sees them. Empty at first. What is not finite
        is kept as it is: it is the trainer's own, and NaN may stand for what is not there yet.
        """
        found: dict[str, Any] = self._once("state")
        return found

    @property
    def received(self) -> Received:
        """What came with the request: read-only arrays, by the record's name and their own.

        Of parameter averaging `received["arrays"]` are the global model's parameters.
        """
        found: Received = self._once("received")
        return found

    @property
    def plans(self) -> Sequence[Mapping[str, Array]]:
        """The plan of its network's shape, and that with which it trained last: arrays by name.

        Read-only; of a network that is as its architecture is built a plan is empty.
        """
        found: Sequence[Mapping[str, Array]] = self._once("plans")
        return found

    def replan(self, plan: Mapping[str, Array]) -> None:
        """Go on with another plan, or the same, once it has trained."""
        self._there["plans"] = plan, self.plans[0]

    def note(self, **numbers: float) -> None:
        """Note numbers of one's own: columns of clients.parquet, and curves in TensorBoard.

        Args:
            **numbers: Finite, by name; the last one of a name in a round counts.

        Raises:
            ValueError: One is no finite number; names it.
        """
        noted(self.notes, "local.note", **numbers)

    def during(self, phase: Phase) -> "LocalContext":
        """Return the same in another phase of the call, with one state and the same notes."""
        other = copy(self)
        other.phase = phase
        return other

    @property
    def kept(self) -> dict[str, Array] | None:
        """What is to be kept, as it was settled; None if it was not looked at."""
        return self._there.get("state")

    @property
    def planned(self) -> Sequence[Mapping[str, Array]] | None:
        """The plans that are to be kept, as in `plans`; None if they were not looked at."""
        return self._there.get("plans")

    def told(self, train: Callable[..., list[float]]) -> Callable[..., list[float]]:
        """Bind it to a trainer, if that names it.

        Args:
            train: Anyone's.

        Returns:
            It, with `local` bound. What it then leaves in `state` is copied when it returns, for
            that may be tensors of the network, in which the next client learns. ValueError if it is
            no array of numbers; names it.
        """
        if not names(train, "local"):
            return train

        def knowing(*what: Any, **numbers: Any) -> list[float]:
            losses = train(*what, local=self, **numbers)
            state = self._there.get("state", {})
            for name, value in state.items():
                state[name] = array_of(f"local.state[{name!r}]", name, value)
            return losses

        return knowing

    def _once(self, name: str) -> Any:
        """Read something that is asked for, once for all phases of the call."""
        if name not in self._there:
            self._there[name] = self._read[name]()
        return self._there[name]


def noted(notes: dict[str, float], who: str, /, **numbers: float) -> None:
    """Note numbers of a client among others.

    Args:
        notes: Those.
        who: What an error begins with.
        **numbers: Finite, by name.

    Raises:
        ValueError: One is no finite number; names it.
    """
    for name, number in numbers.items():
        if isinstance(number, Tensor | np.generic) and not number.shape:
            number = number.item()
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{who}({name}={number!r}): expected a number")
        if not np.isfinite(number):
            raise ValueError(f"{who}({name}={number}): expected a finite number")
        notes[name] = float(number)


def array_of(what: str, name: Any, value: Any) -> Array:
    """Copy what anybody has left under a name into an array.

    Args:
        what: What it is, for errors.
        name: The name.
        value: An array, a tensor, a number.

    Returns:
        The array.

    Raises:
        ValueError: It is none of numbers, or the name is none.
    """
    if not isinstance(name, str):
        raise ValueError(f"{what}: its name is of {type(name).__name__}, expected a text")
    kind = str(getattr(value, "dtype", type(value).__name__))
    try:
        array: Array = np.array(value.numpy(force=True) if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:  # of bfloat16, of unlike lengths
        small = isinstance(value, Tensor) and value.is_floating_point() and value.itemsize < 4
        cure = "; .float() is one" if small else ""
        raise ValueError(
            f"{what} is of {kind}: expected an array of numbers as numpy has them{cure}"
        ) from error
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{what} is of {kind}: expected an array of numbers")
    return array
