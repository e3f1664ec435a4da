"""What each of Flower's strategies makes of the same replies on our grid, worked out by hand."""

from typing import Any

import numpy as np
import pytest
from flwr.serverapp import strategy
from flwr.serverapp.strategy import FedAvg

from sim.workers.pools import Pool
from tests.federations import run_foreign, vector
from tests.places import ROOT

# Foreign client k moves both coordinates of "w" by (1, 2, 4, 8, 100, 0)[k], has k + 1 examples and
# a loss of k; "same" everybody moves by D = (.1, -.2), whose norm is sqrt(.05).
CASES: dict[str, tuple[dict[str, Any], str, int, int, list[float]]] = {
    # The mean of 1, 2, 4, 8, weighted by 1, 2, 3, 4: 49 / 10.
    "FedAvg": ({}, "w", 4, 1, [4.9, 4.9]),
    "FedMedian": ({}, "w", 5, 1, [4.0, 4.0]),
    # A fifth of five goes at each end: the mean of 2, 4, 8.
    "FedTrimmedAvg": ({"beta": 0.2}, "w", 5, 1, [14 / 3, 14 / 3]),
    # One traitor: 5 - 1 - 2 = 2 nearest count; 1+9, 1+4, 4+9, 16+36, ...: the second client's.
    "Krum": ({"num_malicious_nodes": 1}, "w", 5, 1, [2.0, 2.0]),
    # ... and the two best, with 2 and 1 examples.
    "MultiKrum": ({"num_malicious_nodes": 1, "num_nodes_to_select": 2}, "w", 5, 1, [5 / 3, 5 / 3]),
    # Nobody lies, so all four are selected, and all four are near the median: their plain mean.
    "Bulyan": ({}, "w", 4, 1, [3.75, 3.75]),
    # Round 1 steps D, round 2 D + D / 2.
    "FedAvgM": ({"server_momentum": 0.5}, "same", 4, 2, [0.25, -0.5]),
    # m = D, v = D^2: .1 D / (|D| + .001).
    "FedAdagrad": ({"eta": 0.1}, "same", 4, 1, [0.01 / 0.101, -0.02 / 0.201]),
    # m = .1 D, v = .01 D^2, eta corrected by sqrt(1 - .99^2) / (1 - .9^2).
    "FedAdam": ({"eta": 0.1}, "same", 4, 1, [0.067496, -0.070710]),
    # The same m and v, but no correction: .01 D / (.1 |D| + .001).
    "FedYogi": ({"eta": 0.1}, "same", 4, 1, [0.001 / 0.011, -0.002 / 0.021]),
    # L = 2, q = 1, losses 0 and 1: gradients -2 and -4, squared norms 8 and 32; steps 0 and -4;
    # h = 8 + 2 * 0 and 32 + 2 * 1.
    "QFedAvg": (
        {"client_learning_rate": 0.5, "q": 1.0, "train_loss_key": "train-loss"},
        *("w", 2, 1, [4 / 42, 4 / 42]),
    ),
    # D clipped to a norm of .1, no noise.
    "DifferentialPrivacyServerSideFixedClipping": (
        {"strategy": FedAvg, "noise_multiplier": 0.0, "clipping_norm": 0.1,
         "num_sampled_clients": 4},
        *("same", 4, 1, [0.1 * 0.1 / 0.05**0.5, -0.2 * 0.1 / 0.05**0.5]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_a_strategy_makes_of_the_replies(everyone_pool: Pool, name: str) -> None:
    numbers, array, size, rounds, expected = CASES[name]
    given = {key: value() if value is FedAvg else value for key, value in numbers.items()}
    run = run_foreign(
        everyone_pool, getattr(strategy, name)(**given), vector(array), size, rounds=rounds
    )
    np.testing.assert_allclose(run.parameters[array], expected, rtol=1e-5)


def test_the_page_names_a_test_of_each() -> None:
    """It named a file that there was not, and for six strategies none of what they compute."""
    page = (ROOT / "docs/flower_strategies.md").read_text()
    files = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    named = {word.strip("`,.:;") for word in page.split() if word.startswith("`test_")}
    assert named <= files
    rows = [line for line in page.splitlines() if line.startswith("| ") and "test_" in line]
    told = {
        name for name in CASES for row in rows if name in row and "`test_flower_by_hand`" in row
    }
    assert told == {*CASES}
