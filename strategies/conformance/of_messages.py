"""Conformance of what clients send: fields."""

from typing import Any

import numpy as np
from torch import nn

from clients.messages.asked import Asked, asked_about
from clients.messages.field import Field
from clients.points import Check
from strategies.conformance.checks import unlike
from strategies.conformance.made_up import PRIVATE, network

# --- fields ---


def _asked(field: Field, ids: Any, model: nn.Module) -> Asked:
    own, negatives = np.arange(12), np.arange(40, 50)
    return asked_about(
        model, PRIVATE, ids, field.taps, indices=own, proxy=PRIVATE, negative_ids=negatives
    )


def _says(field: Field) -> str | None:
    """Is of its shape and dtype, and finite."""
    ids, model = np.arange(20, 30), network()
    said = field.said("field", _asked(field, ids, model))
    parts = field.encode("field", said, lambda name: np.random.default_rng(0))
    return field.fault_in("field", parts, len(ids), 4)


def _says_again(field: Field) -> str | None:
    """Says the same of the same network: it looks at it in eval mode, by its own generator."""
    model, ids = network(), np.arange(20, 30)
    first, second = (field.said("field", _asked(field, ids, model)) for _ in range(2))
    if unlike(first, second):
        return "says something else: is the network asked in train mode (evaluating, predict)?"
    return None


def _says_by_input(field: Field) -> str | None:
    """Speaks of the inputs that it is asked about now, row by row."""
    if not field.per_input:
        return None
    model, ids = network(), np.arange(20, 30)
    first = field.said("field", _asked(field, ids, model))
    turned = field.said("field", _asked(field, ids[::-1].copy(), model))
    if unlike(turned, first[::-1], 1e-4):
        return "its rows are those of other inputs: are ids of an earlier call used?"
    return None


FIELD: tuple[Check, ...] = (_says, _says_again, _says_by_input)
