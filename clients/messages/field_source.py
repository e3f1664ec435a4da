"""What a field of answers is made of: a client's network, asked about inputs, and what it has."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from flwr.app import RecordDict
from torch import Tensor, nn

from clients.data import Dataset
from clients.training.evaluation import inputs_of, predict_and_tap
from clients.training.taps import PENULTIMATE


@dataclass(frozen=True, eq=False)
class Asked:
    """What a field is made of: a client's network, asked about inputs, and what is the client's.

    Attributes:
        client_id: Whose.
        server_round: 1..R.
        logits: What the network says, rows [N, C] float32, on the CPU; S for each input [N*S, C].
        taps: Features at the field's taps [N, ...] float32, on the CPU.
        look: Returns a data set as the client sees it, from the start of its view's stream.
        ids: Which examples of `dataset` the inputs are [N].
        indices: Which are its own [n], read-only.
        labels: Returns those that it learns [n].
        negative_ids: Examples of `proxy` to tell its own from [m]; None = there is nothing to be
            fitted.
        network: Returns its network, in train mode, on its device.
        state: The field's own records of its state; what is put there it has in its next round.
        rng: Name -> the generator of that name, of this client, round and these inputs.
    """

    client_id: int
    server_round: int
    logits: Tensor
    taps: Mapping[str, Tensor]
    look: Callable[[Literal["asked", "private", "proxy"]], Dataset]
    ids: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    labels: Callable[[], npt.NDArray[np.int64]]
    negative_ids: npt.NDArray[np.int64] | None
    network: Callable[[], nn.Module]
    state: RecordDict
    rng: Callable[[str], np.random.Generator]

    @property
    def dataset(self) -> Dataset:
        """Where the inputs are; looked at anew, as when they were answered."""
        return self.look("asked")

    @property
    def private(self) -> Dataset:
        """Where the client's own examples are; looked at anew."""
        return self.look("private")

    @property
    def proxy(self) -> Dataset:
        """Where negatives are; looked at anew."""
        return self.look("proxy")

    @property
    def inputs(self) -> npt.NDArray[Any]:
        """The inputs as they were answered [N, ...]."""
        return inputs_of(self.dataset, self.ids)

    def features(self, tap: str = PENULTIMATE) -> Tensor:
        """Return the features of the inputs at one of the field's taps [N, ...]."""
        if tap not in self.taps:
            raise ValueError(f"tap '{tap}': not in the field's taps, {list(self.taps)}")
        return self.taps[tap]


def asked_about(
    network: nn.Module,
    private: Dataset,
    ids: npt.NDArray[np.int64],
    taps: Sequence[str],
    *,
    indices: npt.NDArray[np.int64],
    proxy: Dataset,
    negative_ids: npt.NDArray[np.int64] | None = None,
) -> Asked:
    """Ask a network about private examples outside a run: as client 0 in round 1, with no state.

    Args:
        network: In any mode.
        private: Where the inputs and the client's own examples are.
        ids: Of the inputs [N].
        taps: The field's.
        indices: Of its own examples [n].
        proxy: Where negatives are.
        negative_ids: Which they are [m]; None = there are none.

    Returns:
        What a field is made of.
    """
    logits, seen = predict_and_tap(network, private, ids, taps)
    return Asked(
        client_id=0,
        server_round=1,
        logits=logits,
        taps=seen,
        look=lambda which: proxy if which == "proxy" else private,
        ids=ids,
        indices=indices,
        labels=lambda: private.labels[indices],
        negative_ids=negative_ids,
        network=network.train,
        state=RecordDict(),
        rng=lambda stream: np.random.default_rng(key_of(stream, 0)),
    )


def key_of(name: str, crc32: int) -> int:
    """Return the number that keys a field's random stream, of its name and the inputs' CRC32."""
    return zlib.crc32(name.encode(), crc32)
