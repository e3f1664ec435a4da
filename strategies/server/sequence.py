"""One strategy after another over the same clients, who keep what they have learnt."""

from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from clients.duck_typing import offers, told
from clients.handlers.base import Handler, by_kind
from clients.messages.accumulator import Intake, Receiving
from strategies.argument_injection import completed
from strategies.base import BaseStrategy


class Stages(BaseStrategy):
    """Runs one strategy for some rounds, then another.

    Cluster-then-distil is averaging within clusters of peers, then distillation of what each
    cluster has come to (CPFL: Dhasade et al., "Harnessing Increased Client Participation with
    Cohort-Parallel Federated Learning", arXiv:2405.15644, without its weights by label counts).
    """

    any_shape = True  # if both of them do

    def __init__(
        self,
        *,
        first: partial[Any],
        second: partial[Any],
        first_rounds: Annotated[int, ">= 1"],
        rounds: int,
        **offered: Any,
    ) -> None:
        """Complete both.

        Args:
            first: Of the rounds 1..first_rounds; only its parameters of the global model are lost.
            second: Of the rounds after that; begins with the global model of round 0.
            first_rounds: >= 1, below `rounds`.
            rounds: R.
            **offered: What there is for a strategy to want.

        Raises:
            ValueError: The number is out of range, or messages of one type are answered otherwise
                by one than by the other.
        """
        if not 1 <= first_rounds < rounds:
            raise ValueError(
                f"strategy.first_rounds={first_rounds}: expected from 1 to {rounds - 1}, below "
                f"rounds={rounds}"
            )
        self._stages: tuple[Any, Any] = (completed(first, offered), completed(second, offered))
        self.handlers = _together(*(told(stage, "handlers") or () for stage in self._stages))
        self.has_student = getattr(self._stages[1], "has_student", True)
        self._first_rounds = first_rounds
        self._begun: ArrayRecord | None = None

    def intake(self, server_round: int, phase: str) -> Intake:
        """Say what becomes of replies."""
        stage = self._stage(server_round)
        if isinstance(stage, Receiving) and offers(stage, Receiving):
            return stage.intake(server_round, phase)
        return None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as the stage asks; the second one's first round begins as round 1 did."""
        if server_round == 1:
            self._begun = arrays
        if server_round == self._first_rounds + 1:
            arrays = self._begun or arrays
            if hasattr(self._stages[0], "end"):
                self._stages[0].end()
        stage = self._stage(server_round)
        return stage.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate as the stage does."""
        return self._stage(server_round).aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as the stage asks."""
        return self._stage(server_round).configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Measure as the stage does."""
        return self._stage(server_round).aggregate_evaluate(server_round, replies)

    def state(self) -> RecordDict:
        """Return what both keep, and what the second begins with."""
        state = RecordDict()
        for place, stage in enumerate(self._stages):
            for name, record in stage.state().items():
                state[f"{place}.{name}"] = record
        if self._begun is not None:
            state["begun"] = self._begun
        return state

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        self._begun = state.array_records.get("begun")
        for place, stage in enumerate(self._stages):
            own = {k: v for k, v in state.items() if k.startswith(f"{place}.")}
            stage.restore(RecordDict({k.partition(".")[2]: v for k, v in own.items()}))

    def _stage(self, server_round: int) -> Strategy:
        stage: Strategy = self._stages[server_round > self._first_rounds]
        return stage


def _together(first: Iterable[Handler], second: Iterable[Handler]) -> tuple[Handler, ...]:
    """Put the handlers of both stages together, of which none may answer the other's messages."""
    one, other = by_kind(first), by_kind(second)
    for kind in {*one, *other}:  # "train" and "evaluate" are answered where nobody says how, too
        both = kind in one and kind in other
        if (both or kind in ("train", "evaluate")) and one.get(kind) is not other.get(kind):
            raise ValueError(
                f"strategy.second: its '{kind}' messages would be answered as those of "
                "strategy.first are, or the other way round; expected strategies with messages of "
                "their own"
            )
    return tuple((one | other).values())
