"""Tries a group on a made-up batch, before anybody trains: what does not fit says so at once."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from clients.data import Dataset
from clients.mutual.group import GroupLesson
from clients.mutual.group_heads import Shape
from clients.mutual.group_process import any_network, feature_shapes, fresh_head
from clients.mutual.terms import Shared, Terms
from clients.training.optimizer_steps import require_steps

EXAMPLES = 8
"""Size of the made-up batch."""

LATE = 10**6
"""An epoch after every ramp and burn-in."""


def rehearse_group(
    lesson: GroupLesson, dataset: Dataset, section: str, numbers: str | None = None
) -> None:
    """See that taps, head and rule of a group fit each other.

    Args:
        lesson: Of the group; of its examples only the number is looked at.
        dataset: Gives image shape and classes.
        section: Of the config that rule and head stand in, for errors: "strategy".
        numbers: Where taps, optimisers and batch size stand; None = there too.

    Raises:
        ValueError: One of them does not fit; begins with its key.
    """
    numbers = numbers or section
    try:
        shapes = feature_shapes(lesson, dataset)
    except ValueError as error:
        raise ValueError(f"{numbers}.taps: {error}") from error
    for peer in lesson.peers:
        who = f"{numbers}.optimizer: peer '{peer.name}'"
        require_steps(peer.optimizer, _trained(any_network(peer, dataset)), who)
    head = None
    if lesson.head is not None:
        try:
            head = fresh_head(lesson.head, shapes, dataset.task.num_classes, lesson.seed)
        except Exception as error:  # anyone's code
            raise ValueError(f"{section}.head: {type(error).__name__}: {error}") from error
        who = f"{numbers}.head_optimizer: the head"
        require_steps(lesson.head.optimizer, _trained(deepcopy(head)), who)
    shared, targets = _made_up(lesson, shapes, dataset.task.num_classes, EXAMPLES)
    rule, peers, learns = deepcopy(lesson.rule), len(lesson.peers), False
    own = [] if head is None else _trained(head)
    for epoch in (0, LATE):
        try:
            with torch.random.fork_rng(devices=[]):
                terms = rule(shared, targets, epoch, head)
            _require_losses(terms, peers, tuple(targets.shape))
            found = torch.autograd.grad(terms.total, [*shared.logits, *own], allow_unused=True)
        except Exception as error:  # anyone's code
            raise ValueError(f"{section}.rule: {type(error).__name__}: {error}") from error
        learns = learns or any(gradient is not None for gradient in found[peers:])
    if own and not learns:
        raise ValueError(f"{section}.head: the rule does not look at it; set {section}.head=null")
    if min(lesson.batch_size, len(lesson.ids)) == 1:  # else no batch is of one: training.batches
        _require_learning_from_one(lesson, shapes, head, dataset, numbers)


def _trained(network: nn.Module) -> list[Tensor]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _require_learning_from_one(
    lesson: GroupLesson,
    shapes: Sequence[Shape],
    head: nn.Module | None,
    dataset: Dataset,
    numbers: str,
) -> None:
    """Refuse batch norms, of peers or head, that would have one number to normalise."""
    shared, targets = _made_up(lesson, shapes, dataset.task.num_classes, 1)
    who = ""
    try:
        with torch.random.fork_rng(devices=[]):
            for peer in lesson.peers:
                who = f"peer '{peer.name}'"
                any_network(peer, dataset).train()(dataset.task.blank(1))
            who = "the head"
            deepcopy(lesson.rule)(shared, targets, 0, head)
    except Exception as error:  # anyone's code
        of_one = ", and 1 example to learn from" if len(lesson.ids) == 1 else ""
        raise ValueError(
            f"{numbers}.batch_size={lesson.batch_size}{of_one}: {who} cannot learn from a batch of "
            f"one example: {error}; expected 2 or more"
        ) from error


def _made_up(
    lesson: GroupLesson, shapes: Sequence[Shape], num_classes: int, examples: int
) -> tuple[Shared, Tensor]:
    """Return answers of a group to a batch, and targets [examples, C]."""
    rng, size = torch.Generator().manual_seed(0), (examples, num_classes)
    logits = [torch.randn(size, generator=rng, requires_grad=True) for _ in lesson.peers]
    shared = Shared(
        logits,
        [torch.randn(examples, *shape, generator=rng, requires_grad=True) for shape in shapes],
        [] if lesson.refresh_epochs is None else [own.detach() for own in logits],
    )
    return shared, torch.randn(size, generator=rng).softmax(-1)


def _require_losses(terms: Terms, peers: int, size: tuple[int, ...]) -> None:
    losses = [*terms.peers] if terms.joint is None else [*terms.peers, terms.joint]
    if len(terms.peers) != peers or any(loss.dim() for loss in losses):
        shapes = [tuple(loss.shape) for loss in losses]
        raise ValueError(f"losses of shapes {shapes}: expected a scalar for each of {peers} peers")
    if not all(bool(torch.isfinite(loss)) for loss in losses):
        raise ValueError("a loss of made-up answers is not finite")
    if terms.fused is not None and tuple(terms.fused.shape) != size:
        raise ValueError(f"fused logits {tuple(terms.fused.shape)}: expected {size}, [B, C]")
