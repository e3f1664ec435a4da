"""Examples that ask for fields of their own: ICKD, and counts that are sent with noise."""

from dataclasses import replace
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.messages.answers import Answers
from clients.training.objective import Outputs
from tests.commands import run_py
from tests.example_runs import EXAMPLES, both_pools, imported
from tests.quick_runs import QUICK, federated

ICKD = ["--config-dir", str(EXAMPLES / "ickd"), "strategy=ickd", "clients=same_channels",
        "student=hinted", "clients.num_clients=5", "clients.training.epochs=2",
        "strategy.distil.epochs=2"]  # fmt: skip
NOISED = [
    "--config-dir",
    str(EXAMPLES / "noised_counts"),
    "strategy=noised_counts",
    *QUICK,
    "rounds=2",
]


@pytest.fixture
def ickd() -> Any:
    return imported("ickd")


@pytest.fixture
def noised() -> Any:
    return imported("noised_counts")


def maps(*channels: list[float]) -> Tensor:
    """Maps of one example of one row of pixels [1, C, 1, W]."""
    return torch.tensor([channels])[:, :, None]


def test_correlations_by_hand(ickd: Any) -> None:
    apart = ickd.correlations(maps([1.0, 0.0], [0.0, 3.0]))
    torch.testing.assert_close(apart, torch.eye(2)[None])
    # F F^T = [[2, 4], [4, 8]], whose rows are both along (1, 2).
    alike = ickd.correlations(maps([1.0, 1.0], [2.0, 2.0]))
    row = [1 / sqrt(5), 2 / sqrt(5)]
    torch.testing.assert_close(alike, torch.tensor([[row, row]]))


def test_ickds_loss_by_hand(ickd: Any) -> None:
    # Own: the identity. One teacher says the same, the other [[0, 1], [1, 0]]: |G - G_k|^2 = 4, by
    # C = 2 that is 2; with weights 1/4 and 3/4 the distance is 1.5. The logits are the targets.
    logits = torch.tensor([[0.0, 0.0]])
    outputs = Outputs(
        logits, logits, {"hint": maps([1.0, 0.0], [0.0, 3.0])}, rows=torch.tensor([1])
    )
    said = torch.stack([torch.eye(2), torch.eye(2).flip(0)])[:, None]
    anchors = {
        "correlations": torch.cat([torch.full((2, 1, 2, 2), 9.0), said], 1),
        "weights": torch.tensor([[9.0, 0.25], [9.0, 0.75]]),
    }
    loss = partial(ickd.ickd("hint", 2.0, 1.0).loss, temperature=1.0)
    targets = logits.softmax(-1)
    torch.testing.assert_close(loss(outputs, targets, anchors), torch.tensor([3.0]))
    sure = torch.tensor([[1.0, 0.0]])  # KL to (1/2, 1/2) is log 2
    torch.testing.assert_close(
        loss(outputs, sure, anchors), torch.tensor([3.0 + np.log(2)]).float()
    )


@pytest.mark.slow
def test_ickd_has_the_same_bits_on_both_pools_and_resumed_and_its_numbers_matter(
    tmp_path: Path,
) -> None:
    runs = both_pools(
        tmp_path,
        [*ICKD, "rounds=3"],
        "ickd.ickd,ickd.correlation_field,ickd.hinted",
        light="strategy.loss.weight=0",
        other="strategy.ask.correlations.tap=features.3",
        plain="strategy.loss.kl_weight=2",
    )
    assert runs["inline"]["failures"] == 0


def test_teachers_are_trusted_by_the_class_they_say(noised: Any) -> None:
    logits = torch.tensor([[[0.0, 100.0]], [[100.0, 0.0]], [[0.0, 0.0]]])
    counts = torch.tensor([[10.0, 2.0]] * 3)
    ones = torch.ones(3, 1)
    answers = Answers(
        (0, 1, 2), logits, ones > 0, None, torch.full((3,), 12.0), {}, {"class_counts": counts}
    )
    found = noised.by_class(answers, smoothing=1.0)
    assert found.tolist() == [[3.0], [11.0], [7.0]]
    few = replace(answers, num_examples=torch.full((3,), 4.0))  # who has 4 has no 10 of a class
    assert noised.by_class(few, smoothing=1.0).tolist() == [[3.0], [5.0], [4.0]]


def test_the_noise_is_laplaces_of_scale_one_over_epsilon(noised: Any) -> None:
    zeros = np.zeros(200_000)
    for epsilon in (0.5, 4.0):
        sent = noised.Laplace(epsilon).encode({"a": zeros}, rng=np.random.default_rng(0))["a"]
        assert np.abs(sent).mean() * epsilon == pytest.approx(1, rel=0.01)  # E |x| = scale
        assert np.var(sent) * epsilon**2 == pytest.approx(2, rel=0.03)
    back = noised.Laplace(1.0).decode({"a": np.array([-1.0, 2.0], np.float32)})
    assert back["a"].tolist() == [0.0, 2.0]
    with pytest.raises(ValueError, match="epsilon=0: expected > 0"):
        noised.Laplace(0)


@pytest.mark.slow
def test_noised_counts_are_the_same_on_both_pools_and_their_numbers_matter(tmp_path: Path) -> None:
    runs = both_pools(
        tmp_path,
        NOISED,
        private="strategy.ask.class_counts.codec.epsilon=0.01",
        smooth="strategy.scorer.smoothing=100",
    )
    assert runs["inline"]["failures"] == 0


def test_a_run_that_asks_for_shipped_fields_goes_on_and_nobody_elses_do(tmp_path: Path) -> None:
    words = [
        "strategy/ask=[features,class_means,class_counts]",
        "strategy.ask.features.codec=uint8",
    ]
    federated(tmp_path / "run", *words, *QUICK, "rounds=1", "checkpoint_every=1")
    again = run_py(f"resume={tmp_path / 'run'}", "rounds=2")
    assert again.returncode == 0, again.stderr
    config = tmp_path / "run" / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("clients.messages.shipped_fields.class_means", "shutil.rmtree"))
    refused = run_py(f"resume={tmp_path / 'run'}", "rounds=3")
    assert refused.returncode != 0
    assert "strategy.ask.class_means._target_=shutil.rmtree: not run" in refused.stderr
