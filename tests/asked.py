"""A client that is asked about some inputs: an mlp of six hidden units that has 12 examples."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from clients.data import blobs
from clients.messages.field_source import Asked, asked_about
from clients.models import mlp
from clients.models.factory import build

PRIVATE, _ = blobs(num_examples=40, num_classes=4)


def about(taps: tuple[str, ...], ids: np.ndarray, **changes: Any) -> Asked:
    """Ask it; what it is made of may be changed."""
    network = build(partial(mlp, hidden=(6,)), PRIVATE.task, np.random.default_rng(1))
    said = asked_about(network, PRIVATE, ids, taps, indices=np.arange(12), proxy=PRIVATE)
    return replace(said, **{"client_id": 2, **changes})
