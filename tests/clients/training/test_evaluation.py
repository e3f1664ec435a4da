"""What a model answers: in eval mode, without trace, with the features before its last layer."""

import numpy as np
import pytest
import torch
from torch import nn

from clients.data import blobs, normalised
from clients.data.measures import class_measures
from clients.models import lenet5, logistic_regression, mlp, resnet8
from clients.training.evaluation import (
    evaluate,
    predict,
    predict_with_features,
)
from clients.training.taps import PENULTIMATE, Taps

BLOBS, TEST = blobs(num_examples=80)
SHAPE = (1, 4, 4)
ALL = np.arange(60)


def build(function: object = mlp, **numbers: object) -> nn.Module:
    torch.manual_seed(0)
    return function(SHAPE, 4, **numbers)  # type: ignore[operator,no-any-return]


def inputs(indices: np.ndarray = ALL) -> torch.Tensor:
    return torch.from_numpy(normalised(BLOBS, indices))


def test_features_and_logits_of_an_mlp_by_hand() -> None:
    model = build(hidden=(8,))
    logits, features = predict_with_features(model, BLOBS, ALL)
    hidden, last = model.features[1], model.classifier
    by_hand = (inputs().flatten(1) @ hidden.weight.T + hidden.bias).clamp_min(0)
    torch.testing.assert_close(features, by_hand.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        logits, (by_hand @ last.weight.T + last.bias).detach(), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("function", [mlp, logistic_regression, lenet5, resnet8])
def test_logits_are_the_classifier_of_the_features(function: object) -> None:
    model = build(function)
    logits, features = predict_with_features(model, BLOBS, ALL)
    with torch.inference_mode():
        torch.testing.assert_close(model.classifier(features), logits)
    assert logits.dtype == features.dtype == torch.float32


def test_only_the_indices_asked_for_are_answered_in_their_order() -> None:
    model = build()
    everything = predict(model, BLOBS, ALL)
    order = np.array([7, 3, 3, 59])
    some, features = predict_with_features(model, BLOBS, order)
    torch.testing.assert_close(some, everything[order])
    assert len(features) == 4


@pytest.mark.parametrize("batch_size", [1, 7, 59, 60, 61])
def test_batch_size_does_not_change_answers(batch_size: int) -> None:
    # lenet5 and resnet8: in train mode batch norm would make them depend on their batch.
    for model in (build(lenet5), build(resnet8)):
        whole = predict(model, BLOBS, ALL)
        cut = predict(model, BLOBS, ALL, batch_size)
        torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_eval_inside_and_restored_afterwards(training: bool) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 4)).train(training)
    modes = []
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    first = predict(model, BLOBS, ALL)
    assert modes == [False]
    assert [module.training for module in model.modules()] == [training] * 4
    assert torch.equal(first, predict(model, BLOBS, ALL))  # no dropout


def test_predicting_leaves_buffers_and_parameters_alone() -> None:
    model = build(resnet8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predict(model, BLOBS, ALL)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_answers_can_be_used_in_training() -> None:
    # Tensors born in inference mode cannot be saved for a backward pass.
    logits, features = predict_with_features(build(), BLOBS, ALL)
    weight = torch.ones(4, requires_grad=True)
    ((logits * weight).sum() + features.sum()).backward()
    assert weight.grad is not None


def test_the_hook_is_removed_afterwards() -> None:
    model = build()
    predict_with_features(model, BLOBS, ALL)
    assert not any(module._forward_pre_hooks for module in model.modules())
    with Taps(model, [PENULTIMATE]) as taps:
        pass
    model(inputs())
    with pytest.raises(ValueError, match="calls no"):
        taps.take()


def test_the_hook_is_removed_after_an_error() -> None:
    model = build()
    with pytest.raises(RuntimeError), Taps(model, [PENULTIMATE]):
        model(torch.zeros(1, 1, 3, 3))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_model_without_a_linear_layer_is_named() -> None:
    class Convolutional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).flatten(1)

    with pytest.raises(ValueError, match=r"Convolutional calls no torch\.nn\.Linear"):
        predict_with_features(Convolutional(), BLOBS, ALL)
    assert predict(Convolutional(), BLOBS, ALL).shape == (60, 4)  # its features are not needed


def test_the_classifier_is_the_linear_layer_called_last_whatever_the_order_of_registration() -> (
    None
):
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(3, 4)
            self.body = nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.classifier(self.body(x.flatten(1)))

    logits, features = predict_with_features(model := Backwards(), BLOBS, ALL)
    assert features.shape == (60, 3)
    with torch.inference_mode():
        torch.testing.assert_close(model.classifier(features), logits)


def test_measures_by_hand() -> None:
    # Rows (1/4, 3/4) and (4/5, 1/5), labels 1 and 1: one right; (-ln .75 - ln .2) / 2 = .948560
    logits = torch.tensor([[0.25, 0.75], [0.8, 0.2]]).log()
    values = class_measures(logits, np.array([1, 1]))
    assert values["accuracy"] == 0.5
    assert values["loss"] == pytest.approx(0.948560, abs=1e-6)


def test_evaluate_measures_the_whole_set() -> None:
    model = build()
    logits = predict(model, TEST, np.arange(len(TEST)))
    hits = sum(int(row.argmax()) == label for row, label in zip(logits, TEST.labels, strict=True))
    values = evaluate(model, TEST)
    assert values["accuracy"] == hits / len(TEST)
    assert values == class_measures(logits, TEST.labels)
