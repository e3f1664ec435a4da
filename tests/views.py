"""Views of a round, made by hand."""

from typing import Any

import torch
from torch import Tensor

from clients.messages.answers import Answers
from clients.messages.round_views import RoundView


def view(weights: Tensor, logits: Tensor | None = None, **others: Any) -> RoundView:
    num_clients, num_inputs = weights.shape
    teachers = Answers(
        client_ids=tuple(range(10, 10 + num_clients)),
        logits=torch.zeros(num_clients, num_inputs, 3) if logits is None else logits,
        mask=torch.ones(num_clients, num_inputs, dtype=torch.bool),
        own_probs=None,
        num_examples=torch.ones(num_clients),
    )
    ids, targets = tuple(range(num_inputs)), torch.zeros(num_inputs, 3)
    fields = {"server_round": 1, "proxy_ids": ids, "teachers": teachers, "weights": weights}
    return RoundView(**(fields | {"targets": targets, "losses": []} | others))


def sure_of(votes: list[int], confidence: float = 0.9) -> Tensor:
    """Logits [N, 3] whose most likely class has this probability."""
    hot = torch.nn.functional.one_hot(torch.tensor(votes), 3).double()
    return (hot * confidence + (1 - hot) * (1 - confidence) / 2).log()


LABELS = torch.tensor([0, 1, 2, 2])


def labelled(**others: Any) -> RoundView:
    """Two clients: the first is right but for the last example, the second on the last only."""
    logits = torch.stack([sure_of([0, 1, 2, 0]), sure_of([1, 2, 0, 2], 0.6)])
    weights = torch.tensor([[0.8, 0.8, 0.8, 0.8], [0.2, 0.2, 0.2, 0.2]])
    told = {
        "labels": LABELS,
        "targets": sure_of([0, 1, 2, 0], 0.8).softmax(-1),
        "student_before": sure_of([0, 0, 2, 2]),
        "student_after": sure_of([0, 1, 0, 0]),
    }
    return view(weights, logits, **(told | others))


def random_probs(num_clients: int, num_inputs: int = 20, sharpness: float = 3.0) -> Tensor:
    rng = torch.Generator().manual_seed(num_clients)
    logits = torch.randn(num_clients, num_inputs, 5, generator=rng, dtype=torch.float64)
    return (sharpness * logits).softmax(-1)
