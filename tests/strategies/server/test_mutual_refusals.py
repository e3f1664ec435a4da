"""What the mutual strategy refuses before anybody trains, and what ends its run."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clients.models import mlp
from clients.mutual import group_heads, rules
from clients.mutual.terms import Terms
from clients.training.loop import train
from strategies.server.distillation import DistillationStrategy
from strategies.server.mutual import MutualStrategy
from strategies.server.requirements import require_distil
from tests.federations import inline, run_ours, simulated, tiny_clients
from tests.mutual_learning import mutual, run


def normed(image_shape: Any, num_classes: int) -> nn.Module:
    size = int(np.prod(image_shape))
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(size), nn.Linear(size, num_classes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peers": "everybody"}, "^strategy.peers=everybody"),
        ({"most_peers": 0}, "^strategy.most_peers=0"),
        (
            {"update": "bogus"},
            "^strategy.teaching.update=bogus: expected simultaneous or sequential",
        ),
        (
            {"taps": {"resnet": "layer3"}},
            r"^strategy\.teaching\.taps\.resnet: no such peer; .* linear, mlp",
        ),
        (
            {"rule": rules.dml, "head": None, "taps": {"mlp": "hidden"}},
            r"^strategy\.teaching\.taps: nobody looks at features where there is no head",
        ),
        ({"models": {"head": mlp}}, r"^clients\.architectures\.head: among peers the head itself"),
        (
            {"batch_size": 1},
            r"^strategy\.teaching\.batch_size=1: the head cannot learn from a batch of one",
        ),
        (
            {"batch_size": 1, "rule": rules.dml, "head": None, "models": {"linear": normed}},
            r"^strategy\.teaching\.batch_size=1: peer 'linear' cannot learn from a batch of one",
        ),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"chunks": 2}, r"^strategy\.proxy_split\.chunks=2: expected 1, this strategy needs"),
        (
            {"taps": {"mlp": "nose"}},
            r"strategy\.teaching\.taps: peer 'mlp': tap 'nose': .* has only",
        ),
        ({"head": None}, r"strategy\.rule: ValueError: the rule 'ffl' needs a head: 'fusion'"),
        ({"head": group_heads.Gate}, r"strategy\.rule: RuntimeError"),
        (
            {"head": lambda shapes, num_classes: nn.Flatten()},
            r"^strategy\.teaching\.head_optimizer: the head: no parameter requires a gradient",
        ),
        ({"rule": rules.dml}, r"strategy\.head: the rule does not look at it"),
        ({"rule": rules.codistillation, "head": None}, r"strategy\.rule: .* set refresh_epochs"),
        ({"rule": rules.adaptive_mutual, "head": None}, r"strategy\.rule: .* expected 2"),
        ({"head": partial(group_heads.Fusion, channels=0)}, r"strategy\.head: "),
        ({"rule": lambda *given: Terms([given[0].logits[0]]), "head": None}, "expected a scalar"),
        (
            {"optimizer": partial(torch.optim.Muon, lr=0.1)},
            r"strategy\.teaching\.optimizer: peer 'linear': Val.*Muon",
        ),
        (
            {"head_optimizer": torch.optim.LBFGS},
            r"strategy\.teaching\.head_optimizer: the head: Type.*clos",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anybody_trains(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mutual(tiny_clients(), **changes)


def test_batches_of_one_are_learnt_from_where_nobody_has_batch_norm() -> None:
    clients = tiny_clients()
    strategy = mutual(clients, batch_size=1, rule=rules.dml, head=None, epochs=1)
    result = run_ours(inline(simulated(clients)), clients, strategy, 1)
    assert result.reports[0].train["peer-loss-mlp"] > 0


@pytest.mark.parametrize(
    ("offered", "workers", "messenger", "message"),
    [
        ({"distil": train}, 1, True, "clients.messenger: needs .*set strategy=averaging, or one"),
        ({"rule": rules.dml}, 2, False, "student_workers=2: .*spread by sim.peer_workers"),
        ({}, 2, False, "student_workers=2: .*leave it out"),
    ],
)
def test_options_that_a_strategy_would_not_look_at_come_with_a_cure(
    offered: Any, workers: int, messenger: bool, message: str
) -> None:
    strategy: Any = DistillationStrategy if "distil" in offered else MutualStrategy
    with pytest.raises(ValueError, match=message):
        require_distil(partial(strategy, **offered), workers, messenger)


def test_a_peer_whose_loss_is_not_finite_ends_the_run_with_its_name() -> None:
    with pytest.raises(FloatingPointError, match=r"student, round 1: peer '"):
        run("inline", 1, optimizer=partial(torch.optim.SGD, lr=1e30))
