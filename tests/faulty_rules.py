"""Rules, trainers and objectives with seeded faults, and the lines that tell of them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.mutual.terms import Terms
from clients.training.losses import cross_entropy, kl
from clients.training.objective import Objective

# --- rules: losses, scorers, combiners, groups ---


def averaged(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return kl(logits, targets, temperature) / logits.shape[-1]


def entangled(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return kl(logits, targets, temperature) + logits.cumsum(0).square().sum(1)


def pulled(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return kl(logits, targets, temperature) + logits.square().sum(1)


def detached(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return kl(logits, targets, temperature) * kl(logits, targets, temperature).detach()


def unstable(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    own = (logits / temperature).exp() / (logits / temperature).exp().sum(-1, keepdim=True)
    return (targets * (targets / own).log()).sum(-1)


def attached(shared: Any, targets: Tensor, epoch: int, head: Any) -> Terms:
    losses = []
    for k, own in enumerate(shared.logits):
        other = shared.logits[k - 1].softmax(-1)  # not detached
        losses.append(kl(own, other, 1.0).mean())
    return Terms(losses)


def lazy(shared: Any, targets: Tensor, epoch: int, head: Any) -> Terms:
    return Terms([shared.logits[0].mean(), *(0 * z.mean() for z in shared.logits[1:])])


def tenth(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """CPFL's "uniform" weight of 1/10, of classes and not of cohorts."""
    return (logits / temperature).softmax(-1).sum(0) / 10


def flat(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    return torch.full_like(logits[0], 1 / logits.shape[-1])


def unweighted(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    return (logits / temperature).softmax(-1).mean(0)


def scaling(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    weights.mul_(0.5)
    return torch.einsum("kn,knc->nc", weights / weights.sum(0), logits.softmax(-1))


def by_place(teachers: Any) -> Tensor:
    return torch.arange(1.0, 1 + len(teachers.logits))[:, None].expand(teachers.mask.shape)


def by_row(teachers: Any) -> Tensor:
    return torch.arange(1.0, 1 + teachers.mask.shape[1]).expand(teachers.mask.shape)


def first_only(teachers: Any) -> Tensor:
    scores = torch.zeros(teachers.mask.shape)
    scores[0] = 1
    return scores


def meddling(teachers: Any) -> Tensor:
    scores: Tensor = teachers.logits.mul_(2).softmax(-1).amax(-1)
    return scores


def looking_past(network: Any, dataset: Any, indices: Any, targets: Any, *rest: Any) -> Any:
    """Normalise by hand what the data set stores."""
    pixels = dataset.inputs[indices] * dataset.scale
    inputs = torch.from_numpy((pixels - np.array(dataset.mean)[:, None, None]).astype(np.float32))
    loss = torch.nn.functional.cross_entropy(network(inputs), targets)
    loss.backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 0.1 * parameter.grad
    return [float(loss)]


def from_the_global(network: Any, *what: Any, **numbers: Any) -> list[float]:
    for parameter in network.parameters():
        parameter.data += torch.from_numpy(np.random.normal(size=parameter.shape)).float()
    return [0.0]


def objective_of(loss: Any, **others: Any) -> Objective:
    return Objective(lambda outputs, labels, anchors: loss(outputs.logits, labels), **others)


def summed(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels).sum()


def batchwise(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits - logits.mean(0), labels)


def exploding(logits: Tensor, labels: Tensor) -> Tensor:
    return -(logits.exp() / logits.exp().sum(1, keepdim=True))[torch.arange(len(labels)), labels]


def cut_off(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels) * logits.detach().square().mean(1)


FAULTS: list[tuple[str, Any, str]] = [
    ("loss", averaged, "summed, not averaged, over the classes: it is KL divided by the num"),
    ("loss", entangled, "each example.*: an example's loss depends on its place in the batch"),
    ("loss", pulled, "Is least, with no gradient, where"),
    ("loss", detached, "the gradient that finite differences have: it has another"),
    ("loss", unstable, "sure, and wrong: loss or gradient is not"),
    ("rule", attached, "only a target no gradient: peer 0's loss moves peer 2: detach"),
    ("rule", lazy, "a gradient of its own: peer 1 learns nothing"),
    ("rule", lambda shared, targets, epoch, head, *, more: 0, "needs 'more'"),
    ("combiner", tenth, r"sum to 1.*: a row sums to 0\.4, expected 1"),
    ("combiner", flat, "FAIL  .*equal|FAIL  .*agree"),
    ("combiner", unweighted, "weight is 0: what it says still counts"),
    ("combiner", scaling, "Leaves answers and weights as they are"),
    ("combiner", lambda logits, weights, temperature, *, more: 0, "needs 'more'"),
    ("scorer", by_place, "when these change places: scores stay where they were"),
    ("scorer", by_row, "nothing is kept of those of before: scores are those of other"),
    ("scorer", first_only, "Trusts equal teachers alike: weights of four"),
    ("scorer", meddling, "leaves these as they are: "),
    ("scorer", lambda teachers: -torch.ones(teachers.mask.shape), ">= 0: gives -1"),
    ("scorer", lambda teachers: torch.ones(3), r"gives shape \(3,\), expected \(4, 12\)"),
    ("scorer", lambda teachers, *, more: 0, "nobody gives it: needs 'more', and is given ids"),
    ("trainer", from_the_global, "the same generator.*: ends elsewhere"),
    ("trainer", lambda *what: [1.0], "in place.*: no parameter has moved"),
    ("trainer", looking_past, "in the dark: a view .clients.view. would change nothing"),
    ("trainer", lambda a, b, c, d, e, f, *, teacher: [1.0], "needs 'teacher', and is given anch"),
    ("objective", objective_of(summed), "FAIL  Gives a finite loss of each example"),
    ("objective", objective_of(exploding), "sure, and wrong: loss or gradient is not"),
    ("objective", objective_of(cut_off), "as finite differences have it: along a line"),
    ("objective", objective_of(batchwise), "depend on the others of the batch"),
    ("objective", Objective(cross_entropy, anchors=("mine",)), r"\['mine'\], which only its meth"),
    ("selection", lambda *, ids: ids, "gave positions beyond"),
    ("selection", lambda *, ids: np.arange(len(ids)), "selects all candidates"),
    (
        "selection",
        lambda *, ids: np.random.permutation(len(ids))[:9],
        "a second call selects others",
    ),
    ("selection", lambda *, share: [0], "needs 'share', and is given student"),
]
"""Kind, plug-in, and what is said of it."""
