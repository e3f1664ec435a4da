"""Federated distillation without a proxy set: clients share their mean logits of each label.

Jeong, Oh, Kim, Park, Bennis, Kim, "Communication-Efficient On-Device Machine Learning: Federated
Distillation and Augmentation under Non-IID Private Data", NeurIPS 2018 workshop (arXiv:1811.11479),
its FD; there is no FAug. FedDistill+ is FedGen's baseline (Zhu et al., 2021, arXiv:2105.10056).
"""

from collections.abc import Iterable
from typing import Annotated, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from clients.data import Dataset
from clients.handlers.base import SERVER_ROUND, Handler
from clients.handlers.class_logits import CLASS_LOGITS, REGULARISERS, class_logits
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import ARRAYS, CONFIG, METRICS
from clients.messages.sizes import examples_in
from clients.models.factory import Parameters
from strategies.aggregation.parameters import WeightedSum
from strategies.base import BaseStrategy
from strategies.cohorts import to_cohort


class FederatedDistillation(BaseStrategy):
    """FD: sums the mean logits of each class over its holders, each client alike.

    Of a class that nobody of a round's cohort has, nothing is said in the next.
    """

    has_student = False
    of_classes = True
    own_objective = True

    def __init__(
        self,
        *,
        test: Dataset,
        seed: int,
        weight: Annotated[float, ">= 0"] = 1.0,
        regulariser: str = "kl",
        leave_one_out: bool = True,
        fraction: Annotated[float, "in (0, 1]"] = 1.0,
        fraction_evaluate: Annotated[float, "in [0, 1]"] = 1.0,
    ) -> None:
        """Compose the method.

        Args:
            test: Held-out set; gives the classes.
            seed: The run's.
            weight: Of what clients are held to beside their labels, >= 0.
            regulariser: How they are: "kl", "mse" or "cross_entropy".
            leave_one_out: To the mean of the others, as the paper; else to the mean of all.
            fraction: Share of the clients in (0, 1] that trains in a round, at least one.
            fraction_evaluate: Share of them in [0, 1] that is measured, where parameters are not
                averaged.

        Raises:
            ValueError: A number or a name is out of range; names it.
        """
        if not 0 <= weight < float("inf"):
            raise ValueError(f"strategy.weight={weight}: expected >= 0 and finite")
        if regulariser not in REGULARISERS:
            expected = ", ".join(REGULARISERS)
            raise ValueError(f"strategy.regulariser={regulariser}: expected one of {expected}")
        if not 0 < fraction <= 1:
            raise ValueError(f"strategy.fraction={fraction}: expected in (0, 1]")
        if not 0 <= fraction_evaluate <= 1:
            raise ValueError(f"strategy.fraction_evaluate={fraction_evaluate}: expected in [0, 1]")
        self.seed, self.fraction, self.fraction_evaluate = seed, fraction, fraction_evaluate
        self._classes, self.said = test.task.num_classes, Parameters()
        self.handlers = class_logits(weight, regulariser, leave_one_out)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the cohort what the last one said, and parameters where they are averaged."""
        content = RecordDict({CONFIG: ConfigRecord({SERVER_ROUND: server_round})})
        if self.averages:
            content[ARRAYS] = arrays
        if self.said:
            content[CLASS_LOGITS] = write_arrays(self.said)
        return self._to(self.handlers[0], content, self.fraction, server_round, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Sum the mean logits of each class over those who have it."""
        mean, ids = WeightedSum(), []
        sums, holders = np.zeros((self._classes, self._classes)), np.zeros(self._classes, np.int64)
        for reply in replies:
            if not reply.has_content():
                continue
            said = read_arrays(cast(ArrayRecord, reply.content[CLASS_LOGITS]))
            sums, holders = sums + said["means"], holders + (said["counts"] > 0)
            ids.append(reply.metadata.src_node_id)
            if self.averages:
                arrays = read_arrays(cast(ArrayRecord, reply.content[ARRAYS]))
                mean.add(arrays, examples_in(cast(MetricRecord, reply.content[METRICS])))
        if not ids:
            return None, None
        self.said = {"sums": sums.astype(np.float32), "holders": holders}
        self.said["in"] = np.array(ids, dtype=np.uint64)
        metrics = MetricRecord({"known-classes": float((holders > 0).sum())})
        return write_arrays(mean.mean()) if self.averages else None, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let clients measure networks of their own, where they have any."""
        if self.averages or self.fraction_evaluate == 0:
            return []
        content = RecordDict({CONFIG: ConfigRecord({SERVER_ROUND: server_round})})
        return self._to(self.handlers[1], content, self.fraction_evaluate, server_round, grid)

    def state(self) -> RecordDict:
        """Return what was said in the last round."""
        return RecordDict({CLASS_LOGITS: write_arrays(self.said)})

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        self.said = read_arrays(cast(ArrayRecord, state[CLASS_LOGITS]))

    def _to(
        self, handler: Handler, content: RecordDict, share: float, server_round: int, grid: Grid
    ) -> list[Message]:
        return to_cohort(
            grid, handler.kind, content, fraction=share, seed=self.seed, server_round=server_round
        )


class FedDistillPlus(FederatedDistillation):
    """FedDistill+: the same, and parameters of clients of one architecture are averaged too."""

    has_student = True
    averages = True
