"""The spectral filter: who is left out, by hand, and who is not."""

import pytest
import torch
from torch import Tensor

from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.robust_combiners import spectral_filter

HONEST, LIAR = [0.9, 0.1], [0.0, 1.0]


def logits_of(*rows: list[float]) -> Tensor:
    """Teachers that say these probabilities of one example [K, 1, C]."""
    return torch.tensor([[row] for row in rows]).clamp_min(1e-9).log()


def even(teachers: int, inputs: int = 1) -> Tensor:
    return torch.full((teachers, inputs), 1 / teachers)


FIVE = logits_of(HONEST, HONEST, LIAR, HONEST, HONEST)
"""Of five the mean is (.72, .28): gaps of .18 and -.72 along (1, -1), whose variance is
2 (4 * .18**2 + .72**2) / 5 = .2592."""


def test_the_one_that_is_far_out_is_left_out() -> None:
    targets = spectral_filter(FIVE, even(5), 1.0)
    torch.testing.assert_close(targets, torch.tensor([HONEST]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("most_variance", "stays"), [(0.2591, False), (0.2593, True)])
def test_it_is_left_out_where_the_variance_is_above_the_bound(
    most_variance: float, stays: bool
) -> None:
    targets = spectral_filter(FIVE, even(5), 1.0, most_variance=most_variance)
    expected = torch.tensor([[0.72, 0.28] if stays else HONEST])
    torch.testing.assert_close(targets, expected, atol=1e-6, rtol=0)


def test_no_more_than_the_share_are_left_out() -> None:
    four = FIVE[1:]
    torch.testing.assert_close(
        spectral_filter(four, even(4), 1.0), mean_of_probs(four, even(4), 1.0)
    )
    ten = torch.cat([FIVE, FIVE])  # two liars, of whom 0.1 of ten is one
    targets = spectral_filter(ten, even(10), 1.0, share=0.1)
    expected = (8 * torch.tensor([HONEST]) + torch.tensor([LIAR])) / 9
    torch.testing.assert_close(targets, expected, atol=1e-6, rtol=0)


def test_examples_are_filtered_each_for_itself_and_weights_are_kept() -> None:
    logits = torch.cat([FIVE, FIVE.roll(1, 0)], dim=1)
    weights = even(5, 2).clone()
    weights[2, 0] = 0  # who has no weight is not there, and of four none is left out
    weights[:, 0] /= weights[:, 0].sum()
    weights[:, 1] = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.1])
    targets = spectral_filter(logits, weights, 1.0)
    torch.testing.assert_close(targets, torch.tensor([HONEST, HONEST]), atol=1e-6, rtol=0)
    assert spectral_filter(logits, torch.zeros(5, 2), 1.0).eq(0).all()


def test_of_equal_distances_the_first_goes_whatever_the_rounding() -> None:
    pair = logits_of([1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5])
    targets = spectral_filter(pair, even(5), 1.0)
    torch.testing.assert_close(targets, torch.tensor([[0.375, 0.625]]), atol=1e-6, rtol=0)


def test_a_crowd_of_honest_ones_is_found_among_many_classes() -> None:
    rng = torch.Generator().manual_seed(0)
    truth = 2 * torch.randn(1, 40, 10, generator=rng)
    honest = truth + 0.2 * torch.randn(16, 40, 10, generator=rng)
    liars = 8 * torch.nn.functional.one_hot(torch.full((4, 40), 3), 10)
    all_ = torch.cat([honest, liars.float()])
    clean = mean_of_probs(honest, even(16, 40), 1.0)
    far = [
        (f(all_, even(20, 40), 1.0) - clean).abs().mean() for f in (spectral_filter, mean_of_probs)
    ]
    assert far[0] < 0.2 * far[1]


@pytest.mark.parametrize(
    "changes", [{"share": 0.5}, {"share": -0.1}, {"most_variance": -1.0}], ids=str
)
def test_numbers_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"strategy\.combiner\.share=.*most_variance="):
        spectral_filter(FIVE, even(5), 1.0, **changes)
