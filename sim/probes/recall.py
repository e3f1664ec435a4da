"""The probe of accuracy by class."""

import numpy as np
import torch

from clients.teachers import RoundView
from sim.drift import recall
from sim.probes.values import Table, Value, array, some_of


def recall_spread(view: RoundView, *, most_clients: int = 32) -> dict[str, Value]:
    """Tell what each teacher knows of each class, beside the student.

    Args:
        view: Of one round.
        most_clients: How many clients the figure shows, spread evenly over the cohort, >= 1.

    Returns:
        Over the view's examples that every teacher answered: `recall_spread` in [0, 0.5], the mean
        over classes of the deviation over clients; by client `recall_gap` in [-1, 1], the mean
        over classes of its recall less the student's after the lesson; `worst_recall_gap`, the
        least of them; and the figure `recall`, client x class. Without a student no gaps, without
        labels nothing.
    """
    answered = view.teachers.mask.all(0)
    if view.labels is None or not answered.any():
        return {}
    labels, num_classes = view.labels[answered], view.teachers.logits.shape[-1]
    known = recall(view.teachers.logits[:, answered].argmax(-1), labels, num_classes)
    rows = some_of(len(known), most_clients)
    shown: list[object] = [view.teachers.client_ids[k] for k in rows]
    table = known[rows]
    found: dict[str, Value] = {
        "recall_spread": float(np.nanmean(array(known.std(0, correction=0))))
    }
    if view.student_after is not None:
        student = recall(view.student_after[answered].argmax(-1)[None], labels, num_classes)
        gap = (known - student).nanmean(1)
        found |= {"worst_recall_gap": float(gap.amin()), "recall_gap": array(gap)}
        table, shown = torch.cat([table, student]), [*shown, "student"]
    return {**found, "recall": Table(array(table), "client", "class", shown)}
