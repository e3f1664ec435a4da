"""The probe of accuracy by class."""

import numpy as np
import torch

from clients.messages.round_views import RoundView
from sim.analysis.drift import recall
from sim.analysis.probes.values import Table, Value, array, by_client, some_of


def recall_spread(view: RoundView, *, most_clients: int = 32) -> dict[str, Value]:
    """Tell what each teacher knows of each class, beside the student.

    Args:
        view: Of one round.
        most_clients: How many clients the figure shows, spread evenly over the cohort, >= 1.

    Returns:
        Over the examples that each teacher answered: `recall_spread` in [0, 0.5], the mean over
        classes of the deviation over clients; by client `recall_gap` in [-1, 1], the mean over
        classes of its recall less the student's after the lesson; `worst_recall_gap`, the least
        of them; and the figure `recall`, client x class. Without a student no gaps, without labels
        nothing.
    """
    answered = view.teachers.mask
    if view.labels is None or not answered.any():
        return {}
    labels, num_classes = view.labels, view.teachers.logits.shape[-1]
    known = recall(view.teachers.logits.argmax(-1), labels, num_classes, answered)
    rows = some_of(len(known), most_clients)
    shown: list[object] = [view.teachers.client_ids[k] for k in rows]
    table = known[rows]
    with_some = array(known[:, ~known.isnan().all(0)])  # a class that no answer is of has no spread
    found: dict[str, Value] = {"recall_spread": float(np.nanstd(with_some, 0).mean())}
    if view.student_after is not None:
        student = recall(view.student_after.argmax(-1)[None], labels, num_classes)
        gap = (known - student).nanmean(1)
        found |= {"worst_recall_gap": float(np.nanmin(array(gap))), "recall_gap": by_client(gap)}
        table, shown = torch.cat([table, student]), [*shown, "student"]
    return {**found, "recall": Table(array(table), "client", "class", shown)}
