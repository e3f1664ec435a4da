"""Objectives of students and of peers without a server: more than a loss of logits."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.models.factory import parameters_of
from clients.training.losses import kl
from clients.training.objective import START, Objective, Outputs, proximal
from sim.topology import graphs
from strategies.server.distillation import DistillationStrategy
from strategies.server.requirements import require_distil
from tests.distilling import bits, distil_round, make, random_logits
from tests.federations import inline, tiny_clients
from tests.peers import gossip, played, states, topology


def as_kl(outputs: Outputs, targets: Tensor, anchors: Any, temperature: float) -> Tensor:
    """What `kl` is, with a look at everything else."""
    assert outputs.features().shape[0] == len(targets)
    assert outputs.of(START).logits.shape == targets.shape
    return kl(outputs.logits, targets, temperature)


def squared_distance(parameters: Any, anchors: Any) -> Tensor:
    return 10 * sum((p - anchors[START][name]).square().sum() for name, p in parameters.items())


WHOLE = Objective(as_kl, taps=("penultimate",), networks=(START,))
PULLED = replace(WHOLE, penalty=squared_distance)


def test_a_student_minimises_an_objective_at_the_ensembles_temperature() -> None:
    ends, moved = {}, {}
    for name, loss in {"kl": kl, "whole": WHOLE, "pulled": PULLED}.items():
        strategy = make(loss=loss, temperature=3.0)
        first = parameters_of(strategy.student)
        distil_round(strategy, random_logits(strategy, 3))
        ends[name] = bits(strategy.student)
        after = parameters_of(strategy.student)
        moved[name] = sum(float(np.square(after[key] - first[key]).sum()) for key in first)
    assert ends["whole"] == ends["kl"]
    assert moved["pulled"] < 0.2 * moved["kl"]  # it is drawn to what it was at the start


def test_peers_without_a_server_minimise_an_objective() -> None:
    def end(loss: Any) -> dict[int, Any]:
        clients = tiny_clients(4, together=False)
        return states(played(inline(None), clients, gossip(clients, ring, loss=loss), 2), 4)

    ring = topology(graphs.ring, n=4)
    plain, whole, pulled = end(kl), end(WHOLE), end(PULLED)
    assert whole == plain
    assert all(pulled[k] != plain[k] for k in plain)


def test_a_trainer_of_the_student_that_knows_losses_only_is_refused() -> None:
    def plain_loop(*what: Any) -> list[float]:
        return []

    with pytest.raises(ValueError, match=r"strategy\.distil: plain_loop takes no objectives"):
        make(distil=plain_loop, loss=WHOLE)


def test_a_student_that_cannot_learn_by_an_objective_is_refused() -> None:
    with pytest.raises(ValueError, match=r"strategy\.distil: the student .* tap 'nose'"):
        make(loss=replace(WHOLE, taps=("nose",)))


def test_an_objective_needs_the_whole_lesson() -> None:
    with pytest.raises(ValueError, match=r"strategy\.proxy_split\.chunks=2: expected 1 where"):
        make(loss=WHOLE, chunks=2)


def test_ours_can_be_pulled_to_where_a_lesson_began() -> None:
    def end(loss: Any) -> Any:
        strategy = make(loss=loss, temperature=3.0)
        distil_round(strategy, random_logits(strategy, 3))
        return bits(strategy.student)

    assert end(proximal(0.0, kl)) == end(kl) != end(proximal(1.0, kl))


def test_several_workers_cannot_share_an_objective() -> None:
    strategy = partial(DistillationStrategy, distil=torch.nn.Identity(), loss=WHOLE)
    with pytest.raises(ValueError, match="student_workers=2: strategy.loss is an objective"):
        require_distil(strategy, 2, False)
