"""What a process of a group holds: its peers, and on the host rule and head."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.data import Dataset
from clients.models.factory import build, load_parameters, parameters_of
from clients.mutual.group import GroupLesson, GroupState, Head, Peer, Snapshot
from clients.mutual.group_heads import Shape
from clients.mutual.terms import Shared, Terms
from clients.seeding import Purpose, generator, seeded_torch, stream, torch_seed
from clients.training.optimizer_steps import object_step
from clients.training.schedules import turn
from clients.training.taps import Taps, last_map, take_map


def feature_shapes(lesson: GroupLesson, dataset: Dataset) -> tuple[Shape, ...]:
    """Find the shape of each peer's feature once it is pooled to the smallest height and width.

    Args:
        lesson: Whose peers.
        dataset: Gives the shape of an image.

    Returns:
        (channels, height, width) of each peer; none if there is no head.

    Raises:
        ValueError: A peer has no such tap; says which peer.
    """
    if lesson.head is None:
        return ()
    found: list[torch.Size] = []
    for peer in lesson.peers:
        network = any_network(peer, dataset).eval()
        try:
            with Taps(network, [tap_of(peer, network, dataset)]) as taps, torch.no_grad():
                network(dataset.task.blank(1))
                found.append(take_map(taps).shape)
        except ValueError as error:
            raise ValueError(f"peer '{peer.name}': {error}") from error
    height, width = (min(shape[axis] for shape in found) for axis in (2, 3))
    return tuple((shape[1], height, width) for shape in found)


def exchanged_bytes(lesson: GroupLesson, dataset: Dataset, places: Sequence[int]) -> int:
    """Say what the processes of a group send each other, host and others, in both directions.

    Four bytes for each number of each answer of a peer away from the host, once there and once back
    as a gradient; in turn, every peer but the last answers once more; for each refresh of stale
    answers, all logits once.

    Args:
        lesson: What the group learns.
        dataset: Gives image shape and classes.
        places: Rank of the process of each peer [K].

    Returns:
        Bytes of all epochs.
    """
    shapes = feature_shapes(lesson, dataset)
    refreshes = 0 if lesson.refresh_epochs is None else -(-lesson.epochs // lesson.refresh_epochs)
    numbers = 0
    for k, rank in enumerate(places):
        if rank:
            width = dataset.task.num_classes + (int(np.prod(shapes[k])) if shapes else 0)
            again = lesson.update == "sequential" and k < len(places) - 1
            numbers += lesson.epochs * width * (3 if again else 2)
            numbers += refreshes * dataset.task.num_classes
    return 4 * numbers * len(lesson.ids)


def any_network(peer: Peer, dataset: Dataset) -> nn.Module:
    """Build a peer's network with whatever parameters."""
    rng = np.random.default_rng(0)
    return build(peer.model, dataset.task, rng)


def tap_of(peer: Peer, network: nn.Module, dataset: Dataset) -> str:
    """Return the name of a peer's tap."""
    return last_map(network, dataset.task) if peer.tap is None else peer.tap


# --- one peer ---


class Learner:
    """A network with its optimiser, its tap and a random stream of its own."""

    def __init__(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, taps: Taps | None, noise: Tensor
    ) -> None:
        self.network = network
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = optimizer
        self._step = object_step(self.parameters, optimizer)
        self._taps = taps
        self._noise = noise
        self._answers: list[Tensor] = []

    def answer(self, images: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Answer a batch in train mode: logits [B, C] and, with a tap, features [B, D, *size]."""
        self.network.train()
        with torch.random.fork_rng(devices=[]):  # whoever else is here has a stream of their own
            torch.set_rng_state(self._noise)
            logits = self.network(images)
            self._noise = torch.get_rng_state()
        self._answers = [logits]
        if self._taps is not None:
            self._answers.append(functional.adaptive_avg_pool2d(take_map(self._taps), size))
        return [_as_sent(each.detach()) for each in self._answers]

    def learn(self, gradients: Sequence[Tensor]) -> None:
        """Step against the gradient with respect to the latest answers."""
        pairs = [
            (answer, gradient)
            for answer, gradient in zip(self._answers, gradients, strict=True)
            if answer.requires_grad  # pixels may be a feature
        ]
        moves = torch.autograd.grad(
            [answer for answer, _ in pairs],
            self.parameters,
            [gradient for _, gradient in pairs],
            allow_unused=True,
        )
        self._answers = []
        self._step(moves)

    def snapshot(self) -> Snapshot:
        """Return what the next epoch goes on from."""
        return Snapshot(parameters_of(self.network), _on_cpu(self.optimizer.state_dict()))


def _as_sent(tensor: Tensor) -> Tensor:
    """Bring a tensor into the order of memory that it has when it was sent.

    That order is part of a convolution's bits, and `contiguous` leaves the strides of axes of 1.
    """
    return tensor.flatten().view(tensor.shape)


def _on_cpu(state: Any) -> Any:
    """Bring an optimiser's state where any process can read it."""
    if isinstance(state, Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state


@contextmanager
def learner(
    lesson: GroupLesson,
    place: int,
    state: GroupState,
    dataset: Dataset,
    shapes: Sequence[Shape],
    device: str,
) -> Iterator[Learner]:
    """Bring a peer of a group to life, as its snapshot says.

    Args:
        lesson: Of the group.
        place: Which peer.
        state: Of the group, before the epoch.
        dataset: Gives image shape and classes.
        shapes: Of all features; none = no feature is wanted.
        device: Where it lives.

    Yields:
        The peer; its tap is removed afterwards.

    Raises:
        ValueError: The snapshot is of another architecture.
    """
    peer, snapshot = lesson.peers[place], state.peers[place]
    network = any_network(peer, dataset)
    try:
        load_parameters(network, snapshot.parameters)
    except ValueError as error:
        raise ValueError(f"peer '{peer.name}': {error}") from error
    network.to(device)
    optimizer = peer.optimizer(p for p in network.parameters() if p.requires_grad)
    if snapshot.optimizer is not None:
        # A copy: torch keeps the tensors that it is given, and steps change them in place.
        optimizer.load_state_dict(deepcopy(snapshot.optimizer))
    turn(lesson.scheduler, peer.optimizer, optimizer, lesson.first_epoch + state.epoch)
    with ExitStack() as stack:
        taps = None
        if shapes:
            taps = stack.enter_context(Taps(network, [tap_of(peer, network, dataset)]))
        yield Learner(network, optimizer, taps, noise_of(lesson, state, place))


def noise_of(lesson: GroupLesson, state: GroupState, place: int) -> Tensor:
    """Return the state of a torch generator for one peer, or behind the last for the head."""
    server_round, client_id = lesson.key
    turn = state.epoch * (len(lesson.peers) + 1) + place
    key = stream(lesson.seed, Purpose.PEER_NOISE, server_round, client_id, turn)
    noise = torch.Generator()
    noise.manual_seed(torch_seed(np.random.default_rng(key)))
    return noise.get_state()


# --- the host ---


class Host:
    """Rule and head: turns the answers of all peers into a gradient for each."""

    def __init__(
        self,
        lesson: GroupLesson,
        state: GroupState,
        shapes: Sequence[Shape],
        num_classes: int,
        device: str,
    ) -> None:
        self._rule = lesson.rule
        self._epoch = lesson.first_epoch + state.epoch
        self._noise = noise_of(lesson, state, len(lesson.peers))
        self.head: nn.Module | None = None
        if lesson.head is None:
            return
        self.head = fresh_head(lesson.head, shapes, num_classes, lesson.seed).to(device)
        if state.head is not None:
            load_parameters(self.head, state.head.parameters)
        self._parameters: list[Tensor] = [p for p in self.head.parameters() if p.requires_grad]
        self._optimizer = lesson.head.optimizer(self._parameters)
        self._step = object_step(self._parameters, self._optimizer)
        if state.head is not None and state.head.optimizer is not None:
            self._optimizer.load_state_dict(deepcopy(state.head.optimizer))
        turn(lesson.scheduler, lesson.head.optimizer, self._optimizer, self._epoch)

    def gradients(
        self,
        answers: Sequence[Sequence[Tensor]],
        targets: Tensor,
        stale: Sequence[Tensor],
        learn: bool,
    ) -> tuple[Terms, list[list[Tensor]]]:
        """Apply the rule; let the head step, and return the gradient of each answer."""
        leaves = [[answer.detach().requires_grad_() for answer in own] for own in answers]
        if self.head is not None:
            self.head.train()
        shared = Shared([own[0] for own in leaves], [own[1] for own in leaves if own[1:]], stale)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._noise)
            terms = self._rule(shared, targets, self._epoch, self.head)
            self._noise = torch.get_rng_state()
        flat = [leaf for own in leaves for leaf in own]
        own_parameters: list[Tensor] = self._parameters if self.head is not None and learn else []
        found = torch.autograd.grad(terms.total, flat + own_parameters, allow_unused=True)
        if own_parameters:
            self._step(found[len(flat) :])
        # Zeros, not None: what has no gradient is treated alike wherever its peer is.
        rest = (
            torch.zeros_like(leaf) if gradient is None else _as_sent(gradient)
            for leaf, gradient in zip(flat, found, strict=False)
        )
        return terms, [[next(rest) for _ in own] for own in leaves]

    def snapshot(self) -> Snapshot | None:
        """Return what the next epoch goes on from; None without a head."""
        if self.head is None:
            return None
        return Snapshot(parameters_of(self.head), _on_cpu(self._optimizer.state_dict()))


def fresh_head(head: Head, shapes: Sequence[Shape], num_classes: int, seed: int) -> nn.Module:
    """Build a head; its initial parameters depend on the run's seed only."""
    with seeded_torch(generator(seed, Purpose.HEAD)):
        return head.build(shapes, num_classes)
