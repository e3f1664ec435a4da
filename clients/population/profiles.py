"""How fast each simulated client computes, sends and receives: what the virtual clock goes by.

A rule draws profiles from the population's size and a stream of its own; nothing else depends on
them. Speeds count multiplications of training and inference as they run, not a chip's peak.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Profiles:
    """Speed and link of each of K clients.

    Attributes:
        multiplications_per_s: How fast each computes [K], > 0.
        download_bytes_per_s: How fast each receives [K], > 0.
        upload_bytes_per_s: How fast each sends [K], > 0.
        latency_s: How long a message is on its way, one way, whatever its size [K], >= 0 and
            finite.

    Raises:
        ValueError: A number is out of range, or the arrays have not one number for each client.
    """

    multiplications_per_s: Floats
    download_bytes_per_s: Floats
    upload_bytes_per_s: Floats
    latency_s: Floats

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            values = getattr(self, name)
            if np.shape(values) != (len(self),):
                raise ValueError(
                    f"clients.profile: {name} has shape {np.shape(values)}, expected ({len(self)},)"
                )
            latency = name == "latency_s"
            good = (values >= 0) & (values < np.inf) if latency else values > 0
            if not np.all(good):
                odd = int(np.flatnonzero(~good)[0])
                expected = ">= 0 and finite" if latency else "> 0"
                raise ValueError(
                    f"clients.profile.{name}={values[odd]} of client {odd}: expected {expected}"
                )

    def __len__(self) -> int:
        return len(self.multiplications_per_s)

    @property
    def table(self) -> Floats:
        """One client's numbers in each row [K, 4], as `Profile` has them."""
        return np.stack([getattr(self, name) for name in Profile._fields], axis=1)


class Profile(NamedTuple):
    """Speed and link of one client; its numbers as in `Profiles`."""

    multiplications_per_s: float
    download_bytes_per_s: float
    upload_bytes_per_s: float
    latency_s: float


ProfileRule = Callable[[int, np.random.Generator], Profiles]
"""(number of clients K, source of randomness) -> their profiles."""


def draw_profiles(
    rule: ProfileRule | None, num_clients: int, rng: np.random.Generator
) -> Profiles | None:
    """Draw the profiles of a federation.

    Args:
        rule: How; None = there is no clock.
        num_clients: K.
        rng: Source of randomness.

    Returns:
        What the rule returns, or None.

    Raises:
        ValueError: It returns something else, or profiles of another number of clients.
    """
    if rule is None:
        return None
    found = rule(num_clients, rng)
    if not isinstance(found, Profiles):
        raise ValueError(
            f"clients.profile: the rule returned {type(found).__name__}, expected "
            "clients.population.profiles.Profiles"
        )
    if len(found) != num_clients:
        raise ValueError(f"clients.profile: {len(found)} profiles for {num_clients} clients")
    return found


def alike(
    num_clients: int,
    rng: np.random.Generator,
    *,
    multiplications_per_s: Annotated[float, "> 0"],
    download_bytes_per_s: Annotated[float, "> 0"],
    upload_bytes_per_s: Annotated[float, "> 0"],
    latency_s: Annotated[float, ">= 0, finite"],
) -> Profiles:
    """Give all clients one profile.

    Args:
        num_clients: K.
        rng: Not drawn from.
        multiplications_per_s: > 0.
        download_bytes_per_s: > 0.
        upload_bytes_per_s: > 0.
        latency_s: One way, >= 0.

    Returns:
        The profiles.
    """
    numbers = (multiplications_per_s, download_bytes_per_s, upload_bytes_per_s, latency_s)
    return Profiles(*(np.full(num_clients, float(number)) for number in numbers))


def two_speeds(
    num_clients: int,
    rng: np.random.Generator,
    *,
    slow_share: Annotated[float, "in [0, 1]"],
    slowdown: Annotated[float, ">= 1, finite"],
    multiplications_per_s: Annotated[float, "> 0"],
    download_bytes_per_s: Annotated[float, "> 0"],
    upload_bytes_per_s: Annotated[float, "> 0"],
    latency_s: Annotated[float, ">= 0, finite"],
) -> Profiles:
    """Make some clients slower than the others, in computing and on their link alike.

    Args:
        num_clients: K.
        rng: Says who is slow.
        slow_share: Of the clients, in [0, 1]; their number is rounded, halves to even.
        slowdown: By which factor, >= 1.
        multiplications_per_s: Of the fast ones, > 0.
        download_bytes_per_s: Likewise.
        upload_bytes_per_s: Likewise.
        latency_s: Of all, one way, >= 0.

    Returns:
        The profiles.
    """
    factors = np.ones(num_clients)
    factors[rng.permutation(num_clients)[: round(slow_share * num_clients)]] = 1 / slowdown
    return Profiles(
        factors * multiplications_per_s,
        factors * download_bytes_per_s,
        factors * upload_bytes_per_s,
        np.full(num_clients, float(latency_s)),
    )


def lognormal(
    num_clients: int,
    rng: np.random.Generator,
    *,
    spread: Annotated[float, "in [0, 10]"],
    multiplications_per_s: Annotated[float, "> 0"],
    download_bytes_per_s: Annotated[float, "> 0"],
    upload_bytes_per_s: Annotated[float, "> 0"],
    latency_s: Annotated[float, ">= 0, finite"],
) -> Profiles:
    """Draw speeds whose logarithms are normal; how a client computes says nothing of its link.

    Args:
        num_clients: K.
        rng: Source of two numbers a client: of its speed, and of its link in both directions.
        spread: Standard deviation of the natural logarithm, >= 0: two clients of three are within
            a factor of exp(spread) of the median.
        multiplications_per_s: The median, > 0.
        download_bytes_per_s: Likewise.
        upload_bytes_per_s: Likewise.
        latency_s: Of all, one way, >= 0.

    Returns:
        The profiles.
    """
    speeds, links = np.exp(spread * rng.standard_normal((2, num_clients)))
    return Profiles(
        speeds * multiplications_per_s,
        links * download_bytes_per_s,
        links * upload_bytes_per_s,
        np.full(num_clients, float(latency_s)),
    )
