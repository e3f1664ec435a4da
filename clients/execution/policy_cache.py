"""How like clients are run in a process: what was found for each architecture and objective."""

from collections.abc import Iterator
from functools import partial
from typing import TypeVar

import joblib
import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_map

from clients.data import Task
from clients.execution.model_cache import Networks
from clients.execution.objective_policy import objective_fault
from clients.execution.policy import ON_CPU, way_of
from clients.execution.stack import Way
from clients.training import losses
from clients.training.objective import Anchors, Objective
from clients.training.optimizer_steps import Optimizer

Outcome = TypeVar("Outcome")


class Policies:
    """Decides once for each architecture, and once for each objective of one.

    Attributes:
        notes: Why clients train one by one whose architecture would let them train together.
    """

    def __init__(
        self,
        networks: Networks,
        task: Task,
        optimizer: Optimizer | None,
    ) -> None:
        """Begin without a decision.

        Args:
            networks: Builds the architectures.
            task: What they are to predict.
            optimizer: That clients train with; None = nobody trains together.
        """
        self._networks = networks
        self._task = task
        self._optimizer = optimizer
        self._ways: dict[str, Way | None] = {}
        self._faults: dict[str | None, str | None] = {}
        self.notes: set[str] = set()

    def way(self, name: str) -> Way | None:
        """Return how several clients of an architecture are run; None = one by one."""
        if self._optimizer is None:
            return None
        if name not in self._ways:
            # Not one with a client's parameters, or it would depend on whose come first.
            model = self._networks.fresh(name, np.random.default_rng(0))
            way, reason = way_of(model, self._task, self._optimizer)
            if way is None and not reason.startswith(ON_CPU):
                self.note(name, reason)
            self._ways[name] = way
        return self._ways[name]

    def bear(
        self, name: str, way: Way, objective: Objective, anchors: Anchors, targets: Tensor
    ) -> bool:
        """Tell whether clients of an architecture can minimise an objective together.

        Args:
            name: Of the architecture.
            way: How they are run.
            objective: What they minimise.
            anchors: What a client compares with.
            targets: A client's.

        Returns:
            Whether they can; if not, `notes` says why.
        """
        if objective.is_plain and _is_ours(objective):
            return True
        key = _key(name, objective, anchors, targets)
        if key is None or key not in self._faults:
            model = self._networks.fresh(name, np.random.default_rng(0))
            what = objective, anchors, targets
            self._faults[key] = objective_fault(model, self._task, way, *what)
        if fault := self._faults[key]:
            self.note(name, fault)
        return not fault

    def one_by_one(
        self, name: str, outcomes: Iterator[Outcome], error: Exception | None
    ) -> Iterator[Outcome]:
        """Pass on what came of each client alone; note an error that only came of all together."""
        failed = False
        for outcome in outcomes:
            failed |= isinstance(outcome, Exception)
            yield outcome
        if error is not None and not failed:
            self.note(name, f"{type(error).__name__}: {error}")

    def note(self, name: str, reason: str) -> None:
        """Say why clients of an architecture train one by one."""
        first = reason.split("\n", 1)[0]
        self.notes.add(f"architecture '{name}' trains client by client: {first}")


def _is_ours(objective: Objective) -> bool:
    """Tell whether a loss of logits is one of ours, which look at each example by itself."""
    loss = objective.plugins["loss"]
    function = loss.func if isinstance(loss, partial) else loss
    return getattr(function, "__module__", "") in (losses.__name__, losses.cross_entropy.__module__)


def _key(name: str, objective: Objective, anchors: Anchors, targets: Tensor) -> str | None:
    """Return what a decision depends on; None of what cannot be hashed: it is made anew."""
    shapes = tree_map(lambda tensor: (str(tensor.dtype), *tensor.shape), dict(anchors))
    try:
        form = str(targets.dtype), targets.dim()
        return str(joblib.hash((name, vars(objective), shapes, form)))
    except Exception:  # a function within a function
        return None
