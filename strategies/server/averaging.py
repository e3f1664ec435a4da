"""Federated averaging whose sums are made where the answers are."""

from collections.abc import Iterable
from copy import copy
from functools import partial
from typing import Annotated, Literal, TypeVar, get_args

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from clients.messages.accumulator import Reducer, is_part
from clients.messages.arrays import read_arrays, summable, write_arrays
from clients.messages.sizes import NUM_EXAMPLES, examples_in
from strategies.aggregation.parameters import WeightedSum
from strategies.cohorts import to_cohort

WeighBy = Literal["examples", "clients"]
Record = TypeVar("Record", ArrayRecord, MetricRecord)


class Averaging(FedAvg):
    """Flower's FedAvg; its answers come as partial means, and it draws a cohort without listing.

    Flower's own gets every client's parameters at the driver, 42 MB a round for 100 clients of
    110,000 parameters; this one gets one mean.
    """

    def __init__(
        self,
        *,
        seed: Annotated[int, ">= 0"],
        fraction_train: Annotated[float, "in (0, 1]"] = 1.0,
        fraction_evaluate: Annotated[float, "in [0, 1]"] = 1.0,
        weigh_by: WeighBy = "examples",
    ) -> None:
        """Choose how many clients take part.

        Args:
            seed: The run's seed.
            fraction_train: Share of the clients in (0, 1] that trains in a round, at least one.
            fraction_evaluate: Share of them in [0, 1] that measures the average on private data.
            weigh_by: "examples": clients count by how many they have; "clients": alike.

        Raises:
            ValueError: A share is out of range, or there is no such weight.
        """
        if weigh_by not in get_args(WeighBy):
            raise ValueError(f"strategy.weigh_by={weigh_by}: expected one of {get_args(WeighBy)}")
        if not 0 < fraction_train <= 1:
            raise ValueError(f"fraction_train={fraction_train}: expected in (0, 1]")
        if not 0 <= fraction_evaluate <= 1:
            raise ValueError(f"fraction_evaluate={fraction_evaluate}: expected in [0, 1]")
        super().__init__(fraction_train=fraction_train)
        self.fraction_evaluate = fraction_evaluate  # Flower would warn of 0
        self.seed, self.weigh_by = seed, weigh_by

    def intake(self, server_round: int, phase: str) -> Reducer | None:
        """Fold answers into their weighted mean; measures of an evaluation too."""
        return Reducer(partial(WeightedMean, self.weigh_by), unlike_request)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the average to the round's cohort."""
        return self._ask("train", server_round, arrays, config, grid, self.fraction_train)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the average to clients that measure it."""
        if self.fraction_evaluate == 0:
            return []
        return self._ask("evaluate", server_round, arrays, config, grid, self.fraction_evaluate)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average parameters, and metrics."""
        return super().aggregate_train(server_round, self._weighed(replies))

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Average what clients measured."""
        return super().aggregate_evaluate(server_round, self._weighed(replies))

    def state(self) -> RecordDict:
        """Return what it keeps between rounds: nothing."""
        return RecordDict()

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""

    def _weighed(self, replies: Iterable[Message]) -> list[Message]:
        """Let each client count as one where it is to; parts come weighed."""
        alike = self.weigh_by == "clients"
        return [
            _as_one(reply) if alike and reply.has_content() and not is_part(reply) else reply
            for reply in replies
        ]

    def _ask(
        self,
        kind: str,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
        fraction: float,
    ) -> list[Message]:
        config["server-round"] = server_round
        content = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        return to_cohort(
            grid, kind, content, fraction=fraction, seed=self.seed, server_round=server_round
        )


class WeightedMean:
    """The mean of parameters and scalar metrics, weighed by number of examples, or of clients.

    A part is of the form of a reply, counts as much as all that it is of, and is taken in likewise.
    Integers become floats. A metric that not all have is left out.
    """

    def __init__(self, weigh_by: WeighBy = "examples") -> None:
        """Begin with none."""
        self._alike, self._total = weigh_by == "clients", 0.0
        self._arrays = WeightedSum(summable)
        self._metrics: dict[str, float] = {}
        self._common: set[str] | None = None
        self._names: tuple[str, str] = ("", "")

    def add(self, content: RecordDict) -> None:
        """Take in a content with a metric record that has "num-examples", the weight.

        Of array records it has at most one.
        """
        self._take(content, 1.0 if self._alike else None)

    def merge(self, part: RecordDict) -> None:
        """Take in what `part` of another one returned."""
        self._take(part)

    def _take(self, content: RecordDict, weight: float | None = None) -> None:
        [(metrics_name, record)] = _records(content, MetricRecord)
        weight = examples_in(record) if weight is None else weight
        self._total += weight
        self._common = set(record) if self._common is None else self._common & set(record)
        for key, value in record.items():
            if key != NUM_EXAMPLES:
                self._metrics[key] = self._metrics.get(key, 0.0) + weight * _scalar(value)
        for arrays_name, named in _records(content, ArrayRecord):
            self._names = (arrays_name, metrics_name)
            self._arrays.add(read_arrays(named), weight)
        self._names = (self._names[0], metrics_name)

    def part(self) -> RecordDict:
        """Return the weighted means, under the same names, and the sum of the weights."""
        common, total = self._common or (), self._total
        means = MetricRecord({k: v / total for k, v in self._metrics.items() if k in common})
        means[NUM_EXAMPLES] = total
        folded = RecordDict({self._names[1]: means})
        if self._arrays.arrays:
            mean = {key: value / total for key, value in self._arrays.arrays.items()}
            folded[self._names[0]] = write_arrays(mean)
        return folded


def unlike_request(request: Message, reply: Message) -> str | None:
    """Say why a reply cannot be averaged with others; None if it can."""
    content = reply.content
    [(_, sent)] = _records(request.content, ArrayRecord)
    returned = [record for _, record in _records(content, ArrayRecord)]
    if len(returned) != (wanted := 1 if request.metadata.message_type == "train" else 0):
        return f"it has {len(returned)} array records, expected {wanted}"
    for record in returned:
        if set(record) != set(sent):
            return f"its arrays are named {sorted(record)}, expected {sorted(sent)}"
        for name, array in record.items():
            if tuple(array.shape) != tuple(sent[name].shape):
                return f"'{name}' has shape {array.shape}, expected {sent[name].shape}"
    records = [record for _, record in _records(content, MetricRecord)]
    if len(records) != 1 or NUM_EXAMPLES not in records[0]:
        return f"it has {len(records)} metric records, expected one with '{NUM_EXAMPLES}'"
    odd = [key for key, value in records[0].items() if isinstance(value, list)]
    return f"its metrics {odd} are lists, expected numbers" if odd else None


def _records(content: RecordDict, kind: type[Record]) -> list[tuple[str, Record]]:
    # Not content.array_records: it refers to the content and back, and parameters would wait for
    # the garbage collector.
    return [(name, record) for name, record in content.items() if isinstance(record, kind)]


def _as_one(reply: Message) -> Message:
    """Return a reply that counts as one example."""
    shown, records = copy(reply), reply.content.items()
    shown.content = RecordDict(
        {
            name: MetricRecord({**each, NUM_EXAMPLES: 1})
            if isinstance(each, MetricRecord)
            else each
            for name, each in records
        }
    )
    return shown


def _scalar(value: int | float | list[int] | list[float]) -> float:
    assert not isinstance(value, list), "checked by unlike_request"
    return float(value)
