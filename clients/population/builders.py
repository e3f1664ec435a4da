"""Builders that know for whom they build: an architecture's tier, a client's profile.

A builder makes one network for each architecture of a process. So a tier is the architecture's, and
of a builder that names `profile` each profile that there is makes an architecture: what is cached,
batched, averaged and counted by architecture needs to know nothing of it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from clients.models.factory import ModelFunction
from clients.population.architectures import Architectures
from clients.population.profiles import Profile, Profiles
from clients.signatures import named_of

MOST_PROFILES = 64
"""Networks that stay in a process, and that are tried before anybody trains."""


def tier_of(kind: Mapping[str, Any]) -> dict[str, Any]:
    """Return an architecture's tier by its name, if it has one and its builder takes it."""
    return named_of(kind["model"], {"tier": lambda: kind["tier"]}) if "tier" in kind else {}


def builder_of(kind: Mapping[str, Any]) -> ModelFunction:
    """Return an architecture's model function, told its tier if it has one."""
    told = tier_of(kind)
    return partial(kind["model"], **told) if told else kind["model"]


def names_profile(model: ModelFunction) -> bool:
    """Tell whether a builder takes the profile of its client."""
    return bool(named_of(model, {"profile": bool}))


def one_per_profile(
    models: Mapping[str, ModelFunction],
    architectures: Architectures,
    profiles: Callable[[], Profiles | None],
) -> tuple[dict[str, ModelFunction], Architectures]:
    """Make an architecture of each profile that a builder is to know.

    Args:
        models: Model functions by the name of the architecture.
        architectures: That of each of K clients.
        profiles: Draws those of the clients; called if a builder names them.

    Returns:
        Both, in which `NAME@0`, `NAME@1`, ... have the place of an architecture whose builder names
        `profile`: for each profile one, the slowest in computing first.

    Raises:
        ValueError: There are more than `MOST_PROFILES`.
    """
    wanting = {name for name, model in models.items() if names_profile(model)}
    drawn = profiles() if wanting else None
    if drawn is None:  # a builder that has a default does without
        return dict(models), architectures
    found: dict[str, ModelFunction] = {}
    codes = np.zeros(len(architectures), dtype=np.int64)
    for code, name in enumerate(architectures.names):
        own = np.flatnonzero(architectures.codes == code)
        if name not in wanting:
            codes[own] = len(found)
            found[name] = models[name]
            continue
        kinds, which = np.unique(drawn.table[own], axis=0, return_inverse=True)
        if len(kinds) > MOST_PROFILES:
            raise ValueError(
                f"clients.architectures.{name}: its builder makes a network for each profile, and "
                f"there are {len(kinds)} of them: expected at most {MOST_PROFILES}, as "
                "clients/profile=two_speeds has"
            )
        codes[own] = len(found) + which
        for number, kind in enumerate(kinds.tolist()):
            found[f"{name}@{number}"] = partial(models[name], profile=Profile(*kind))
    unsigned: Any = np.min_scalar_type(len(found) - 1)
    return found, Architectures(tuple(found), codes.astype(unsigned))
