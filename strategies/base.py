"""The base of our strategies: Flower's five methods with honest defaults."""

from collections.abc import Iterable, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from clients.handlers.base import Handler


class BaseStrategy(Strategy):
    """A strategy that evaluates on no client.

    Whoever inherits it has `configure_train` and `aggregate_train` to write; and `state` and
    `restore`, if its runs are to be resumed: what it keeps between rounds only it can tell.

    Attributes:
        handlers: What clients do with its messages; Flower's "train" and "evaluate" are answered
            anyway.
        has_student: Whether it makes a global model; without one, none is measured or stored.
        averages: Whether it averages parameters into the student's, so that clients of another
            architecture are refused before anything is begun.
        any_shape: Whether it looks at what clients answer, not at their parameters, so that their
            networks may have shapes of their own (`clients.shape`).
        of_classes: Whether it is for one class of each input, so that another task is refused.
        own_objective: Whether clients minimise what the method has them minimise, so that
            `clients.objective`, which would be ignored, is refused.
        sends_targets: Whether its clients send answers and are sent soft labels as "targets", so
            that codecs of parameters have nothing to do.
    """

    handlers: Sequence[Handler] = ()
    has_student = True
    averages = False
    any_shape = False
    of_classes = False
    own_objective = False
    sends_targets = False

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nobody."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Have nothing to add to what each client says of itself."""
        return None

    def summary(self) -> None:
        """Nothing to log: the resolved config says it all."""
