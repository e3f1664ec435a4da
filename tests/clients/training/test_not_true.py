"""FedNTD's objective by hand, and what it does to training."""

import math

import numpy as np
import pytest
import torch

from clients.models.factory import load_parameters, parameters_of
from clients.training.evaluation import predict
from clients.training.losses import cross_entropy, kl
from clients.training.objective import START, Outputs, not_true
from tests.small_problems import BLOBS, fit, small_mlp


def test_not_true_by_hand() -> None:
    # Label 0 of three classes: the other two say (0, ln 3) now and (ln 3, 0) before, so q is
    # (1/4, 3/4), q0 is (3/4, 1/4), and KL(q0 || q) = 3/4 ln 3 - 1/4 ln 3.
    now = torch.tensor([[9.0, 0.0, math.log(3)]])
    before = torch.tensor([[-9.0, math.log(3), 0.0]])
    labels = torch.tensor([0])
    outputs = Outputs(now, now, others={START: Outputs(before, now)})
    found = not_true(weight=2.0).loss(outputs, labels, {})
    expected = float(cross_entropy(now, labels)) + 2 * math.log(3) / 2
    assert float(found) == pytest.approx(expected, abs=1e-6)
    # At T = 2, now ln 3 is halved: (1, sqrt 3) / (1 + sqrt 3), and T**2 = 4 counts if it is asked.
    p = math.sqrt(3) / (1 + math.sqrt(3))
    term = (2 * p - 1) * math.log(3) / 2
    for scaled, factor in ((True, 4), (False, 1)):
        warm = not_true(1.0, 2.0, scale_by_t2=scaled).loss(outputs, labels, {})
        found = float(warm) - float(cross_entropy(now, labels))
        assert found == pytest.approx(factor * term, abs=1e-6)


def test_not_true_leaves_out_the_label_wherever_it_is() -> None:
    rng = torch.Generator().manual_seed(0)
    now, before = torch.randn(2, 5, 4, generator=rng)
    labels = torch.tensor([0, 1, 2, 3, 3])
    found = not_true().loss(Outputs(now, now, others={START: Outputs(before, now)}), labels, {})
    for k, label in enumerate(labels.tolist()):
        rest = [c for c in range(4) if c != label]
        q0 = before[k, rest].softmax(-1)[None]
        expected = cross_entropy(now[k][None], labels[k][None]) + kl(now[k, rest][None], q0, 1.0)
        assert float(found[k]) == pytest.approx(float(expected), abs=1e-6)


def test_what_is_said_of_other_classes_is_kept_the_more_the_more_it_weighs() -> None:
    start = small_mlp()
    fit(start, epochs=3)
    labels = torch.tensor(BLOBS.labels[:60])

    def lost(weight: float) -> float:
        model = small_mlp()
        load_parameters(model, parameters_of(start))
        fit(model, epochs=10, loss=not_true(weight))
        now, before = (predict(each, BLOBS, np.arange(60)) for each in (model, start))
        outputs = Outputs(now, now, others={START: Outputs(before, now)})
        far = not_true().loss(outputs, labels, {}) - cross_entropy(now, labels)
        return float(far.mean())

    distances = [lost(weight) for weight in (0.0, 0.3, 1.0)]
    assert distances == sorted(distances, reverse=True)
    assert distances[2] < 0.5 * distances[0]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"weight": -1.0}, r"objective\.weight=-1\.0: expected >= 0"),
        ({"temperature": 0.0}, r"objective\.temperature=0\.0: expected > 0"),
    ],
)
def test_numbers_out_of_range_are_named(numbers: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        not_true(**numbers)
