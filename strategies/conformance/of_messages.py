"""Conformance of what clients send: fields, confidences, and the codecs by which it travels."""

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from clients.execution.isolation import keeps_nothing
from clients.handlers.coded_parameters import rehearse_codec
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.codecs import RECEIVED, told
from clients.messages.field import Field
from clients.messages.field_source import Asked, asked_about
from clients.messages.own_probs import confidence
from clients.messages.shipped_fields import rehearse_codec as rehearse_answers
from clients.models.factory import build
from clients.points import Check
from clients.signatures import names, needs
from clients.training.local_context import noted
from clients.training.losses import cross_entropy
from strategies.conformance.checks import unlike
from strategies.conformance.forgetting import told_by_order
from strategies.conformance.made_up import PRIVATE, SMALL, TRAIN, crowd, network

# --- fields ---

FIRST, OTHERS = np.arange(12), np.arange(40, 50)
"""A client's own examples, and negatives."""


def _asked(
    field: Field, ids: Any, model: nn.Module, own: Any = FIRST, negatives: Any = OTHERS
) -> Asked:
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


# --- confidences ---


def _confidences(function: Any, ids: Any, model: nn.Module | None = None, **whose: Any) -> Any:
    field = confidence(function)
    with keeps_nothing(confidence=function):
        said = field.said("confidence", _asked(field, ids, model or network(), **whose))
    if fault := field.fault_in("confidence", {"confidence": said}, len(ids), 4):
        raise ValueError(fault)
    return said


def _confides(function: Any) -> str | None:
    """Gives [N] in [0, 1], of one input too, and keeps nothing."""
    for ids in (np.arange(20, 30), np.arange(20, 21)):
        _confidences(function, ids)
    return None


def _confides_again(function: Any) -> str | None:
    """Gives the same again of the same network, by its own generator alone."""
    model, ids = network(), np.arange(20, 30)
    one, other = (_confidences(function, ids, model) for _ in range(2))
    if unlike(one, other, 0.0):
        return "gives something else: does it draw from another generator, or keep something?"
    return None


def _confides_by_input(function: Any) -> str | None:
    """Speaks of each input by itself, unless it draws."""
    if names(function, "rng"):
        return None
    model, ids = network(), np.arange(20, 30)
    some = _confidences(function, ids[::-2].copy(), model)
    if unlike(some, _confidences(function, ids, model)[::-2], 1e-4):
        return "an input's confidence depends on the others, or on its place among them"
    return None


def _confides_by_network(function: Any) -> str | None:
    """Looks at the network, or at the client's own examples."""
    ids, (one, other) = np.arange(20, 30), (network(), network())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=2)
    said = _confidences(function, ids, one)
    looks = names(function, "own") or unlike(said, _confidences(function, ids, other))
    return None if looks else "says the same of any network and client"


def _knows_its_own(function: Any) -> str | None:
    """Is larger on average of own examples than of classes that the client never saw.

    Not of one that does not look at `own`: how sure a network is need not tell strangers apart.
    """
    if not names(function, "own"):
        return None
    own, foreign = (np.flatnonzero(PRIVATE.labels // 2 == half) for half in (0, 1))
    model = build(SMALL, PRIVATE.task, np.random.default_rng(0))
    labels, rng = torch.from_numpy(PRIVATE.labels[own]), np.random.default_rng(0)
    TRAIN(model, PRIVATE, own, labels, cross_entropy, rng, epochs=30)
    at_home, abroad = (
        float(np.mean(_confidences(function, ids, model, own=own, negatives=foreign)))
        for ids in (own, foreign)
    )
    if at_home > abroad:
        return None
    return f"is {at_home:.2f} of own ones and {abroad:.2f} of the others: is it upside down?"


CONFIDENCE: tuple[Check, ...] = (
    _confides, _confides_again, _confides_by_input, _confides_by_network, _knows_its_own,
)  # fmt: skip


# --- codecs ---


def _offered(seed: int = 0, received: Any = None, client_id: int = 3, server_round: int = 1) -> Any:
    return {
        "rng": lambda: np.random.default_rng(seed),
        "client_id": lambda: client_id,
        "server_round": lambda: server_round,
        "note": lambda: partial(noted, {}, "note"),
        RECEIVED: lambda: _BEFORE if received is None else received,
        "state": dict,
    }


_RNG = np.random.default_rng(0)
_BEFORE = {"w": _RNG.standard_normal((20, 30)).astype(np.float32), "b": np.zeros(9, np.float32)}
_AFTER = {
    name: array + 0.1 * _RNG.standard_normal(array.shape).astype(np.float32)
    for name, array in _BEFORE.items()
}


def _travel(codec: Any, arrays: Any, **offered: Any) -> tuple[Any, Any]:
    """Send arrays, and say what was sent and what came."""
    with keeps_nothing(codec=codec):
        sent = told(codec.encode, arrays, _offered(**offered))
        came = told(codec.decode, read_arrays(write_arrays(sent)), _offered(**offered))
    return sent, came


def _bears_parameters(codec: Any) -> str | None:
    """Brings back a network's parameters by their names, of their shapes and dtypes."""
    rehearse_codec(crowd(codec=codec))
    return None


def _bears_answers(codec: Any) -> str | None:
    """Brings back answers as well, unless it needs what was received."""
    if needs(codec.encode, RECEIVED) or needs(codec.decode, RECEIVED):
        return None
    rehearse_answers("logits", Field(lambda asked: 0, ("R", "C"), codec=codec), 5, "codec")
    return None


def _encodes_again(codec: Any) -> str | None:
    """Encodes the same again by the same generator, leaves arrays as they are, keeps nothing."""
    before = deepcopy(_AFTER)
    (one, came), (other, _) = _travel(codec, _AFTER), _travel(codec, _AFTER)
    if one.keys() != other.keys() or any(unlike(one[name], other[name], 0.0) for name in one):
        return "a second call sends something else: another generator?"
    if any(unlike(before[name], _AFTER[name], 0.0) for name in before):
        return "changes the arrays that it is given"
    odd = [name for name, array in came.items() if not np.isfinite(array).all()]
    return f"'{odd[0]}' comes back with NaN or infinity" if odd else None


def _in_any_order(codec: Any) -> str | None:
    """Encodes and decodes alike in any order of clients and rounds, and in any process."""

    def ask(codec: Any, client_id: int, server_round: int) -> Sequence[Any]:
        arrays = {name: array * (client_id + server_round) for name, array in _AFTER.items()}
        sent, came = _travel(codec, arrays, client_id=client_id, server_round=server_round)
        return [each[name] for each in (sent, came) for name in sorted(each)]

    odd = told_by_order(codec, ask, [(k, r) for k in (1, 2) for r in (1, 2)])
    if odd is None:
        return None
    return f"of client {odd[0]} in round {odd[1]} it is other behind others: is a global kept?"


def _tells_of_nan(codec: Any) -> str | None:
    """Lets a NaN arrive as one, or not at all: a client that diverged is not a good one."""
    odd = deepcopy(_AFTER)
    odd["w"][3, 4] = np.nan
    try:
        with np.errstate(invalid="ignore"):
            came = _travel(codec, odd)[1]
    except Exception:  # then its reply is refused
        return None
    finite = all(np.isfinite(array).all() for array in came.values())
    return "a NaN comes back as a number" if finite else None


def _brings_near(codec: Any) -> str | None:
    """Brings arrays nearer to what was sent than nothing would; of noise the mean points there."""
    bases = [_BEFORE] if any(names(f, RECEIVED) for f in (codec.encode, codec.decode)) else []
    if not any(needs(f, RECEIVED) for f in (codec.encode, codec.decode)):
        bases.append({name: np.zeros_like(array) for name, array in _BEFORE.items()})
    for base in bases:
        draws = DRAWS if names(codec.encode, "rng") else 1
        came = [_travel(codec, _AFTER, seed=seed, received=base)[1] for seed in range(draws)]
        mean = _flat({name: np.mean([each[name] for each in came], 0) for name in base})
        change, found = _flat(_AFTER) - _flat(base), mean - _flat(base)
        along = float(found @ change) / max(float(np.linalg.norm(found)), 1e-30)
        if along < 0:
            return "what arrives points against what was sent: is its sign flipped?"
        if draws == 1 and np.linalg.norm(found - change) >= np.linalg.norm(change):
            return "what arrives is as far off as if nothing had been sent"
    return None


DRAWS = 32


def _flat(arrays: Any) -> Any:
    return np.concatenate([np.ravel(arrays[name]) for name in sorted(_BEFORE)]).astype(np.float64)


CODEC: tuple[Check, ...] = (
    _bears_parameters, _bears_answers, _encodes_again, _tells_of_nan, _brings_near,
    _in_any_order,
)  # fmt: skip
