"""What the student knew and knows no more, after a resume too."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sim.analysis.probes import Every, Forgetting, trust
from tests.views import labelled, sure_of


def test_forgetting_by_hand_and_after_a_resume() -> None:
    probe = Forgetting()
    first = probe(labelled())
    assert first["student_lost_recall"] == pytest.approx(1 / 3)  # recalls (1, 0, 1) to (1, 1, 0)
    assert np.isnan(first["lost_recall"].values).all()
    assert np.isnan(first["forgetting"].values).all()
    # The first client from (1, 1, .5) to (0, 1, 1), and then to (1, 0, 1).
    second, third = (
        labelled(**{"teachers": replace(
            labelled().teachers,
            logits=torch.stack([sure_of(votes), sure_of([1, 2, 0, 2])]),
        )})
        for votes in ([1, 1, 2, 2], [0, 0, 2, 2])
    )  # fmt: skip
    after = probe(second)
    assert after["lost_recall"].values.tolist() == pytest.approx([1 / 3, 0])
    assert after["forgetting"].values.tolist() == pytest.approx([(1 + 0 - 0.5) / 3, 0])
    resumed = Forgetting()
    resumed.restore(probe.state())
    for last in (probe(third), resumed(third)):
        assert last["lost_recall"].values.tolist() == pytest.approx([1 / 3, 0])
        assert last["forgetting"].values.tolist() == pytest.approx([(0 + 1 + 0) / 3, 0])
    assert Forgetting().state() == {}


def test_recalls_of_different_examples_are_not_compared() -> None:
    probe, seen = Forgetting(), labelled()
    probe(seen)
    gap = torch.tensor([[True, True, True, False], [True] * 4])
    between = probe(replace(seen, teachers=replace(seen.teachers, mask=gap)))
    assert np.isnan(between["forgetting"].values[0])
    assert np.isnan(between["lost_recall"].values[0])
    assert between["forgetting"].values[1] == 0
    after = probe(seen)  # against the first round, as if there had been no other
    assert after["forgetting"].values.tolist() == [0, 0]
    assert after["lost_recall"].values.tolist() == [0, 0]


def test_a_probe_that_is_asked_now_and_then_keeps_its_memory_in_a_resume() -> None:
    probe = Every(rounds=2, probe=Forgetting())
    probe(labelled())
    resumed = Every(rounds=2, probe=Forgetting())
    resumed.restore(probe.state())
    assert resumed(labelled(server_round=2)) == {}
    assert resumed(labelled(server_round=3))["forgetting"].values.tolist() == [0, 0]
    assert Every(rounds=2, probe=trust).state() == {}
