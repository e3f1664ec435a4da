"""Which scorers go with which discriminators and tasks, as the scorers themselves say."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from clients.models.confidence import Confidence
from clients.models.discriminator import DiscriminatorRecipe
from strategies.aggregation.streaming import Scorer

Marked = TypeVar("Marked", bound=Callable[..., Any])


def for_discriminators(balanced: bool | None = None, why: str = "") -> Callable[[Scorer], Scorer]:
    """Say of a scorer which discriminators it was derived for.

    Args:
        balanced: What they must be; None = either.
        why: And what to do with the others; ends the message that refuses them.

    Returns:
        The decorator; it leaves the function as it is.
    """

    def say(scorer: Scorer) -> Scorer:
        scorer.__dict__["for_discriminators"] = (balanced, why)
        return scorer

    return say


def of_probabilities(scorer: Marked) -> Marked:
    """Say of a scorer that it takes the softmax of answers for what a client believes."""
    scorer.__dict__["of_probabilities"] = True
    return scorer


def needs_probabilities(scorer: Any) -> bool:
    """Tell whether a scorer, or what it is a partial of, says so."""
    rule = scorer.func if isinstance(scorer, partial) else scorer
    return getattr(rule, "of_probabilities", False)


def require_pairs(
    pairs: Iterable[tuple[str, Scorer, DiscriminatorRecipe | Confidence | None]],
) -> None:
    """Refuse as `require_discriminator` does; each pair comes with its key before it."""
    for key, scorer, recipe in pairs:
        require_discriminator(scorer, recipe, key)


def require_discriminator(
    scorer: Any, recipe: DiscriminatorRecipe | Confidence | None, key: str
) -> None:
    """Refuse a scorer and a discriminator that do not belong together.

    Args:
        scorer: The function, or a partial of it; one that says nothing goes with anything.
        recipe: How clients fit discriminators, or what stands in their place, which goes with any
            scorer that wants one; None = they do not.
        key: Of the config, that has `scorer` and `discriminator` below it.

    Raises:
        ValueError: Names both keys and what goes together.
    """
    rule = scorer.func if isinstance(scorer, partial) else scorer
    said = getattr(rule, "for_discriminators", None)
    if said is None:
        return
    (balanced, why), name = said, getattr(rule, "__name__", type(rule).__name__)
    if recipe is None:
        raise ValueError(
            f"{key}.scorer={name} needs each client's discriminator, and {key}.discriminator is "
            "none: set strategy/discriminator=features or strategy/discriminator=pixels"
        )
    if not isinstance(recipe, DiscriminatorRecipe):
        return
    if balanced is not None and recipe.balanced is not balanced:
        raise ValueError(
            f"{key}.scorer={name} goes with {key}.discriminator.balanced={str(balanced).lower()}, "
            f"found {str(recipe.balanced).lower()}: {why}"
        )
