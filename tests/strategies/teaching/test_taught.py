"""What a student's trainer gets of its teachers, if it names them."""

from functools import partial
from typing import Any

import pytest
import torch

from clients.training.loop import train
from strategies.aggregation.scorers import max_prob
from tests.federations import distillation, inline, run_ours, simulated, tiny_clients, trainer

NUMBERS = trainer().keywords
SEEN: list[tuple[Any, Any, Any]] = []


def looking(model: Any, *what: Any, teachers: Any, weights: Any, **numbers: Any) -> Any:
    SEEN.append((what[2], teachers, weights))
    return train(model, *what, **numbers)


def weighing(model: Any, *what: Any, weights: Any, **numbers: Any) -> Any:
    SEEN.append((what[2], None, weights))
    return train(model, *what, **numbers)


@pytest.mark.parametrize("distil", [looking, weighing])
def test_it_gets_the_answers_and_the_trust_of_its_targets(distil: Any) -> None:
    clients = tiny_clients(3)
    how = partial(distil, **NUMBERS)
    strategy = distillation(clients, distil=how, scorer=max_prob)
    usual = distillation(clients, scorer=max_prob)
    SEEN.clear()
    found = run_ours(inline(simulated(clients, strategy)), clients, strategy)
    ((targets, teachers, weights),) = SEEN
    assert weights.shape == (3, len(targets))
    torch.testing.assert_close(weights.sum(0), torch.ones(len(targets)))
    if teachers is not None:
        mean = (weights[..., None] * teachers.logits.softmax(-1)).sum(0)
        torch.testing.assert_close(mean, targets)
    plain = run_ours(inline(simulated(clients, usual)), clients, usual)
    for name, value in plain.parameters.items():  # summed in another order
        torch.testing.assert_close(torch.tensor(found.parameters[name]), torch.tensor(value))


def test_with_several_chunks_there_is_no_such_thing() -> None:
    how = partial(weighing, **NUMBERS)
    with pytest.raises(ValueError, match=r"chunks=2: expected 1 where strategy\.distil asks for t"):
        distillation(tiny_clients(3), distil=how, chunks=2)
