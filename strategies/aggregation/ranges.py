"""What the numbers of a distillation strategy may be."""

import math

from clients.messages.codecs import ANSWERS


def check_ranges(
    temperature: float,
    weight_cap: float,
    fraction: float,
    digest_epochs: int,
    fallback_below: float,
    answers: str,
) -> None:
    """Refuse numbers of a distillation strategy that are out of range.

    Args:
        temperature: > 0.
        weight_cap: In (0, 1].
        fraction: In (0, 1].
        digest_epochs: >= 0.
        fallback_below: In [0, 1].
        answers: One of `clients.messages.codecs.ANSWERS`.

    Raises:
        ValueError: Names the number and what was expected.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature={temperature}: expected > 0 and finite")
    for name, value in (("weight_cap", weight_cap), ("fraction", fraction)):
        if not 0 < value <= 1:
            raise ValueError(f"{name}={value}: expected in (0, 1]")
    if not 0 <= fallback_below <= 1:
        raise ValueError(f"fallback_below={fallback_below}: expected in [0, 1]")
    if digest_epochs < 0:
        raise ValueError(f"digest_epochs={digest_epochs}: expected >= 0")
    if answers not in ANSWERS:
        raise ValueError(f"answers={answers!r}: expected one of {', '.join(ANSWERS)}")
