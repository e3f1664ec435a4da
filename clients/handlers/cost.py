"""How much a client computes for a request: a pure function of both, for the virtual clock.

Counted are multiplications of forward passes, `model_cache.work_of` each; a training step is
three of them, the backward pass being twice the forward one (Kaplan et al., "Scaling Laws for
Neural Language Models", 2020, arXiv:2001.08361, sec. 2.1). Left out, as small beside a network's
passes: optimiser steps, losses, heads, mixtures of what neighbours sent, and the logistic
regression of a discriminator on features or pixels that are there.
"""

from collections.abc import Callable
from typing import cast

from flwr.app import ArrayRecord, Message, RecordDict

from clients.handlers.answering import imitated_ids
from clients.handlers.features import requested_inputs
from clients.handlers.targets import TARGETS
from clients.messages.arrays import read_arrays
from clients.messages.requests import (
    EVALUATE_FEATURES,
    EVALUATE_OWN,
    EVALUATE_PREDICTIONS,
    TRAIN_MIXED,
    TRAIN_OWN,
    TRAIN_PREDICTIONS,
    TRAIN_RECEIVED,
    TRAIN_TARGETS,
    PredictionRequest,
    client_id_of,
    read_request,
)
from clients.models.factory import unlike
from clients.mutual.from_neighbours import Digest, Transfer
from clients.population.clients import STUDENT, SimulatedClients
from clients.training.loop import local_epochs

PASSES = 3
"""Forward passes that a training step on an example is worth: itself, and twice as much back."""


def multiplications(clients: SimulatedClients, request: Message) -> float:
    """Count what a client computes for a request.

    Args:
        clients: All of the federation's.
        request: As the client gets it, what neighbours sent mixed in.

    Returns:
        Their number, >= 0; 0 for messages that only send, take or relay, and for any that our
        clients do not know or cannot read.
    """
    count = COUNTS.get(request.metadata.message_type)
    if count is None:
        return 0.0
    try:
        return float(count(clients, client_id_of(request.metadata.dst_node_id), request.content))
    except Exception:  # it may hold anything; what cannot be read, its client fails at at once
        return 0.0


# --- by message type ---


def _local_training(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    """Train on private examples; with a messenger it and the client's own network."""
    examples, each = len(clients.partitions[client_id]), _forward(clients, client_id)
    if (how := clients.messenger) is not None:
        return PASSES * how.epochs * examples * (each + clients.forward[STUDENT])
    return PASSES * (local_epochs(clients.local_training) or 0) * examples * each


def _training_and_answers(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    asked, training = read_request(content), _local_training(clients, client_id, content)
    digesting = _digesting(clients, client_id, asked)
    return digesting + training + _answering(clients, client_id, asked)


def _answers(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    return _answering(clients, client_id, read_request(content))


def _learning_targets(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    digest = clients.peer_lesson
    if not isinstance(digest, Digest):
        return 0.0
    ids = read_arrays(cast(ArrayRecord, content[TARGETS]))["proxy-ids"]
    epochs: int = digest.numbers.get("epochs", 0)
    return PASSES * epochs * len(ids) * _forward(clients, client_id)


def _learning_with_received(
    clients: SimulatedClients, client_id: int, content: RecordDict
) -> float:
    """Train two networks of the client's architecture: its own, and what it was sent."""
    transfer, examples = clients.peer_lesson, len(clients.partitions[client_id])
    if not isinstance(transfer, Transfer):
        return 0.0
    return PASSES * transfer.how.epochs * examples * 2 * _forward(clients, client_id)


def _features(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    return requested_inputs(content) * _forward(clients, client_id)


def _measuring_received(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    """Answer the private set with what was sent; with a messenger the test set with its own."""
    examples = len(clients.partitions[client_id])
    if clients.messenger is None:
        return examples * _forward(clients, client_id)
    own = len(clients.splits.test) * _forward(clients, client_id)
    return own + examples * clients.forward[STUDENT]


def _measuring_own(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    """Answer the test set, with the messenger too if there is one."""
    messenger = 0.0 if clients.messenger is None else clients.forward[STUDENT]
    return len(clients.splits.test) * (_forward(clients, client_id) + messenger)


COUNTS: dict[str, Callable[[SimulatedClients, int, RecordDict], float]] = {
    "train": _local_training,
    "evaluate": _measuring_received,
    TRAIN_PREDICTIONS: _training_and_answers,
    EVALUATE_PREDICTIONS: _answers,
    TRAIN_TARGETS: _learning_targets,
    TRAIN_OWN: _local_training,
    TRAIN_MIXED: _local_training,
    TRAIN_RECEIVED: _learning_with_received,
    EVALUATE_OWN: _measuring_own,
    EVALUATE_FEATURES: _features,
}
"""What there is to compute, by message type; the others of `clients.app` compute nothing."""


# --- steps ---


def _forward(clients: SimulatedClients, client_id: int) -> float:
    return clients.forward[clients.architectures[client_id]]


def _answering(clients: SimulatedClients, client_id: int, asked: PredictionRequest) -> float:
    """Answer the inputs, and those that a discriminator of features is fitted on."""
    inputs = len(clients.splits.test) if asked.proxy_ids is None else len(asked.proxy_ids)
    if asked.negative_ids is not None and asked.recipe and asked.recipe.inputs == "features":
        inputs += len(clients.partitions[client_id]) + len(asked.negative_ids)
    return inputs * _forward(clients, client_id)


def _digesting(clients: SimulatedClients, client_id: int, asked: PredictionRequest) -> float:
    """Ask the student that was fed back, and imitate it; of one's own architecture, neither."""
    if asked.student is None or asked.proxy_ids is None:
        return 0.0
    own = clients.place("cpu").networks.of(clients.architectures[client_id])
    if not unlike(own, asked.student):
        return 0.0
    imitating = PASSES * asked.digest_epochs * _forward(clients, client_id)
    return len(imitated_ids(asked)) * (clients.forward[STUDENT] + imitating)
