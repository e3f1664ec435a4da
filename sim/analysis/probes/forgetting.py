"""The probe of forgetting, which remembers what each client knew."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.messages.round_views import RoundView
from sim.analysis.drift import forgetting, lost_recall, recall
from sim.analysis.probes.values import Value, array, by_client


class Forgetting:
    """Compares each network's recall with what it was. Keeps two rows [C] for each client seen."""

    def __init__(self) -> None:
        """Begin without a memory."""
        self._best: dict[int, Tensor] = {}
        self._last: dict[int, Tensor] = {}

    def __call__(self, view: RoundView) -> dict[str, Value]:
        """Compare, and remember.

        Args:
            view: Of one round.

        Returns:
            `student_lost_recall` in [0, 1], what the lesson cost the student, if there is one. By
            client, NaN in the first round that it answers: `lost_recall` in [0, 1], what training
            cost it since it last answered, and `forgetting` in [-1, 1], against the best of the
            rounds before. NaN, and nothing to remember, where a client left examples out: recalls
            of different ones are not compared. Nothing without labels.
        """
        if view.labels is None or not view.teachers.mask.any():
            return {}
        labels, num_classes = view.labels, view.teachers.logits.shape[-1]
        found: dict[str, Value] = {}
        if view.student_before is not None and view.student_after is not None:
            both = torch.stack([view.student_before, view.student_after]).argmax(-1)
            before, after = recall(both, labels, num_classes)
            found["student_lost_recall"] = float(lost_recall(before, after))
        known = recall(view.teachers.logits.argmax(-1), labels, num_classes)
        known[~view.teachers.mask.all(1)] = torch.nan
        nothing = torch.full((num_classes,), torch.nan, dtype=torch.float64)
        ids = view.teachers.client_ids
        best = torch.stack([self._best.get(k, nothing) for k in ids])
        last = torch.stack([self._last.get(k, nothing) for k in ids])
        self._best |= dict(zip(ids, torch.fmax(best, known), strict=True))
        self._last |= dict(zip(ids, torch.where(known.isnan(), last, known), strict=True))
        return {
            **found,
            "lost_recall": by_client(lost_recall(last, known)),
            "forgetting": by_client(forgetting(best, known)),
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what each client knew."""
        if not self._best:
            return {}
        ids = sorted(self._best)
        return {
            "client_ids": np.array(ids),
            "best": array(torch.stack([self._best[k] for k in ids])),
            "last": array(torch.stack([self._last[k] for k in ids])),
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Remember what `state` returned."""
        ids = [int(k) for k in state.get("client_ids", ())]
        self._best = {
            k: torch.tensor(row) for k, row in zip(ids, state.get("best", ()), strict=True)
        }
        self._last = {
            k: torch.tensor(row) for k, row in zip(ids, state.get("last", ()), strict=True)
        }
