"""Objectives of every kind, and what they compare with."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from clients.training.losses import cross_entropy, kl
from clients.training.objective import START, Anchors, Objective, OnLogits, Outputs, not_true

BEFORE = "before"


def to_prototypes(outputs: Outputs, labels: Tensor, anchors: Anchors) -> Tensor:
    """FedProto's: features near the label's prototype [C, D]."""
    features = outputs.features().flatten(1)
    near = (features - anchors["prototypes"][labels][:, : features.shape[1]]).square().mean(1)
    return cross_entropy(outputs.logits, labels) + near


def contrast(outputs: Outputs, labels: Tensor, anchors: Anchors) -> Tensor:
    """MOON's: features near those of the start, and not near those of an earlier network."""
    own, near, far = (
        each.features().flatten(1) for each in (outputs, outputs.of(START), outputs.of(BEFORE))
    )
    both = [functional.cosine_similarity(own, other, eps=1e-3) for other in (near, far)]
    return cross_entropy(outputs.logits, labels) - torch.stack(both, 1).log_softmax(1)[:, 0]


def squared_distance(parameters: Mapping[str, Tensor], anchors: Anchors) -> Tensor:
    """A penalty: 0.05 * squared distance to the start."""
    start = anchors[START]
    return 0.05 * sum((p - start[name]).square().sum() for name, p in parameters.items())


def shifted(
    gradients: Mapping[str, Tensor], parameters: Any, anchors: Anchors
) -> dict[str, Tensor]:
    """A correction like SCAFFOLD's: add what a client came with to its gradients."""
    return {name: gradient + anchors["shifts"][name] for name, gradient in gradients.items()}


KINDS = {
    "logits": Objective(OnLogits(cross_entropy)),
    "features": Objective(to_prototypes, taps=("penultimate",), anchors=("prototypes",)),
    "networks": Objective(contrast, taps=("penultimate",), networks=(START, BEFORE)),
    "not_true": not_true(0.7, 2.0),
    "penalty": Objective(OnLogits(cross_entropy), penalty=squared_distance),
    "correct": Objective(OnLogits(cross_entropy), correct=shifted, anchors=("shifts",)),
}


def everything(outputs: Outputs, labels: Tensor, anchors: Anchors) -> Tensor:
    """All losses at once; the network's inputs are looked at too."""
    before = (outputs.of(BEFORE).logits / 2).softmax(-1)
    brightness = outputs.inputs.flatten(1).square().mean(1)
    kept = kl(outputs.logits, before, 2.0) * brightness
    return to_prototypes(outputs, labels, anchors) + contrast(outputs, labels, anchors) + kept


ALL = Objective(
    everything,
    penalty=squared_distance,
    correct=shifted,
    taps=("penultimate",),
    networks=(START, BEFORE),
    anchors=("prototypes", "shifts"),
)


def anchors_for(model: torch.nn.Module, classes: int, seed: int) -> dict[str, Any]:
    """Draw what all of these compare with, in the numbers' own precision."""
    rng = torch.Generator().manual_seed(seed)
    learned = dict(model.named_parameters())
    kind = next(iter(learned.values())).dtype

    def normal(*shape: int) -> Tensor:
        return 0.1 * torch.randn(*shape, generator=rng, dtype=kind)

    before = {
        name: tensor + normal(*tensor.shape) if name in learned else tensor.clone()
        for name, tensor in model.state_dict().items()
    }
    shifts = {name: normal(*tensor.shape) for name, tensor in learned.items()}
    return {
        "prototypes": normal(classes, 4096),
        BEFORE: {name: tensor.detach() for name, tensor in before.items()},
        "shifts": shifts,
    }
