"""Federated averaging whose sums are made where the answers are."""

from collections.abc import Iterable
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from clients.messages.accumulator import Reducer
from clients.messages.arrays import read_arrays, summable, write_arrays
from clients.messages.sizes import NUM_EXAMPLES, examples_in
from clients.seeding import Purpose, generator
from strategies.aggregation.parameters import WeightedSum
from strategies.cohorts import draw

Record = TypeVar("Record", ArrayRecord, MetricRecord)


class Averaging(FedAvg):
    """Flower's FedAvg; its answers come as partial means, and it draws a cohort without listing.

    Flower's own gets every client's parameters at the driver, 42 MB a round for 100 clients of
    110,000 parameters; this one gets one mean.
    """

    def __init__(
        self,
        *,
        seed: int,
        fraction_train: float = 1.0,
        fraction_evaluate: float = 1.0,
    ) -> None:
        """Choose how many clients take part.

        Args:
            seed: The run's seed.
            fraction_train: Share of the clients in (0, 1] that trains in a round, at least one.
            fraction_evaluate: Share of them in [0, 1] that measures the average on private data.

        Raises:
            ValueError: A share is out of range.
        """
        if not 0 < fraction_train <= 1:
            raise ValueError(f"fraction_train={fraction_train}: expected in (0, 1]")
        if not 0 <= fraction_evaluate <= 1:
            raise ValueError(f"fraction_evaluate={fraction_evaluate}: expected in [0, 1]")
        super().__init__(fraction_train=fraction_train, fraction_evaluate=fraction_evaluate)
        self.seed = seed

    def intake(self, server_round: int, phase: str) -> Reducer | None:
        """Fold answers into their mean, weighed by examples; measures of an evaluation too."""
        return Reducer(WeightedMean, unlike_request)

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

    def state(self) -> RecordDict:
        """Return what it keeps between rounds: nothing."""
        return RecordDict()

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""

    def _ask(
        self,
        kind: str,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
        fraction: float,
    ) -> list[Message]:
        # One stream for both phases: with equal shares those who trained are those who measure.
        rng = generator(self.seed, Purpose.COHORT, server_round)
        config["server-round"] = server_round
        content = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        cohort = draw(grid.get_node_ids(), fraction, rng)
        return [Message(content, dst_node_id=node, message_type=kind) for node in cohort]


class WeightedMean:
    """The mean of parameters and scalar metrics, weighed by number of examples.

    A part is of the form of a reply, counts as much as all that it is of, and is taken in likewise.
    Integers become floats. A metric that not all have is left out.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._total = 0.0
        self._arrays = WeightedSum(summable)
        self._metrics: dict[str, float] = {}
        self._common: set[str] | None = None
        self._names: tuple[str, str] = ("", "")

    def add(self, content: RecordDict) -> None:
        """Take in a content with a metric record that has "num-examples", the weight.

        Of array records it has at most one.
        """
        [(metrics_name, record)] = _records(content, MetricRecord)
        weight = examples_in(record)
        self._total += weight
        self._common = set(record) if self._common is None else self._common & set(record)
        for key, value in record.items():
            if key != NUM_EXAMPLES:
                self._metrics[key] = self._metrics.get(key, 0.0) + weight * _scalar(value)
        for arrays_name, named in _records(content, ArrayRecord):
            self._names = (arrays_name, metrics_name)
            self._arrays.add(read_arrays(named), weight)
        self._names = (self._names[0], metrics_name)

    merge = add

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


def _scalar(value: int | float | list[int] | list[float]) -> float:
    assert not isinstance(value, list), "checked by unlike_request"
    return float(value)
