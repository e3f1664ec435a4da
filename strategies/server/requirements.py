"""What of a config a strategy cannot do without, and what it would not look at."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from clients.data import Dataset
from clients.duck_typing import told
from clients.handlers.answers_by_field import rehearse_fields
from clients.messages.own_probs import confidence
from clients.models.confidence import require_confidence
from clients.models.factory import build
from clients.population.clients import SimulatedClients
from clients.population.rehearsal import require_like
from clients.training.evaluation import predict_with_features
from clients.training.losses import cross_entropy
from clients.training.objective import Objective, proximal
from strategies.argument_injection import wants
from strategies.server.averaging import Averaging
from strategies.server.codec_requirements import require_codec, require_codec_down
from strategies.server.configured_strategies import kinds, partials


def require_fitting(
    strategy: Any,
    clients: SimulatedClients,
    student_workers: int,
    topology: bool,
    availability: Mapping[str, Any],
    student_threads: int | None = None,
) -> None:
    """Refuse a strategy, ours or Flower's, that the rest of the config does not fit.

    Args:
        strategy: Complete, or with some of its arguments bound.
        clients: All of the federation's.
        student_workers: Of the config.
        topology: Whether the config has one.
        availability: Of the config.
        student_threads: Of the config.

    Raises:
        ValueError: Says which option, and what it needs.
    """
    require_distil(strategy, student_workers, clients.messenger is not None)
    if student_threads is not None and not wants(strategy, "student_threads"):
        raise ValueError(
            f"student_threads={student_threads}: this strategy has no student that is distilled "
            "into (strategy.distil); leave it out"
        )
    if student_threads is not None and student_workers > 1:
        raise ValueError(
            f"student_threads={student_threads}: with student_workers={student_workers} the "
            "student learns in other processes, with sim.threads each; take one of the two"
        )
    require_topology(strategy, topology, availability)
    if clients.codec is not None:
        require_codec(strategy, clients)
    if clients.codec_down is not None:
        require_codec_down(strategy, clients)
    if isinstance(strategy, partial) and isinstance(ask := strategy.keywords.get("ask"), Mapping):
        rehearse_fields(clients, ask)
    for each in partials(strategy):
        function = each.keywords.get("discriminator")
        if getattr(function, "inputs", "") == "features":
            require_features(clients)
        if callable(function):
            require_confidence(function)
            two = np.arange(min(2, len(clients.splits.proxy)))
            known = {"discriminator": confidence(function)}
            rehearse_fields(clients, known, "strategy", two)
    kind = strategy.func if isinstance(strategy, partial) else type(strategy)
    if clients.shape is not None:
        require_any_shape(strategy)
    if any(getattr(each, "of_classes", False) for each in kinds(strategy)):
        require_classes(clients.splits.private, kind.__name__)
    if any(getattr(each, "own_objective", False) for each in kinds(strategy)):
        clients.goal(cross_entropy)  # refuses another
    if isinstance(mu := told(strategy, "proximal_mu"), int | float):  # Flower looks at neither
        try:
            proximal(mu, clients.objective)
        except ValueError as error:
            raise ValueError(f"strategy.{error}") from error
    for each in kinds(strategy):
        if hasattr(each, "require_clients"):
            each.require_clients(clients)
    require_enough(strategy, len(clients.architectures))
    averages = isinstance(strategy, Averaging) or type(strategy).__module__.startswith("flwr.")
    if (averages or getattr(kind, "averages", False)) and clients.messenger is None:
        private, name = clients.splits.private, kind.__name__
        require_like(clients.student, clients.models, private, name)


def require_enough(strategy: Any, num_clients: int) -> None:
    """Refuse one of Flower's that would wait for more clients than there are, and says so late.

    Or one that it wraps; ours wait for nobody. ValueError names the key.
    """
    key = "strategy"
    while strategy is not None and not isinstance(strategy, Averaging):
        for phase in ("train", "evaluate"):
            for name in (f"min_{phase}_nodes", "min_available_nodes"):
                least = getattr(strategy, name, 0)
                if least > num_clients and getattr(strategy, f"fraction_{phase}", 1):
                    raise ValueError(
                        f"{key}.{name}={least}: it would wait for more clients than "
                        f"clients.num_clients={num_clients}; Flower's own default is 2"
                    )
        strategy, key = getattr(strategy, "strategy", None), f"{key}.strategy"


def require_features(clients: SimulatedClients) -> None:
    """Refuse networks that have no penultimate features where discriminators are of these.

    Args:
        clients: All of the federation's.

    Raises:
        ValueError: Names the architecture, and the key that does without.
    """
    private = clients.splits.private
    for name, model in clients.models.items():
        network = build(model, private.task, np.random.default_rng(0))
        try:
            predict_with_features(network, private, np.arange(1))
        except ValueError as error:
            raise ValueError(
                f"strategy.discriminator: architecture '{name}': {error}; or "
                "strategy/discriminator=pixels"
            ) from error


def require_any_shape(strategy: Any) -> None:
    """Refuse a strategy that looks at parameters where networks have shapes of their own.

    Args:
        strategy: Complete, or with some of its arguments bound.

    Raises:
        ValueError: Names the one that does.
    """
    for kind in kinds(strategy):
        if not getattr(kind, "any_shape", False):
            raise ValueError(
                f"clients.shape: {kind.__name__} goes by clients' parameters, which then have no "
                "common shape: expected a strategy that goes by what they answer, such as "
                "strategy=distillation or strategy=gossip; one of yours says so by "
                "`any_shape = True`"
            )


def require_classes(private: Dataset, who: str) -> None:
    """Refuse another task where one class of each input is learned; ValueError names both."""
    if not private.task.one_class_each:
        raise ValueError(
            f"{who} learns one class of each input, and that of {private.name} is "
            f"{private.task.name}: expected a classification"
        )


def require_distil(strategy: object, student_workers: int, messenger: bool) -> None:
    """Refuse options that a strategy would not look at.

    Args:
        strategy: The strategy, or a partial of one of ours that distils.
        student_workers: Of the config.
        messenger: Whether clients have a messenger.

    Raises:
        ValueError: Says which option, and what it needs.
    """
    ours = strategy.keywords if isinstance(strategy, partial) else None
    if messenger and isinstance(strategy, partial) and not wants(strategy, "messenger"):
        raise ValueError(
            "clients.messenger: needs a strategy that averages parameters: set strategy=averaging, "
            "or one of Flower's, such as fedavg or fedadam"
        )
    serverless = wants(strategy, "mixing")
    if student_workers > 1 and (serverless or (ours or {}).get("distil") is None):
        cure = "peers are spread by sim.peer_workers" if "rule" in (ours or {}) else "leave it out"
        raise ValueError(
            f"student_workers={student_workers}: this strategy has no student that is distilled "
            f"into (strategy.distil); {cure}"
        )
    if student_workers > 1 and isinstance((ours or {}).get("loss"), Objective):
        raise ValueError(
            f"student_workers={student_workers}: strategy.loss is an objective, which several "
            "workers cannot share; expected a loss of logits"
        )
    split = (ours or {}).get("proxy_split")
    if student_workers > 1 and isinstance(split, partial) and split.keywords.get("chunks", 1) > 1:
        raise ValueError(
            f"student_workers={student_workers}: with strategy.proxy_split.chunks > 1 the workers "
            "answer while the student learns; take one of the two"
        )


def require_topology(strategy: Any, there: bool, availability: Mapping[str, Any]) -> None:
    """Refuse a graph that nobody looks at, and none where one is needed.

    Args:
        strategy: Complete, or with some of its arguments bound.
        there: Whether the config has a topology.
        availability: Of the config.

    Raises:
        ValueError: Says what to set.
    """
    if there and not wants(strategy, "mixing"):
        raise ValueError("topology: this strategy has a server; strategy=gossip has none")
    faults = [key for key, value in availability.items() if key.endswith("probability") and value]
    if faults and not wants(strategy, "availability"):
        raise ValueError(
            f"availability.{faults[0]}: this strategy has a server, which looks at none"
        )
    if not there and wants(strategy, "availability"):
        raise ValueError("topology=none: peers without a server need one, such as topology=ring")
