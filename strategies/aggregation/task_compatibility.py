"""Ensemble rules and tasks: what of a rule a task cannot bear is refused by name."""

from dataclasses import replace

from clients.data import Task
from strategies.aggregation.ensemble import EnsembleRule
from strategies.aggregation.scorer_compatibility import needs_probabilities


def of_task(rule: EnsembleRule, task: Task) -> EnsembleRule:
    """Return a rule as it is for answers to a task: soft labels, or numbers.

    Args:
        rule: Of the ensemble.
        task: What is predicted.

    Returns:
        The rule.

    Raises:
        ValueError: It has a temperature for numbers, discriminators of pixels for tokens, or a
            codec that rows of unlike lengths would spoil.
    """
    key = "strategy.ensemble"
    if rule.soft is not task.soft:
        rule = replace(rule, soft=task.soft)
    if not task.soft and rule.temperature != 1:
        raise ValueError(f"{key}.temperature={rule.temperature}: expected 1, numbers have none")
    told = rule.recipe
    if not task.soft and needs_probabilities(rule.confidence):
        raise ValueError(
            "strategy.discriminator: it looks at probabilities of classes, and answers to a "
            "regression are numbers: expected one that does not, such as strategy/discriminator="
            "features"
        )
    if told is not None and told.inputs == "pixels" and task.num_tokens is not None:
        raise ValueError(
            "strategy.discriminator.inputs=pixels: tokens are no pixels, expected "
            "strategy/discriminator=features"
        )
    if rule.answers == "uint8" and not task.alike:
        raise ValueError(
            f"{key}.answers=uint8: heads with fewer classes are filled up with numbers far below "
            "theirs, which 256 steps do not tell apart: expected float32 or float16"
        )
    return rule
