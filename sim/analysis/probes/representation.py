"""The probe of drift in representation space."""

import math
from typing import Annotated

import numpy as np

from clients.messages.round_views import RoundView
from sim.analysis.drift import linear_cka
from sim.analysis.probes.values import ByClient, Table, Value, some_of


def representation_drift(
    view: RoundView, *, most_clients: Annotated[int, ">= 1"] = 8, unbiased: bool = True
) -> dict[str, Value]:
    """Tell how alike clients and student see the view's examples.

    Asks the clients for their features: time and bytes that a run without this probe does not
    spend.

    Args:
        view: Of one round.
        most_clients: Ask at most so many, spread evenly over the cohort, >= 1.
        unbiased: Whether CKA is corrected for few examples, see `linear_cka`.

    Returns:
        `cka_with_student_mean`, and by client `cka_with_student`, NaN for those that were not
        asked; and the figure `cka_matrix` of clients and student. Nothing where nobody can be
        asked, or there are fewer than 4 examples.
    """
    if view.features is None or len(view.proxy_ids) < 4:
        return {}
    ids = view.teachers.client_ids
    features = view.features([ids[k] for k in some_of(len(ids), most_clients)])
    if not features.clients:
        return {}
    names = [*sorted(features.clients), "student"]
    seen = [*(features.clients[k] for k in sorted(features.clients)), features.student]
    matrix = np.eye(len(seen))
    for i in range(len(seen)):
        for j in range(i):
            matrix[i, j] = matrix[j, i] = linear_cka(seen[i], seen[j], unbiased)
    with_student = dict(zip(names[:-1], matrix[-1, :-1].tolist(), strict=True))
    found: dict[str, Value] = {
        "cka_with_student": ByClient([with_student.get(k, math.nan) for k in ids]),
        "cka_matrix": Table(matrix, "network", "network", names, names),
    }
    if not np.isnan(matrix[-1, :-1]).all():
        found["cka_with_student_mean"] = float(np.nanmean(matrix[-1, :-1]))
    return found
