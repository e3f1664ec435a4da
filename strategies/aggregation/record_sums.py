"""Sums over clients of array records in replies, for methods with payloads of their own."""

from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from clients.messages.arrays import read_arrays, write_arrays
from clients.models.factory import Parameters
from strategies.aggregation.parameters import wide

CLIENTS = "clients"


class RecordSums:
    """An accumulator: each client's arrays are added to those of the same record and name.

    `Reducer(partial(RecordSums, "control"), fault)` has it done in the workers; what
    clients send is for its `fault` to look at.

    Attributes:
        clients: How many it is of.
        sums: In float64, by name of the array, by name of the record.
    """

    def __init__(self, *records: str) -> None:
        """Begin with no client.

        Args:
            *records: Names of the array records that are summed; others are passed over.

        Raises:
            ValueError: A record has the name under which a part tells its number of clients.
        """
        if CLIENTS in records:
            raise ValueError(f"a record named '{CLIENTS}': expected another name")
        self.clients = 0
        self.sums: dict[str, Parameters] = {name: {} for name in records}

    def add(self, content: RecordDict) -> None:
        """Take in the content of a client's reply.

        Args:
            content: With the records.

        Raises:
            ValueError: Its names or shapes are not those of the first.
        """
        self._take(content, 1)

    def merge(self, part: RecordDict) -> None:
        """Take in what `part` of another one returned."""
        self._take(part, cast(int, cast(ConfigRecord, part[CLIENTS])[CLIENTS]))

    def part(self) -> RecordDict:
        """Return the sums, and of how many clients they are."""
        sums = {name: write_arrays(arrays) for name, arrays in self.sums.items()}
        return RecordDict({**sums, CLIENTS: ConfigRecord({CLIENTS: self.clients})})

    def mean(self, record: str) -> Parameters:
        """Return the mean of a record's arrays, each client alike, in float64."""
        return {name: np.asarray(sums / self.clients) for name, sums in self.sums[record].items()}

    def _take(self, content: RecordDict, clients: int) -> None:
        for record, sums in self.sums.items():
            arrays = read_arrays(cast(ArrayRecord, content[record]))
            if self.clients and _shapes(arrays) != _shapes(sums):
                raise ValueError(f"'{record}': {_shapes(arrays)}, expected {_shapes(sums)}")
            for name, array in arrays.items():
                sums[name] = np.asarray(sums.get(name, 0.0) + wide(array))
        self.clients += clients


def _shapes(arrays: Parameters) -> dict[str, tuple[int, ...]]:
    return {name: arrays[name].shape for name in sorted(arrays)}
