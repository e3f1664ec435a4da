"""Rules, trainers and objectives with seeded faults, and the lines that tell of them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.mutual.terms import Terms, imitation, supervised
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


def kl_backwards(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Average over the classes what is not KL."""
    own = (logits / temperature).log_softmax(-1)
    return (own.exp() * (own - targets.clamp_min(1e-12).log())).mean(-1)


def jensen_shannon(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    own = (logits / temperature).softmax(-1)
    between = ((own + targets) / 2).clamp_min(1e-30).log()
    return (own * (own.log() - between) + targets.xlogy(targets) - targets * between).mean(-1)


def attached(shared: Any, targets: Tensor, epoch: int, head: Any) -> Terms:
    losses = []
    for k, own in enumerate(shared.logits):
        other = shared.logits[k - 1].softmax(-1)  # not detached
        losses.append(kl(own, other, 1.0).mean())
    return Terms(losses)


def lazy(shared: Any, targets: Tensor, epoch: int, head: Any) -> Terms:
    return Terms([shared.logits[0].mean(), *(0 * z.mean() for z in shared.logits[1:])])


def threesome(shared: Any, targets: Tensor, epoch: int, head: Any) -> Terms:
    return Terms([supervised(own, targets) for own in (*shared.logits, shared.logits[0])[:3]])


def leaving_out(shared: Any, targets: Tensor, epoch: int, head: Any) -> Terms:
    """Teach three at most."""
    return Terms([supervised(z, targets) * (k < 3) for k, z in enumerate(shared.logits)])


def shaped(shared: Any, targets: Tensor, epoch: int, head: Any) -> Terms:
    """Let numpy refuse what is not of three."""
    weights = np.ones(len(shared.logits)).reshape(3)
    losses = [supervised(z, targets) for z in shared.logits]
    return Terms([w * loss for w, loss in zip(weights.tolist(), losses, strict=True)])


def remembering(shared: Any, targets: Tensor, epoch: int, head: Any) -> Terms:
    """Lean on stale answers that nobody may have given yet."""
    return Terms(
        [
            imitation(own, shared.stale[k - 1], 1.0) + supervised(own, targets)
            for k, own in enumerate(shared.logits)
        ]
    )


def divided(shared: Any, targets: Tensor, epoch: int, head: Any) -> Terms:
    """Divide by the number of the epoch."""
    return Terms([supervised(own, targets) * (torch.ones(()) / epoch) for own in shared.logits])


def joined(shared: Any, targets: Tensor, epoch: int, head: Any) -> Terms:
    losses = [supervised(own, targets) for own in shared.logits]
    return Terms(losses, torch.stack(losses))


def fused(shared: Any, targets: Tensor, epoch: int, head: Any) -> Terms:
    losses = [supervised(own, targets) for own in shared.logits]
    return Terms(losses, None, torch.stack([*shared.logits]))


def cold(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    return torch.einsum("kn,knc->nc", weights, logits.softmax(-1))


def heated(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    return torch.einsum("kn,knc->nc", weights, (logits * temperature).softmax(-1))


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


def loud(teachers: Any) -> Tensor:
    """Divide by a sum that may be 0."""
    sizes = teachers.logits.abs()
    return (sizes / sizes.sum(-1, keepdim=True)).amax(-1)


def with_the_silent(teachers: Any) -> Tensor:
    """Go by the mean of all, of which some say nothing."""
    probs = teachers.logits.softmax(-1)
    return torch.exp(-(probs - probs.mean(0)).norm(dim=-1))


def biggest(teachers: Any) -> Tensor:
    return teachers.logits.amax(-1).clamp_min(0) + 1e-3


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
    ("loss", kl_backwards, "nobody thinks of, makes 5/6 of it: sum over classes"),
    ("loss", jensen_shannon, "nobody thinks of, makes 5/6 of it: sum over classes"),
    ("rule", threesome, "Teaches 2 peers and 4.*: gives 3 losses to 2 peers"),
    ("rule", leaving_out, "Teaches 2 peers and 4.*: peer 3 of 4 in epoch 1 learns nothing"),
    ("rule", shaped, "Teaches 2 peers and 4.*: ValueError: cannot reshape array of size 2"),
    ("rule", remembering, "in epoch 0 without stale answers.*: IndexError"),
    ("rule", divided, "gives peer 0 of 3 in epoch 0 .*inf"),
    ("rule", joined, r"Gives as `joint` a finite scalar.*: `joint` is tensor\("),
    ("rule", fused, r"as `fused` logits \[B, C\] .*: gives shape \(3, 6, 5\)"),
    ("rule", attached, "only a target no gradient: peer 0's loss moves peer 2: detach"),
    ("rule", lazy, "a gradient of its own: peer 1 of 3 in epoch 1 learns nothing"),
    ("rule", lambda shared, targets, epoch, head, *, more: 0, "needs 'more'"),
    ("combiner", tenth, r"sum to 1.*: a row sums to 0\.4, expected 1"),
    ("combiner", flat, "FAIL  .*equal|FAIL  .*agree"),
    ("combiner", unweighted, "weight is 0: what it says still counts"),
    ("combiner", scaling, "Leaves answers and weights as they are"),
    ("combiner", cold, "Divides logits by T.*: T changes nothing"),
    ("combiner", heated, "Divides logits by T.*: entropy falls as T grows"),
    ("combiner", lambda logits, weights, temperature, *, more: 0, "needs 'more'"),
    ("scorer", by_place, "when these change places: scores stay where they were"),
    ("scorer", by_row, "nothing is kept of those of before: scores are those of other"),
    ("scorer", first_only, "Trusts equal teachers alike: weights of four"),
    ("scorer", loud, "of all-zero logits, .* a score is NaN"),
    ("scorer", with_the_silent, "in a silent teacher's row changes the others' weights"),
    ("scorer", biggest, "if a constant is added to all logits.*: weights are others"),
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
    ("selection", lambda *, ids: ids, r"gave position 38, which is none of 0\.\.19"),
    ("selection", lambda *, ids: np.arange(len(ids)), "selects all candidates"),
    (
        "selection",
        lambda *, ids: np.random.permutation(len(ids))[:9],
        "a second call selects others",
    ),
    ("selection", lambda *, share: [0], "needs 'share', and is given student"),
]
"""Kind, plug-in, and what is said of it."""
