"""Which proxy examples serve for what, all drawn once from the seed."""

from copy import copy
from typing import Annotated

import numpy as np
import numpy.typing as npt
from torch import Tensor

from clients.data import Dataset
from clients.seeding import Purpose, generator
from strategies.aggregation.rule_arguments import labels_of

Ids = npt.NDArray[np.int64]

MORE = "expected at least 1: data.proxy_share and data.proxy_limit say how many there are"


class ProxySplit:
    """The proxy set, cut into negatives and the distilled examples, these in chunks.

    Attributes:
        proxy: Shared inputs; their labels are looked at only where these numbers say so.
        labelled: Whether rules may.
        negative_ids: What discriminators are fitted against; never distilled. Ascending.
        calibration_ids: What teachers can be measured on, by labels; never distilled. Ascending.
        distilled_ids: All others, ascending.
        chunks: The distilled ids, each chunk ascending.
        probes: Positions in each chunk of the examples that probes look at, ascending.
        probe_ids: All ids that probes look at, ascending.
        learned: Which examples of the one chunk are learned from [n] bool; None = all that are.
    """

    def __init__(
        self,
        *,
        proxy: Dataset,
        seed: int,
        negative_share: Annotated[float, "in [0, 1)"] = 0.2,
        calibration_share: Annotated[float, "in [0, 1)"] = 0.0,
        chunks: Annotated[int, ">= 1"] = 1,
        probe_examples: Annotated[int, ">= 1"] = 256,
        labelled: bool = False,
    ) -> None:
        """Cut it.

        Args:
            proxy: The proxy set.
            seed: The run's.
            negative_share: Share of it in [0, 1) that discriminators are fitted against, and that
                is therefore never distilled; without discriminators it is held back all the same,
                so that methods with and without distil the same examples.
            calibration_share: Share of it in [0, 1) whose labels the server knows: rules that name
                `calibration` get the cohort's answers to it, and nothing else looks at labels.
            chunks: S >= 1, of sizes that differ by one at most: messages in which the distilled
                examples are answered.
            probe_examples: How many distilled examples probes look at, >= 1; all if there are
                fewer.
            labelled: Whether the server knows the labels of all of them, for rules that name
                `labels`: a public labelled set, or to see what knowing them would be worth.

        Raises:
            ValueError: A number is out of range, or there is nothing to distil, or less than a
                chunk needs.
        """
        key = "strategy.proxy_split"
        if not 0 <= negative_share < 1:
            raise ValueError(f"{key}.negative_share={negative_share}: expected in [0, 1)")
        if probe_examples < 1:
            raise ValueError(f"{key}.probe_examples={probe_examples}: expected >= 1")
        if not 0 <= calibration_share < 1:
            raise ValueError(f"{key}.calibration_share={calibration_share}: expected in [0, 1)")
        order = generator(seed, Purpose.NEGATIVES).permutation(len(proxy))
        cut = round(negative_share * len(proxy))
        rest = cut + round(calibration_share * len(proxy))
        self.proxy, self.labelled = proxy, labelled
        self.negative_ids, self.distilled_ids = np.sort(order[:cut]), np.sort(order[rest:])
        self.calibration_ids = np.sort(order[cut:rest])
        self._leaves = f"{key}.negative_share={negative_share}: of {len(proxy)} proxy examples it"
        if not rest < len(proxy):
            also = f", with calibration_share={calibration_share}," if rest > cut else ""
            raise ValueError(f"{self._leaves}{also} leaves none to distil, {MORE}")
        if not 1 <= chunks <= len(self.distilled_ids):
            raise ValueError(
                f"{key}.chunks={chunks}: expected from 1 to {len(self.distilled_ids)}, the number "
                "of distilled examples"
            )
        # At random: the proxy set may be sorted by class.
        shuffled = generator(seed, Purpose.CHUNKS).permutation(self.distilled_ids)
        self.chunks = tuple(np.sort(part) for part in np.array_split(shuffled, chunks))
        size = min(probe_examples, len(self.distilled_ids))
        probed = generator(seed, Purpose.PROBE).choice(self.distilled_ids, size, replace=False)
        self.probes = tuple(np.flatnonzero(np.isin(chunk, probed)) for chunk in self.chunks)
        self.probe_ids: Ids = np.sort(probed)
        self.learned: npt.NDArray[np.bool_] | None = None

    @property
    def num_learned(self) -> int:
        """How many examples a round learns from, if all are covered."""
        return len(self.distilled_ids) if self.learned is None else int(self.learned.sum())

    def labels_of(self, ids: Ids) -> Tensor | None:
        """Return labels of distilled examples, one for each row; None if nobody knows them."""
        return labels_of(self.proxy, ids) if self.labelled else None

    def of_round(self, ids: Ids) -> "ProxySplit":
        """Return the split of a round that learns from these of the distilled ids, ascending."""
        split = copy(self)
        asked = np.union1d(ids, self.probe_ids)
        split.chunks, split.probes = (asked,), (np.flatnonzero(np.isin(asked, self.probe_ids)),)
        split.learned = np.isin(asked, ids)
        return split

    def require_negatives(self) -> None:
        """Refuse to have none: discriminators are to be fitted.

        Raises:
            ValueError: There is none.
        """
        if not len(self.negative_ids):
            raise ValueError(f"{self._leaves} leaves no negatives for discriminators, {MORE}")

    def require_whole(self) -> None:
        """Refuse chunks: all distilled examples are to be answered at once.

        Raises:
            ValueError: There are several.
        """
        if len(self.chunks) > 1:
            raise ValueError(
                f"strategy.proxy_split.chunks={len(self.chunks)}: expected 1, this strategy needs "
                "all answers at once"
            )
