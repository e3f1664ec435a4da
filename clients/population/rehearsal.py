"""Checks of networks before anybody trains: a network that cannot work should say so at once."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.data import Dataset
from clients.data.label_checks import UNLABELLED, Labels
from clients.execution.isolation import is_ours
from clients.execution.trainer_calls import require_objectives, require_offered
from clients.messages.arrays import PLAIN
from clients.models.factory import ModelFunction, build, parameters_of, unlike
from clients.mutual.messenger import Messenger, lesson_of
from clients.mutual.rehearsal import rehearse_group
from clients.population.clients import SimulatedClients
from clients.population.label_conditions import label_free, permuted_labels
from clients.population.shape_plans import require_shape
from clients.population.views import require_view
from clients.training.batches import examples_learned
from clients.training.evaluation import run
from clients.training.loop import Trainer, train
from clients.training.objective import Loss, Objective
from clients.training.schedules import rate_at

LOOKED_AT = (1, 2, 10, 100, 1000)
"""Rounds in which somebody is to have a label."""


def rehearse(
    clients: SimulatedClients, local_training: bool = True, device: str | None = "cpu"
) -> None:
    """Let every network answer two examples and learn from them; try it with the messenger.

    Args:
        clients: Of a federation.
        local_training: Whether clients train at all.
        device: Where. But on "cpu" they are not tried: it may bear what this one does not.

    Raises:
        ValueError: A network cannot answer or learn, rule or head do not fit, labels are none,
            or nobody's, work cannot be counted, or the trainer needs what there is not; says so.
    """
    private, messenger = clients.splits.private, clients.messenger
    labels = _tried_labels(clients)
    by_labels = local_training and messenger is None and is_ours(clients.objective)
    if clients.condition is not None and by_labels:
        _require_some_label(clients)
    require_offered(clients.local_training, "clients.training")
    if isinstance(clients.objective, Objective):
        require_objectives(clients.local_training, "clients.training")
    if clients.view is not None:
        _chosen("clients.view", clients.view, len(clients.architectures))
        require_view(clients.view, private)
    if clients.shape is not None:
        for name, model in clients.models.items():
            require_shape(clients.shape, name, model, private)
    timed = clients.profiles is not None and messenger is None
    if timed and examples_learned(clients.local_training, 1) is None:
        raise ValueError(
            "clients.profile: the virtual clock counts local epochs, and clients.training does not "
            "tell them: expected clients.training.epochs"
        )
    learns = local_training and device == "cpu" and messenger is None
    for name, model in {**clients.models, "student": clients.student}.items():
        network = rehearse_network(name, model, private)
        if learns and name in clients.models:
            of_what = private, torch.from_numpy(labels[[0, -1]]), clients.objective
            who = f"clients.training: architecture '{name}'"
            rehearse_learning(clients.local_training, network, *of_what, who)
    _ = clients.forward  # by which clients are scheduled: each network answers one input alone
    if messenger is not None:
        rehearse_messenger(messenger, clients.student, clients.models, private)


def rehearse_network(name: str, model: ModelFunction, private: Dataset) -> nn.Module:
    """Let a network answer two examples.

    Args:
        name: Of the architecture.
        model: Its model function.
        private: Where the examples are taken from.

    Returns:
        The network, to be thrown away.

    Raises:
        ValueError: It cannot, does not give finite numbers as the task has them, or holds what
            cannot be sent; names it.
    """
    expected = (2, *private.task.output_shape)
    rng = np.random.default_rng(0)
    try:
        network = build(model, private.task, rng)
        if not any(True for _ in network.parameters()):
            raise ValueError("it has no parameters, expected at least one")
        outputs, _ = run(network, private, np.array([0, len(private) - 1]))
    except Exception as error:  # anyone's code
        raise ValueError(
            f"architecture '{name}' cannot answer an input of shape {private.task.input_shape}: "
            f"{type(error).__name__}: {error}{_instead(private)}"
        ) from error
    if tuple(outputs.shape) != expected or not bool(torch.isfinite(outputs).all()):
        raise ValueError(
            f"architecture '{name}' answers two examples by an array of shape "
            f"{tuple(outputs.shape)}: expected {expected}, finite"
        )
    _require_rows(outputs, private)
    _require_sendable(name, network)
    return network


def _instead(private: Dataset) -> str:
    """Name networks that answer what is no image; "" if it is one."""
    if len(private.task.input_shape) > 1:
        return ""
    if private.task.num_tokens is not None:
        return "; of tokens can learn clients=mixed_text student=transformer"
    return "; of columns can learn clients=mixed_tabular student=mlp"


def _require_rows(outputs: Tensor, private: Dataset) -> None:
    """Refuse a task that does not make rows of answers, or does not measure what it says."""
    task, size = private.task, (len(outputs) * private.task.sites, private.task.num_classes)
    try:
        rows = task.answers(outputs)
        found = task.measures(rows, private.labels[[0, -1]])
    except Exception as error:  # anyone's task
        raise ValueError(f"task {task.name}: {type(error).__name__}: {error}") from error
    if tuple(rows.shape) != size:
        raise ValueError(f"task {task.name}: rows of shape {tuple(rows.shape)}, expected {size}")
    if missing := [name for name in (task.measure, "loss") if found and name not in found]:
        raise ValueError(f"task {task.name}: measures {', '.join(found)}, and no '{missing[0]}'")


def _require_sendable(name: str, network: nn.Module) -> None:
    """Refuse a state that numpy arrays cannot hold."""
    for key, value in network.state_dict().items():
        kind = str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else None
        if kind not in PLAIN:
            held = f"of {kind}" if kind else f"a {type(value).__name__} (of get_extra_state)"
            raise ValueError(
                f"architecture '{name}': '{key}' of its state is {held}, which cannot be sent: "
                f"expected tensors of {', '.join(PLAIN)}"
            )


def rehearse_learning(
    how: Trainer,
    network: nn.Module,
    dataset: Dataset,
    targets: Tensor,
    objective: Loss | Objective,
    who: str,
) -> None:
    """Let a network learn for one step from two examples.

    A trainer that is not ours is left alone: what it does beside is not known.

    Args:
        how: `clients.training.loop.train` with its numbers bound.
        network: Changed; on the device that it will learn on.
        dataset: Where the examples are taken from; its labels are not looked at.
        targets: Of two examples, labels [2] or probs [2, C].
        objective: What is minimised.
        who: Of which section of the config, for errors.

    Raises:
        ValueError: It cannot.
    """
    if not (isinstance(how, partial) and how.func is train and "epochs" in how.keywords):
        return
    try:  # a state must not see a try
        how = deepcopy(how)
    except Exception:  # anyone's optimiser
        return
    ends, rng = np.array([0, len(dataset) - 1]), np.random.default_rng(0)
    if (scheduler := how.keywords.get("scheduler")) is not None:
        try:
            rate_at(scheduler, how.keywords["optimizer"], 1)
        except ValueError as error:
            raise ValueError(f"{who.partition(':')[0]}.{error}") from error
    try:
        few = {n: min(1, how.keywords.get(n) or 0) for n in ("epochs", "steps")}
        if how.keywords.get("steps") is None:
            del few["steps"]
        how(network, dataset, ends, targets, objective, rng, **few)
    except FloatingPointError:  # whoever diverges says so in the run, by round and client
        return
    except Exception as error:  # anyone's network, any of torch's optimisers
        raise ValueError(
            f"{who} cannot learn from two examples: {type(error).__name__}: {error}"
        ) from error


def _tried_labels(clients: SimulatedClients) -> Labels:
    """Return the labels of a client that is under the condition; refuse one that befalls nobody."""
    condition, private = clients.condition, clients.splits.private
    ours = getattr(condition, "func", None) in (permuted_labels, label_free)
    bound = condition.keywords if ours and isinstance(condition, partial) else {}
    chosen = _chosen("clients.condition", condition, len(clients.architectures)) or [0]
    found = clients.labels(chosen[0], max(1, bound.get("from_round", 1)))
    shift, classes = bound.get("shift", 1), private.task.num_classes
    if bound and not shift % classes:
        raise ValueError(
            f"clients.condition.shift={shift}: leaves {classes} classes as they are, expected "
            f"1..{classes - 1}"
        )
    return found if len(found) else private.labels


def _chosen(key: str, function: Any, number: int) -> Sequence[int] | None:
    """Return the ids that a function of ours is for, None = all; refuse those that are nobody's."""
    is_for = function.keywords.get("clients") if isinstance(function, partial) else None
    if is_for is None or not is_ours(function.func):
        return None
    if not isinstance(is_for, Sequence) or isinstance(is_for, str) or not is_for:
        raise ValueError(f"{key}.clients={is_for}: expected a list of ids, as in [3]")
    if odd := [each for each in is_for if each not in range(number)]:
        raise ValueError(
            f"{key}.clients={list(is_for)}: there is no client {odd[0]}, expected 0..{number - 1}"
        )
    return is_for


def _require_some_label(clients: SimulatedClients) -> None:
    """Refuse a condition that leaves nobody a label, where a trainer of ours learns no more."""
    how = clients.local_training
    of_ours = is_ours(how.func if isinstance(how, partial) else how)
    if not of_ours or isinstance(clients.objective, Objective):
        return
    for server_round in LOOKED_AT:
        for client_id in range(len(clients.architectures)):
            labels = clients.labels(client_id, server_round)
            if labels.dtype.kind == "f" or bool((labels >= 0).any()):
                return
    raise ValueError(
        f"clients.condition: gives each of {len(clients.architectures)} clients {UNLABELLED}, no "
        "label, for all of its examples, in round 1 and later, so that clients.training teaches "
        "nobody anything: expected a label of somebody's"
    )


def rehearse_messenger(
    how: Messenger,
    messenger: ModelFunction,
    models: Mapping[str, ModelFunction],
    private: Dataset,
    section: str = "clients.messenger",
) -> None:
    """See that every architecture can learn with the messenger.

    Args:
        how: Rule, head and numbers.
        messenger: The messenger's model function.
        models: Model functions by architecture name.
        private: Where examples are taken from.
        section: Of the config, for errors.

    Raises:
        ValueError: Rule or head do not fit; names the key and the architecture.
    """
    for name, model in models.items():
        lesson = lesson_of(how, (model, messenger), private, np.arange(2), private.labels[:2])
        try:
            rehearse_group(lesson, private, section)
        except ValueError as error:
            raise ValueError(f"{error} (architecture '{name}')") from error


def require_like(
    student: ModelFunction, models: Mapping[str, ModelFunction], private: Dataset, strategy: str
) -> None:
    """Refuse architectures whose parameters cannot be averaged into the student's.

    Args:
        student: The student's model function.
        models: Model functions by architecture name.
        private: Gives the task.
        strategy: Name of the strategy that averages.

    Raises:
        ValueError: An architecture differs; says which and where.
    """
    rng = np.random.default_rng(0)
    wanted = parameters_of(build(student, private.task, rng))
    for name, model in models.items():
        network = build(model, private.task, rng)
        if difference := unlike(network, wanted):
            raise ValueError(
                f"{strategy} averages parameters, so all clients need the student's architecture: "
                f"set clients=same. Architecture '{name}': {difference}"
            )
