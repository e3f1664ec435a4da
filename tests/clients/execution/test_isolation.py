"""Nothing that a client does to what it shares with others reaches them, or is kept quiet."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.execution.isolation import Original, foreign
from clients.execution.model_cache import as_tensors
from clients.models import mlp
from clients.training import loop as training
from tests.federations import tiny_clients
from tests.meddling import CLASSES, SHAPE, assert_same, exchanging, fit, place_of, plain

# --- what a trainer does to a network ---


def adding(model: Any, *given: Any, **numbers: Any) -> list[float]:
    losses = training.train(model, *given, **numbers)
    model.extra = nn.Linear(2, 2)
    return losses


def removing(model: Any, *given: Any, **numbers: Any) -> list[float]:
    losses = training.train(model, *given, **numbers)
    del model.classifier
    return losses


def hooked(model: Any, *given: Any, **numbers: Any) -> list[float]:
    """Leave hooks behind that double every later answer."""
    losses = training.train(model, *given, **numbers)
    model.register_forward_hook(lambda module, inputs, output: 2 * output)
    model.classifier.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
    return losses


def patched(model: Any, *given: Any, **numbers: Any) -> list[float]:
    losses = training.train(model, *given, **numbers)
    model.forward = lambda images: torch.zeros(len(images), CLASSES)
    return losses


def reassigned(model: Any, *given: Any, **numbers: Any) -> list[float]:
    """Give parameters other memory, and put others in their place."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    losses = training.train(model, *given, **numbers)
    last = list(model.modules())[-1]
    last.bias = nn.Parameter(last.bias.detach().clone())
    return losses


def frozen(model: Any, *given: Any, **numbers: Any) -> list[float]:
    losses = training.train(model, *given, **numbers)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.eval().double()
    return losses


@pytest.mark.parametrize(
    ("meddle", "said"),
    [
        (exchanging, "'own': module 'classifier' was Linear and is another Linear"),
        (adding, "'own': module 'extra' is new"),
        (removing, "'own': module 'classifier' is gone"),
    ],
)
def test_a_trainer_that_exchanges_modules_is_named_and_the_next_client_is_as_alone(
    meddle: Any, said: str
) -> None:
    def one_meddles(model: Any, dataset: Any, indices: Any, *given: Any, **numbers: Any) -> Any:
        train = meddle if indices[0] == 20 else plain
        return train(model, dataset, indices, *given, **numbers)

    first, second, third = fit(place_of(one_meddles), 3)
    expected = fit(place_of(plain), 3)
    assert str(second).startswith(said)
    for mine, alone in ((first, expected[0]), (third, expected[2])):
        assert_same(mine, alone)


@pytest.mark.parametrize("meddle", [hooked, patched, reassigned, frozen])
def test_what_else_a_trainer_does_to_a_network_is_undone(meddle: Any) -> None:
    place = place_of(meddle)
    found, expected = fit(place, 3), fit(place_of(plain), 3)
    for mine, alone in zip(found, expected, strict=True):
        assert_same(mine, alone)
    network, start = place.networks, as_tensors(expected[0].parameters)
    assert all(parameter.requires_grad for parameter in network.of("own").parameters())
    images = torch.randn(3, *SHAPE)
    answers = [net.loaded("own", start)(images) for net in (network, place_of(plain).networks)]
    assert torch.equal(*answers)


def test_a_layer_of_another_shape_is_named() -> None:
    def wider(model: Any, *given: Any, **numbers: Any) -> list[float]:
        model.classifier.weight = nn.Parameter(torch.zeros(CLASSES, 17))
        return []

    (found,) = fit(place_of(wider))
    assert "'own' was trained to another shape: 'classifier.weight' is" in str(found)


# --- networks that keep something ---


LATE = 12
"""Calls: a group of three is trained in four, and tried in a few before."""


class Counting(nn.Module):
    """Answers larger with every call, by what it keeps in an attribute of some kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = nn.Linear(16, CLASSES)
        self.kind, self.calls, self.seen = kind, 0, [self.layer]
        self.later: nn.Module | None = None
        self.memory = torch.zeros(1)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        if self.kind == "lazy":
            if self.later is None:
                self.later = nn.Linear(CLASSES, CLASSES)
            answers: Tensor = self.later(self.layer(flat))
            return answers
        self.calls += 1
        self.seen.append(self.layer)
        if self.kind == "late":
            late: Tensor = self.layer(flat)
            return 2 * late if self.calls > LATE else late
        self.memory += 1
        kept = {"number": self.calls, "list": len(self.seen), "tensor": self.memory}
        first: Tensor = self.seen[0](flat)
        return kept[self.kind] * first


@pytest.mark.parametrize("kind", ["number", "list", "tensor"])
def test_what_a_network_keeps_in_attributes_is_forgotten_with_the_client(kind: str) -> None:
    model = partial(Counting, kind)
    together = fit(place_of(training.train, model), 3)
    for k, mine in enumerate(together):
        alone = fit(place_of(training.train, model), 3, only=k)
        assert_same(mine, alone[0])


def test_what_a_stacked_network_keeps_is_forgotten_with_the_group() -> None:
    place = place_of(training.train, partial(Counting, "late"), together=True)
    assert place._policies.way("own") is not None
    first, *others = (fit(place, 3) for _ in range(5))
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            assert_same(mine, theirs)


class Growing(nn.Module):
    """Makes a module in a call that comes late."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(16, CLASSES), 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == LATE:
            self.extra = nn.Identity()
        answers: Tensor = self.layer(images.flatten(1))
        return answers


def test_a_network_that_makes_a_module_in_a_stack_is_named() -> None:
    place = place_of(training.train, Growing, together=True)
    assert place._policies.way("own") is not None
    for each in fit(place, 3, epochs=8):
        assert "'own': module 'extra' is new" in str(each)


def test_a_network_that_makes_a_layer_as_it_answers_is_named() -> None:
    place = place_of(training.train, partial(Counting, "lazy"))
    (found,) = fit(place)
    assert "'own': module 'later' is new" in str(found)
    start = dict(place.networks.fresh("own", np.random.default_rng(3)).state_dict())
    for taps in ((), ("penultimate",)):
        proxy = tiny_clients().splits.proxy
        (answer,) = place.answers("own", [start], proxy, np.arange(5), taps=taps)
        assert "'own': module 'later' is new" in str(answer)


def test_only_networks_with_code_of_others_are_watched() -> None:
    assert not foreign(mlp((1, 8, 8), 10))
    assert foreign(Counting("number"))
    hooks = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    assert not foreign(hooks)
    hooks[1].register_forward_hook(lambda *given: None)
    assert foreign(hooks)


def test_buffers_and_shared_tensors_are_put_back() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    network[2].weight = network[0].weight
    original = Original(network)
    before = {name: id(tensor) for name, tensor in network.state_dict(keep_vars=True).items()}
    network[1].running_mean = torch.ones(2)
    network[2].weight = nn.Parameter(torch.ones(2, 2))
    assert original.exchanged() is None
    original.put_back()
    assert before == {n: id(t) for n, t in network.state_dict(keep_vars=True).items()}
    assert network[2].weight is network[0].weight
