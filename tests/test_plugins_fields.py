"""The contract of every field of answers found in conf/, and in your own folder; see test_plugins.

`STILLHOUSE_RULES=/path/to/your/conf pytest tests/test_plugins_fields.py`, where that folder has
`strategy/ask/*.yaml`. The network that is asked is an mlp; a tap of another is left out.
"""

from typing import Any

import joblib
import numpy as np
import pytest
import torch
from flwr.app import RecordDict

from clients.messages.field import Field
from clients.messages.field_source import Asked, key_of
from clients.messages.shipped_fields import check_names
from tests.asked import about
from tests.places import CONF
from tests.plugins import FIELDS

IDS = np.array([15, 16, 18])
fields = pytest.mark.parametrize("name", FIELDS)


def stream(name: str) -> np.random.Generator:
    return np.random.default_rng(key_of(name, 0))


def asked(field: Field, ids: np.ndarray = IDS, **changes: Any) -> Asked:
    try:
        return about(field.taps, ids, negative_ids=np.arange(20, 25), **changes)
    except ValueError as error:
        pytest.skip(str(error))


def test_how_many_fields_were_found() -> None:
    shipped = [path.stem for path in (CONF / "strategy" / "ask").glob("*.yaml")]
    assert len(shipped) == 3
    assert {*shipped} <= FIELDS.keys()
    check_names(FIELDS, "strategy.ask")


@fields
def test_what_is_said_has_its_shape_and_passes_the_screen(name: str) -> None:
    field = FIELDS[name]
    client = asked(field)
    array = field.said(name, client)
    assert array.dtype == np.dtype(field.dtype)
    sent, same = (field.encode(name, array, stream) for _ in range(2))
    assert all((sent[key] == same[key]).all() for key in {*sent, *same})
    for rows in (slice(0, 2), np.array([1, 0])):
        some = field.decode(name, sent, rows)
        torch.testing.assert_close(some, field.decode(name, sent)[rows])
    assert field.fault_in(name, sent, *client.logits.shape) is None
    assert field.decode(name, sent).shape == array.shape
    assert all(field.sends(name, key) for key in sent)


@fields
def test_saying_it_changes_nothing_and_draws_from_its_own_stream_only(name: str) -> None:
    field = FIELDS[name]
    client = asked(field, state=RecordDict())
    network = client.network()

    def everything() -> tuple[Any, ...]:
        numbers = client.logits, dict(client.taps), client.indices, client.labels(), client.ids
        flags = [p.requires_grad for p in network.parameters()]
        modules = [(type(m), len(m._forward_hooks)) for m in network.modules()]
        data = client.private.inputs, client.private.labels
        return joblib.hash((field, numbers, dict(network.state_dict()), data)), flags, modules

    before = everything()
    first = field.said(name, client)
    np.random.seed(3)  # a global generator that is drawn from would show
    torch.manual_seed(3)
    again = field.said(name, client)
    assert (first == again).all()
    assert everything() == before


@fields
def test_what_is_said_of_an_input_is_so_whatever_else_is_asked(name: str) -> None:
    """Chunks and the test set ask about other inputs; what is said of a client stays."""
    field = FIELDS[name]
    together = field.said(name, asked(field))
    for row, id_ in enumerate(IDS):
        alone = field.said(name, asked(field, np.array([id_])))
        wanted = together[row : row + 1] if field.per_input else together
        np.testing.assert_allclose(alone, wanted, rtol=1e-4, atol=1e-5)


@fields
def test_what_it_is_made_up_of_has_its_shape(name: str) -> None:
    field = FIELDS[name]
    made = field.made_up(2, 3, 4)
    shape = field.sizes(3, 4)
    assert made.shape == (2, *(size or 5 for size in shape))
    assert key_of(name, 0) != key_of(f"{name}.codec", 0)
