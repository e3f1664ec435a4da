"""What a binding cap and uncovered test examples come to, by hand."""

from math import log
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord
from torch import nn

from clients.messages.arrays import write_arrays
from clients.messages.requests import node_id_of, read_request
from clients.messages.round_views import RoundView
from strategies.aggregation.scorers import max_prob
from tests.distilling import TEST, distil_round, make, reduced, reply_to


def test_a_cap_that_binds_gives_the_others_what_it_takes() -> None:
    # One is sure, two know nothing: scores 1, 1/4, 1/4 are weights 2/3, 1/6, 1/6. At most .4, the
    # others share .6 evenly; the target is .4 of the sure answer and .6 of 1/4 for each class.
    for cap, weights, first in ((1.0, (2 / 3, 1 / 6, 1 / 6), 0.75), (0.4, (0.4, 0.3, 0.3), 0.55)):
        views: list[RoundView] = []
        strategy = make(scorer=max_prob, weight_cap=cap, report=views.append)
        logits = torch.zeros(3, len(strategy.split.distilled_ids), 4)
        logits[0, :, 0] = 40.0
        distil_round(strategy, logits)
        for column in views[0].weights.T:
            assert column.tolist() == pytest.approx(weights, abs=1e-6)
        rest = (1 - first) / 3
        for row in views[0].targets:
            assert row.tolist() == pytest.approx([first, rest, rest, rest], abs=1e-6)


@pytest.mark.parametrize("summed", [False, True], ids=["answers", "sums"])
def test_a_test_example_that_nobody_covers_is_answered_wrong_and_not_in_the_loss(
    summed: bool,
) -> None:
    # 30 of 120 are not covered and all others are right: 3/4; ln((e + 3) / e) on each of those.
    strategy = make()
    grid: Any = SimpleNamespace(get_node_ids=lambda: [node_id_of(k) for k in range(3)])
    distil_round(strategy, torch.zeros(3, len(strategy.split.distilled_ids), 4))
    requests = list(strategy.configure_evaluate(1, write_arrays({}), ConfigRecord(), grid))
    assert read_request(requests[0].content).num_inputs == len(TEST) == 120
    truth = nn.functional.one_hot(torch.tensor(TEST.labels), 4).float()
    mask = torch.arange(120) >= 30
    replies = [reply_to(request, truth, mask) for request in requests]
    metrics = strategy.aggregate_evaluate(
        1, reduced(strategy, "evaluate", replies) if summed else replies
    )
    assert metrics is not None
    assert metrics["ensemble-accuracy"] == pytest.approx(0.75, abs=1e-9)
    assert metrics["ensemble-loss"] == pytest.approx(log(np.e + 3) - 1, abs=1e-6)
