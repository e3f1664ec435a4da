"""What a field keeps in a client's state is its own."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from clients.handlers.state import MODEL
from clients.messages.field import Field
from clients.messages.field_source import Asked
from tests.asking import run
from tests.federations import distillation, tiny_clients


class Counting:
    """Counts in a record how often it was asked; that record may be called as one of ours is."""

    def __init__(self, record: str, step: int) -> None:
        self.record, self.step = record, step

    def __call__(self, asked: Asked) -> Any:
        before = asked.state.array_records.get(self.record)
        count = self.step + (0 if before is None else before["n"].numpy())
        asked.state[self.record] = ArrayRecord({"n": Array(np.asarray(count))})
        return np.full(len(asked.ids), count, np.float32)


@pytest.mark.parametrize("kind", ["inline", "ray"])
def test_a_field_keeps_records_of_any_name_apart_from_the_clients_and_other_fields(
    kind: str,
) -> None:
    """One that kept its own "model" had overwritten the client's network: .96 became .11."""
    views: list[Any] = []
    clients = tiny_clients(4)
    ask = {"one": Field(Counting(MODEL, 1)), "ten": Field(Counting(MODEL, 10))}
    mine = distillation(clients, ask=ask, report=views.append)
    found = run(mine, clients, kind=kind, rounds=2)
    plain = run(distillation(clients), clients, kind=kind, rounds=2)
    assert found.sha256 == plain.sha256
    for view, times in zip(views, (1, 3), strict=True):  # in between it was asked of the test set
        assert (view.teachers["one"] == times).all()
        assert (view.teachers["ten"] == 10 * times).all()
