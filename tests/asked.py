"""A client that is asked about some inputs: an mlp of six hidden units that has 12 examples."""

from functools import partial
from typing import Any

import numpy as np
from flwr.app import RecordDict

from clients.data import blobs
from clients.messages.asked import Asked, key_of
from clients.models import mlp
from clients.models.factory import build
from clients.training.evaluation import predict_and_tap

PRIVATE, _ = blobs(num_examples=40, num_classes=4)


def about(taps: tuple[str, ...], ids: np.ndarray, **changes: Any) -> Asked:
    """Ask it; what it is made of may be changed."""
    network = build(partial(mlp, hidden=(6,)), PRIVATE.task, np.random.default_rng(1))
    logits, seen = predict_and_tap(network, PRIVATE, ids, taps)
    parts: dict[str, Any] = {
        "client_id": 2,
        "server_round": 1,
        "logits": logits,
        "taps": seen,
        "dataset": PRIVATE,
        "ids": ids,
        "private": PRIVATE,
        "indices": np.arange(12),
        "labels": lambda: PRIVATE.labels[:12],
        "proxy": PRIVATE,
        "negative_ids": None,
        "network": lambda: network.train(),
        "state": RecordDict(),
        "rng": lambda name: np.random.default_rng(key_of(name, 0)),
    }
    return Asked(**(parts | changes))
