"""Sections of the configuration: their names, types and defaults."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from omegaconf import MISSING


@dataclass
class Clients:
    """The population. `architectures` holds {share, model}, or {share, model, tier}, by name."""

    num_clients: Annotated[int, ">= 1"] = MISSING
    group_size: Annotated[int, ">= 1"] = 8
    together: bool = True
    architectures: dict[str, Any] = field(default_factory=dict)
    training: Any = MISSING
    messenger: Any = None
    condition: Any = None
    objective: Any = None
    view: Any = None
    codec: Any = None
    codec_down: Any = None
    shape: Any = None
    profile: Any = None


@dataclass
class Data:
    """Where examples come from, and what part of them each set gets."""

    source: Any = MISSING
    root: str | None = None
    proxy_share: Annotated[float, "in [0, 1)"] = 0.2
    proxy_source: Any = None
    proxy_condition: Any = None
    limit: Annotated[int, ">= 1, or null for all"] | None = None
    proxy_limit: Annotated[int, ">= 1, or null for all"] | None = None
    test_limit: Annotated[int, ">= 1, or null for all"] | None = None


@dataclass
class Evaluation:
    """What is measured of clients, and of their ensemble, before the last round."""

    examples: Annotated[int, ">= 0, 0 for the whole test set, or null"] | None = None


@dataclass
class Tracking:
    """What is shown of a run beside its numbers."""

    figures_every: Annotated[int, ">= 0, 0 for never"] = 20
    watch: list[Annotated[int, ">= 0"]] = field(default_factory=list)
    proxy_labels: bool | None = None


@dataclass
class Stopping:
    """When a run ends before its last round, `sim.checkpoint.early_stop`."""

    metric: str | None = None
    above: float | None = None
    below: float | None = None
    patience: Annotated[int, ">= 1"] | None = None
    mode: str = "max"


SECTIONS = {
    "clients": Clients,
    "data": Data,
    "evaluation": Evaluation,
    "stop": Stopping,
    "tracking": Tracking,
}
