"""Mutual transfer between pairs: which network a receiver goes on with."""

from typing import Any

import numpy as np
import pytest
import torch

from clients.models import logistic_regression
from clients.models.factory import parameters_of
from clients.mutual import rules
from clients.mutual.messenger import Messenger, Pair, learn_together
from sim.topology import graphs
from tests.federations import SEED, inline, student_of, tiny_clients
from tests.peers import SGD, alike, arrays_in, pair_learning, played, topology, transfer

# --- parameters over graphs ---


@pytest.mark.parametrize("keep", ["received", "own", "mean"])
def test_a_receiver_goes_on_with_the_network_that_was_asked_for(keep: Any) -> None:
    clients = alike(2)
    strategy = transfer(clients, keep=keep)
    run = played(inline(None), clients, strategy, 1)
    matrix = strategy._meeting.neighbours.mixing(1).tocoo()
    (receiver,), (sender,) = matrix.row.tolist(), matrix.col.tolist()
    begun = parameters_of(student_of(clients))
    tuned = next(
        clients.train([sender], [{k: torch.tensor(v) for k, v in begun.items()}], 1, "cpu")
    )
    assert not isinstance(tuned, Exception)
    models = (logistic_regression, logistic_regression)
    how = pair_learning()
    pair, _ = learn_together(
        how, models, Pair(begun, tuned.parameters, None), clients.splits.private,
        clients.partitions[receiver], clients.labels(receiver, 1), SEED, (1, receiver),
    )  # fmt: skip
    expected = {
        "own": pair.private,
        "received": pair.messenger,
        "mean": {k: (v + pair.messenger[k]) / 2 for k, v in pair.private.items()},
    }[keep]
    for name, value in arrays_in(run, receiver).items():
        np.testing.assert_array_equal(value, expected[name])
    for name, value in arrays_in(run, sender).items():
        np.testing.assert_array_equal(value, tuned.parameters[name])


# --- what is reported, and what is refused ---


def test_mutual_transfer_is_between_pairs_of_one_architecture() -> None:
    with pytest.raises(ValueError, match=r"peer 0 has several neighbours in round 1.*matchings"):
        transfer(alike(), mixing=topology(graphs.ring).mixing)
    with pytest.raises(ValueError, match="averages parameters"):
        transfer(tiny_clients())
    with pytest.raises(ValueError, match=r"strategy\.how\.rule: .*'fusion'"):
        transfer(alike(), how=Messenger(rule=rules.ffl, optimizer=SGD, epochs=1, batch_size=8))
    with pytest.raises(ValueError, match=r"strategy\.keep=both"):
        transfer(alike(), keep="both")
