"""Own-versus-proxy discriminator: how much does an input look like this client's own data?

The confidence of DLAD (Ma, Yonetani, Iqbal, ICPR 2020) in the reading of `docs/dlad.md`: the
abstract fixes that confident clients weigh more on each example; the formula is ours to choose.
The classifier is FedAUX's (Sattler et al., 2021, `fl_devices.py`): L2-regularised logistic
regression on inputs divided by their largest norm.
"""

import warnings
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

Floats = npt.NDArray[np.floating]

TOLERANCE = 1e-10
"""Largest entry of the gradient of the mean loss at which a fit is at its optimum: probabilities
are then within 1e-6 of the exact ones (tests/clients/models/test_discriminator_optimum.py).
scikit-learn's own 1e-4, with its own solver, left them .01 off on digits and .23 off on MNIST's
pixels."""

MOST_STEPS = 1000
"""FedAUX's budget. Newton's method takes 7 to 20."""


@dataclass(frozen=True)
class DiscriminatorRecipe:
    """How each client is asked to fit its discriminator.

    Attributes:
        inputs: "features" (the client's own penultimate features) or "pixels".
        balanced: Weigh own examples and negatives alike.
        l2: Strength of the L2 penalty, > 0; scikit-learn's C is 1 / l2.
        epsilon: Of FedAUX's noise on what was fitted, > 0, see `privatised`; None = there is none.
        delta: Of that noise, in (0, 1).

    Raises:
        ValueError: A value is outside its range.
    """

    inputs: str = "features"
    balanced: bool = False
    l2: Annotated[float, "> 0"] = 0.01
    epsilon: Annotated[float, "> 0"] | None = None
    delta: Annotated[float, "in (0, 1)"] = 1e-5

    def __post_init__(self) -> None:
        if self.inputs not in ("features", "pixels"):
            raise ValueError(f"inputs='{self.inputs}': expected 'features' or 'pixels'")
        if not 0 < self.l2 < np.inf:
            raise ValueError(f"l2={self.l2}: expected > 0 and finite")
        if self.epsilon is not None and not 0 < self.epsilon < np.inf:
            raise ValueError(f"epsilon={self.epsilon}: expected > 0 and finite, or null")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta={self.delta}: expected in (0, 1)")


@dataclass(frozen=True, eq=False)
class Discriminator:
    """A fitted logistic regression: coefficients [D], intercept [1], and the inputs' norm [1]."""

    coefficients: npt.NDArray[np.float64]
    intercept: npt.NDArray[np.float64]
    norm: npt.NDArray[np.float64]


def fit_discriminator(
    own: Floats, negatives: Floats, *, balanced: bool, l2: float
) -> Discriminator:
    """Fit own = 1 against negatives = 0 by (balanced) binary cross-entropy.

    Args:
        own: Features or pixels of the client's private examples [n, D].
        negatives: The same of proxy examples that are never distilled [m, D].
        balanced: Weigh both classes alike. Plain cross-entropy's odds tend to
            n p_own(x) / (m p_proxy(x)), balanced ones to p_own(x) / p_proxy(x).
        l2: Strength of the L2 penalty, > 0; scikit-learn's C is 1 / l2.

    Returns:
        The fitted discriminator, at the optimum.

    Raises:
        ValueError: There are no negatives, or the optimum was not found.
    """
    if len(negatives) == 0:
        raise ValueError("no negatives: expected strategy.proxy_split.negative_share > 0")
    # Deferred: importing scikit-learn costs 0.9 s that runs without a discriminator need not pay.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    inputs = np.concatenate([own, negatives]).astype(np.float64)
    norm = max(float(np.linalg.norm(inputs, axis=1).max()), 1e-12)
    labels = np.repeat([1, 0], [len(own), len(negatives)])
    model = LogisticRegression(
        C=1 / l2,
        class_weight="balanced" if balanced else None,
        solver="newton-cg",
        tol=TOLERANCE,
        max_iter=MOST_STEPS,
    )
    # Its libraries were just loaded and would take every core: the sum's order is part of the bits.
    with warnings.catch_warnings(), threadpool_limits(limits=torch.get_num_threads()):
        warnings.simplefilter("error", ConvergenceWarning)
        warnings.filterwarnings("error", "Line Search failed", UserWarning)
        try:
            model.fit(inputs / norm, labels)
        except (ConvergenceWarning, UserWarning) as warning:
            raise ValueError(
                f"the discriminator is not at its optimum after {MOST_STEPS} steps: raise "
                f"strategy.discriminator.l2={l2}"
            ) from warning
    return Discriminator(model.coef_[0], model.intercept_, np.array([norm]))


def privatised(
    fitted: Discriminator, examples: int, recipe: DiscriminatorRecipe, rng: np.random.Generator
) -> Discriminator:
    """Add Gaussian noise to coefficients and intercept, as FedAUX's code does; norms stay.

    sigma = sqrt(2 ln(1.25 / delta)) 2 / (n l2) / epsilon. It is no guarantee: 2 / (n l2) bounds the
    optimum of a mean of losses, while here, and there, l2 is beside their sum, of which the bound
    is 2 / l2; the intercept has no penalty, and each round fits and says anew.

    Args:
        fitted: What is noised.
        examples: n, of own examples and negatives together.
        recipe: Its `epsilon` is set.
        rng: Draws.

    Returns:
        The noised one.

    Reference: Sattler et al., "FedAUX", IEEE TNNLS 2021 (arXiv:2102.02514), and its code.
    """
    assert recipe.epsilon is not None, "else nothing is noised"
    spread = np.sqrt(2 * np.log(1.25 / recipe.delta)) * 2 / (examples * recipe.l2) / recipe.epsilon
    noise = rng.normal(scale=spread, size=len(fitted.coefficients) + 1)
    return Discriminator(
        fitted.coefficients + noise[:-1], fitted.intercept + noise[-1:], fitted.norm
    )


def own_probability(discriminator: Discriminator, inputs: Floats) -> npt.NDArray[np.float32]:
    """Return the probability in [0, 1] that each input [N, D] is the client's own [N]."""
    from scipy.special import expit  # here: a third of a second, for whoever has a discriminator

    logits = inputs.astype(np.float64) / discriminator.norm @ discriminator.coefficients
    probs: npt.NDArray[np.float64] = expit(logits + discriminator.intercept)
    return probs.astype(np.float32)
