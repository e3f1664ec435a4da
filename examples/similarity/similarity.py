"""Feature distillation without a head: which inputs look alike to teachers should to the student.

Tung and Mori, "Similarity-preserving knowledge distillation", ICCV 2019 (arXiv:1907.09682), eq. 1
to 4: of a batch's features F [B, D] the rows of F F^T are made unit vectors, and those of student
and teacher compared. Nothing of it depends on D, so teachers may be of any architecture; each
counts on each input as much as its answer does.

    python run.py --config-dir examples/similarity strategy=distillation strategy/ask=[features] \
        strategy/distil=similarity
"""

import torch
from torch.nn.functional import normalize

from clients.training.evaluation import predict_with_features
from clients.training.loop import train
from clients.training.objective import Objective


def similarity(
    student, proxy, ids, targets, loss, rng, *, teachers, weights, local, pull, **numbers
):
    """Learn soft labels, and the similarities that teachers see between inputs."""
    seen = [teachers.of(k)["features"][0].flatten(1) for k in range(len(weights))]  # K of [n, D_k]

    def away(features, rows):
        """Return how far each of some inputs is from what all teachers see of it [B]."""
        return sum(
            weight[rows] * (alike(features) - alike(theirs[rows])).square().mean(1)
            for weight, theirs in zip(weights, seen, strict=True)
        )

    def with_similarities(outputs, targets, anchors):
        far = away(outputs.features().flatten(1).cpu(), outputs.rows.cpu())
        return loss(outputs.logits, targets) + pull * far.to(outputs.logits.device)

    objective = Objective(with_similarities, taps=("penultimate",))
    losses = train(student, proxy, ids, targets, objective, rng, anchors={}, **numbers)
    _, features = predict_with_features(student, proxy, ids)
    local.note(similarity_gap=float(away(features, torch.arange(len(ids))).mean()))
    return losses


def alike(features):
    """Return how alike inputs look [B, B], rows of length 1."""
    return normalize(features @ features.T, dim=1)
