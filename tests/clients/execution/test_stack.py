"""Stacked networks: arrays, buffers, and what clients keep to themselves."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clients.execution.batched_loop import predict_together, train_together
from clients.execution.grouped_layers import KEPT
from clients.execution.model_cache import as_tensors
from clients.execution.stack import Stack, Way
from clients.models.factory import parameters_of
from clients.training.evaluation import predict
from clients.training.loop import train
from clients.training.losses import cross_entropy
from tests.trained_together import (
    BUILDERS,
    CLASSES,
    FLOAT32,
    NOISE,
    SGD,
    UNEQUAL,
    WAYS,
    Both,
    built,
    labels_of,
    parts_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# --- the stack ---


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["cnn", "resnet8-batch"])
def test_arrays_come_back_as_they_went_in(name: str, way: Way) -> None:
    stack = Stack(built(name), 3, way)
    given = [parameters_of(built(name, seed=k)) for k in range(3)]
    for k, parameters in enumerate(given):
        for array in parameters.values():
            array.flags.writeable = False
        stack.load(k, as_tensors(parameters))
    for k, parameters in enumerate(given):
        back = stack.parameters_of(k)
        assert list(back) == list(parameters)
        for n, array in parameters.items():
            assert (back[n].dtype, back[n].shape) == (array.dtype, array.shape)
            assert back[n].tobytes() == array.tobytes()


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_a_client_survives_into_the_next_use(way: Way) -> None:
    model = built("resnet8-batch")
    used = Both(
        model,
        way,
        [17, 12, 9],
        starts=[parameters_of(built("resnet8-batch", seed=k)) for k in (1, 2, 3)],
    )
    fresh = Both(model, way, [9, 5], room=3)
    parts = parts_of([9, 5])
    stack = used.stack
    stack.load_all(as_tensors(parameters_of(model)))
    rngs = [np.random.default_rng(k) for k in range(2)]
    labels = labels_of(NOISE, parts)
    numbers: Any = {"epochs": 2, "batch_size": 8, "optimizer": SGD}
    losses = train_together(stack, NOISE, parts, labels, cross_entropy, rngs, **numbers)
    assert losses == fresh.losses
    for k in range(2):
        mine, theirs = stack.parameters_of(k), fresh.together[k]
        assert all(mine[n].tobytes() == theirs[n].tobytes() for n in theirs)
    untouched = stack.parameters_of(2)
    assert all(untouched[n].tobytes() == v.tobytes() for n, v in parameters_of(model).items())


def test_training_leaves_model_and_global_generator_alone() -> None:
    model = built("resnet8-batch").eval()
    before, state = parameters_of(model), torch.get_rng_state()
    stack = Stack(model, 2, "wide")
    stack.load_all(as_tensors(before))
    parts = parts_of([8, 8])
    rngs = [np.random.default_rng(k) for k in range(2)]
    numbers: Any = {"epochs": 1, "batch_size": 4, "optimizer": SGD}
    train_together(stack, NOISE, parts, labels_of(NOISE, parts), cross_entropy, rngs, **numbers)
    after = parameters_of(model)
    assert all(after[n].tobytes() == before[n].tobytes() for n in before)
    assert not any(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "options", [{"momentum": None}, {"track_running_stats": False}, {"affine": False}], ids=str
)
def test_every_kind_of_batch_norm(options: dict[str, Any], way: Way) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, **options)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, CLASSES)
    )
    both = Both(model, way, UNEQUAL)
    assert both.agree(FLOAT32), both.errors()
    equal = Both(model, way, [8, 8])
    assert equal.agree(FLOAT32), equal.errors()


@pytest.mark.parametrize("layer", KEPT)
def test_layers_kept_as_they_are_keep_clients_apart(layer: type[nn.Module]) -> None:
    torch.manual_seed(0)
    needs = {
        "MaxPool": (2, 2),
        "MaxPool2d": 2,
        "AvgPool2d": 2,
        "AdaptiveAvgPool2d": 3,
        "AdaptiveMaxPool2d": 3,
    }
    kept = layer(needs[layer.__name__]) if layer.__name__ in needs else layer()
    size = 9 if layer.__name__ in needs else 36
    layers = [nn.Conv2d(3, 4, 3), kept, nn.Flatten(), nn.Linear(4 * size, CLASSES)]
    both = Both(nn.Sequential(*layers), "wide", UNEQUAL)
    assert both.agree(FLOAT32), both.errors()


@pytest.mark.parametrize("way", WAYS)
def test_frozen_parameters_stay(way: Way) -> None:
    model = built("mlp")
    model[0][1].weight.requires_grad_(False)
    both = Both(model, way, UNEQUAL)
    assert both.agree(FLOAT32), both.errors()
    assert np.array_equal(
        both.together[0]["features.1.weight"], both.starts[0]["features.1.weight"]
    )


# --- prediction ---


@pytest.mark.parametrize("name", BUILDERS)
def test_predictions_together_are_those_of_each(name: str) -> None:
    model = built(name)
    trained = [built(name, seed=k) for k in range(3)]
    for network in trained:  # so that running statistics differ, too
        own = np.arange(16)
        labels = torch.tensor(NOISE.labels[own])
        numbers: Any = {"epochs": 1, "batch_size": 16, "optimizer": SGD}
        train(network, NOISE, own, labels, cross_entropy, np.random.default_rng(0), **numbers)
    for way in WAYS:
        stack = Stack(model, 4, way)
        for k, network in enumerate(trained):
            stack.load(k, as_tensors(parameters_of(network)))
        logits = predict_together(stack, 3, NOISE, np.arange(30, 53), batch_size=10)
        assert logits.shape == (3, 23, CLASSES)
        assert logits.dtype == torch.float32
        for k, network in enumerate(trained):
            alone = predict(network, NOISE, np.arange(30, 53), batch_size=10)
            torch.testing.assert_close(logits[k], alone, rtol=1e-4, atol=1e-5)
