"""What a group answers as one: the classifier that its rule makes of all peers and the head."""

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.data import Dataset
from clients.models.factory import load_parameters
from clients.mutual.group import GroupLesson, GroupState
from clients.mutual.group_process import any_network, feature_shapes, fresh_head, tap_of
from clients.mutual.terms import Rule, Shared
from clients.training.evaluation import measured, predict
from clients.training.taps import Taps, take_map


class FusedClassifier(nn.Module):
    """Peers and head as one network, which is a global student too."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        taps: Sequence[str],
        size: tuple[int, int],
        head: nn.Module,
        rule: Rule,
    ) -> None:
        """Put them together.

        Args:
            networks: The peers', in their order.
            taps: Name of each one's tapped module.
            size: Height and width to which features are pooled.
            head: The group's.
            rule: Whose `fused` answer it gives.
        """
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.head = head
        self._taps = tuple(taps)
        self._size = size
        self._rule = rule

    def forward(self, images: Tensor) -> Tensor:
        """Classify.

        Args:
            images: [B, channels, height, width].

        Returns:
            Logits [B, C].
        """
        with ExitStack() as stack:
            pairs = zip(self.networks, self._taps, strict=True)
            taps = [stack.enter_context(Taps(network, [name])) for network, name in pairs]
            logits = [network(images) for network in self.networks]
            features = [functional.adaptive_avg_pool2d(take_map(each), self._size) for each in taps]
        nothing = torch.zeros_like(logits[0])
        fused = self._rule(Shared(logits, features), nothing, 0, self.head).fused
        assert fused is not None, "`fused_classifier` has tried"
        return fused


def fused_classifier(
    lesson: GroupLesson, state: GroupState, dataset: Dataset
) -> FusedClassifier | None:
    """Build the classifier that a group has become.

    Args:
        lesson: What it learned.
        state: What came of it.
        dataset: Gives image shape and classes.

    Returns:
        The classifier, in eval mode on the CPU; None if the rule makes none.
    """
    if lesson.head is None or state.head is None:
        return None
    shapes = feature_shapes(lesson, dataset)
    head = fresh_head(lesson.head, shapes, dataset.task.num_classes, lesson.seed)
    load_parameters(head, state.head.parameters)
    networks = [any_network(peer, dataset) for peer in lesson.peers]
    taps = [tap_of(*pair, dataset) for pair in zip(lesson.peers, networks, strict=True)]
    for network, snapshot in zip(networks, state.peers, strict=True):
        load_parameters(network, snapshot.parameters)
    head.eval()
    features = [torch.zeros(2, *shape) for shape in shapes]
    logits = [torch.zeros(2, dataset.task.num_classes)] * len(networks)
    if lesson.rule(Shared(logits, features), logits[0], 0, head).fused is None:
        return None
    return FusedClassifier(networks, taps, shapes[0][1:], head, lesson.rule).eval()


def measures_of(lesson: GroupLesson, state: GroupState, test: Dataset) -> dict[str, float]:
    """Measure what came of a group.

    Args:
        lesson: What it learned.
        state: What came of it.
        test: Labelled examples.

    Returns:
        Accuracies in [0, 1]: `peer-accuracy-NAME` of each peer, `peers-mean-accuracy` of the mean
        of their probs and, where the rule makes a classifier of them, `fused-accuracy`.
    """
    everything, probs, values = np.arange(len(test)), [], {}
    for peer, snapshot in zip(lesson.peers, state.peers, strict=True):
        network = any_network(peer, test)
        load_parameters(network, snapshot.parameters)
        logits = predict(network, test, everything)
        probs.append(logits.softmax(-1))
        values[f"peer-accuracy-{peer.name}"] = measured(logits, test)["accuracy"]
    mean = torch.stack(probs).mean(0).clamp_min(1e-12).log()
    values["peers-mean-accuracy"] = measured(mean, test)["accuracy"]
    if (fused := fused_classifier(lesson, state, test)) is not None:
        values["fused-accuracy"] = measured(predict(fused, test, everything), test)["accuracy"]
    return values
