"""The contract of every condition found in conf/, and of yours: see tests/test_plugins.py."""

import numpy as np
import pytest

from clients.data.task import partly_labelled
from clients.population.plugins import CONDITION, labels_of
from clients.signatures import unoffered
from tests.federations import tiny_clients
from tests.plugins import CONDITIONS

conditions = pytest.mark.parametrize("name", CONDITIONS)


@conditions
def test_a_condition_names_what_there_is(name: str) -> None:
    assert unoffered(CONDITIONS[name], 4, CONDITION) is None


@conditions
@pytest.mark.parametrize("size", [1, 2, 60])
def test_a_condition_gives_labels_and_the_same_ones_again(name: str, size: int) -> None:
    """Whoever has how many examples, in whatever process; `labels_of` refuses what is no label."""
    private = tiny_clients().splits.private
    before, task = private.labels.copy(), partly_labelled(private.task)
    for server_round in (1, 2):
        what = CONDITIONS[name], private, task, np.arange(size), 7, 0, server_round
        one, again = labels_of(*what), labels_of(*what)
        assert len(one) == size
        np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(private.labels, before)
