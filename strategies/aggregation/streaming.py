"""A cohort's targets as sums that can be made in parts, where the answers are.

Where scores s_k(x) depend on client k's answer to x alone and the combiner is a weighted mean,
targets(x) = then(sum_k s_k(x) of(z_k(x)) / sum_k s_k(x)). Memory is that of two or three arrays
[N, C], however many clients there are; of the answers themselves only those to the probe examples
are kept.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from clients.messages.accumulator import is_part
from clients.messages.answers import Answers, rows_at
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.codecs import Precision, tensor_over
from clients.messages.field import NO_FIELDS, Fields
from clients.messages.field_wire import wire_name
from clients.messages.replies import for_sites, read_predictions
from clients.messages.requests import CONFIG, METRICS, PREDICTIONS
from clients.messages.shipped_fields import LOGITS, logits_of, others_of
from clients.messages.sizes import examples_in
from clients.models.factory import Parameters
from strategies.aggregation.combiners import WeightedMean
from strategies.aggregation.normalisation import masked
from strategies.aggregation.sums import Sums

Scorer = Callable[..., Tensor]

SUMS, PROBE = "sums", "probe"
"""Names of a part's records."""

OF_ALL = ("client-ids", "logits", "mask", "own-probs", "num-examples", "sites")
"""Names of what every probed answer has, or may have; the others are fields."""

BLOCK_NUMBERS = 2**19
"""Size of the blocks of rows in which answers are worked on, 2 MiB of float32: measured best from
10 to 100 classes; the exponentials of a block stay in the cache until they are added."""


class AnswerSums:
    """Sums of answers; beside them each client's answers to the probe examples."""

    def __init__(
        self,
        *,
        scorer: Scorer,
        mean: WeightedMean,
        temperature: float,
        fallback_below: float | None,
        probe: npt.NDArray[np.int64],
        fields: Fields = NO_FIELDS,
        soft: bool = True,
    ) -> None:
        """Begin with none.

        Args:
            scorer: Answers -> scores; each may depend on one client's answer to one example only.
            mean: What is averaged.
            temperature: T > 0.
            fallback_below: Where even the largest own_probs is below this, all are trusted alike;
                None = clients fit no discriminator.
            probe: Positions of the inputs whose answers are kept [P].
            fields: What the scorer looks at beside logits and own_probs: a number for each input.
            soft: Whether the softmax of answers is what clients believe.
        """
        self._soft = soft
        self._fields = fields
        self._scorer, self._mean, self._temperature = scorer, mean, temperature
        self._below, self._probe = fallback_below, probe
        self._sums: Sums | None = None
        self._probed: list[Parameters] = []

    def add(self, content: RecordDict) -> None:
        """Add a usable predictions reply, a block of rows at a time."""
        teacher = _Teacher(content, self._fields, self._soft)
        sums = self._sums = self._sums or Sums(*teacher.shape)
        unknown = None
        if self._below is not None and teacher.own_probs is not None:
            unknown = sums.meet(teacher.own_probs[0], teacher.mask[0], self._below)
        num_rows, num_classes = teacher.shape
        for rows in _blocks(num_rows, num_classes, teacher.sites):
            one = teacher.on(rows)
            values, divisor = _fraction(self._mean, one.logits[0], self._temperature)
            sums.add(values, divisor, masked(self._scorer(one), one.mask)[0].float(), rows)
            if unknown is not None:
                sums.add_equal(values, divisor, unknown[rows], rows)
        self._probed.append(_probe_arrays(teacher.at(self._probe)))

    def merge(self, part: RecordDict) -> None:
        """Add the sums of other clients."""
        arrays = _arrays(part, SUMS)
        self._sums = self._sums or Sums(*arrays["weighted"].shape)
        self._sums.merge(arrays, self._below)
        self._probed.append(_arrays(part, PROBE))

    def part(self) -> RecordDict:
        """Write the sums, and the answers to the probe examples."""
        assert self._sums is not None, "at least one content, says Accumulator"
        names = self._probed[0]
        probed = {name: np.concatenate([one[name] for one in self._probed]) for name in names}
        sums = write_arrays(self._sums.arrays(self._below))
        return RecordDict({SUMS: sums, PROBE: write_arrays(probed)})


@dataclass(frozen=True, eq=False)
class Part:
    """A part of `AnswerSums`, read: the sums, and the answers to P probe examples."""

    sums: Parameters
    teachers: Answers


def gather(replies: Iterable[Message], fields: Fields = NO_FIELDS) -> Part | Answers | None:
    """Read the replies of a phase, be they the clients' own or reduced to one.

    Args:
        replies: Those with an error are skipped.
        fields: What was asked for beside logits and a discriminator's probabilities.

    Returns:
        The part, or all answers ordered by client, or None if there is no usable reply.
    """
    good = [message for message in replies if message.has_content()]
    parts = [read_part(message.content) for message in good if is_part(message)]
    assert len(parts) <= 1, "one message for each client, and so one part"
    return parts[0] if parts else read_predictions(good, fields)


def read_part(content: RecordDict) -> Part:
    """Read a part of `AnswerSums`."""
    arrays = _arrays(content, PROBE)
    order = np.argsort(arrays["client-ids"], kind="stable")
    probed = {name: torch.from_numpy(array[order]) for name, array in arrays.items()}
    teachers = Answers(
        client_ids=tuple(int(k) for k in probed["client-ids"]),
        logits=probed["logits"],
        mask=probed["mask"],
        own_probs=probed.get("own-probs"),
        num_examples=probed["num-examples"],
        per_input={name: each for name, each in probed.items() if name not in OF_ALL},
        sites=int(probed["sites"][0]) if "sites" in probed else 1,
    )
    return Part(_arrays(content, SUMS), teachers)


def targets_of(
    sums: Parameters, mean: WeightedMean, temperature: float, fallback_below: float | None
) -> tuple[Tensor, Tensor]:
    """Finish the mean.

    Args:
        sums: Of all clients.
        mean: As in `AnswerSums`.
        temperature: T > 0.
        fallback_below: As there.

    Returns:
        Targets [N, C], and which examples somebody covers [N].
    """
    weighted, mass = torch.tensor(sums["weighted"]), torch.tensor(sums["mass"])
    if fallback_below is not None:
        unknown = tensor_over(sums["largest"]) < fallback_below
        weighted[unknown] = tensor_over(sums["equal"])
        mass[unknown] = tensor_over(sums["count"])
    divisor = torch.where(mass > 0, mass, 1)[:, None]
    return mean.then(weighted.div_(divisor), temperature), mass > 0


def _blocks(num_rows: int, num_classes: int, sites: int) -> Iterator[slice]:
    """Cut rows of answers into blocks of those of whole inputs."""
    size = max(1, BLOCK_NUMBERS // (num_classes * sites)) * sites
    return (slice(start, start + size) for start in range(0, num_rows, size))


class _Teacher:
    """One client's reply, to be read a block of rows at a time."""

    def __init__(self, content: RecordDict, fields: Fields, soft: bool) -> None:
        self._arrays = _arrays(content, PREDICTIONS)
        config = cast(dict[str, Any], content[CONFIG])
        field = logits_of(fields, config["answers"])
        if isinstance(field.codec, Precision):
            self._logits: Callable[..., Tensor] = partial(field.decode, LOGITS, self._arrays)
            first = wire_name(LOGITS, "codes" if config["answers"] == "uint8" else "")
            self.shape = self._arrays[first].shape
        else:  # once, whatever its codec can
            whole = field.decode(LOGITS, self._arrays)
            self._logits, self.shape = whole.__getitem__, tuple(whole.shape)
        self.sites = config.get("sites", 1)
        self._soft = soft
        # One number for each input: they are decoded once, whatever their codec can.
        self._decoded = {
            name: torch.from_numpy(
                for_sites(each.decode(name, self._arrays).numpy(), self.shape[0])
            )
            for name, each in others_of(fields).items()
        }
        named = self._arrays.get("own-probs"), self._arrays.get("mask")
        own, mask = (for_sites(array, self.shape[0]) for array in named)
        self.own_probs = None if own is None else tensor_over(own)[None]
        self.mask = (
            torch.ones(1, self.shape[0], dtype=torch.bool)
            if mask is None
            else tensor_over(mask)[None]
        )
        num_examples = examples_in(cast(MetricRecord, content[METRICS]))
        self._num_examples = torch.tensor([num_examples])
        self._client_ids = (cast(int, config["client-id"]),)

    def at(self, inputs: npt.NDArray[np.int64]) -> Answers:
        """Return the answers to some of the inputs."""
        return self.on(cast(Tensor, rows_at(torch.from_numpy(inputs), self.sites)).numpy())

    def on(self, rows: slice | npt.NDArray[np.int64]) -> Answers:
        """Return some rows of the answers."""
        return Answers(
            client_ids=self._client_ids,
            logits=self._logits(rows)[None],
            mask=self.mask[:, rows],
            own_probs=None if self.own_probs is None else self.own_probs[:, rows],
            num_examples=self._num_examples,
            per_input={name: each[None, rows] for name, each in self._decoded.items()},
            sites=self.sites,
            soft=self._soft,
        )


def _fraction(
    mean: WeightedMean, logits: Tensor, temperature: float
) -> tuple[Tensor, Tensor | float]:
    if mean.fraction is None:
        return mean.of(logits, temperature), 1.0
    return mean.fraction(logits, temperature)


def _probe_arrays(teacher: Answers) -> Parameters:
    tensors = {
        "logits": teacher.logits,
        "mask": teacher.mask,
        "own-probs": teacher.own_probs,
        "num-examples": teacher.num_examples,
        **{name: teacher[name] for name in teacher.per_input},
    }
    arrays = {name: value.numpy() for name, value in tensors.items() if value is not None}
    if teacher.sites != 1:
        arrays["sites"] = np.array([teacher.sites])
    return arrays | {"client-ids": np.array(teacher.client_ids)}


def _arrays(content: RecordDict, name: str) -> Parameters:
    # Not content.array_records: it refers to the content and back, and megabytes of answers would
    # wait for the garbage collector.
    return read_arrays(cast(ArrayRecord, content[name]))
