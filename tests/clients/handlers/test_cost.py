"""The work of each message by hand."""

from functools import partial

import numpy as np
import pytest
from flwr.app import RecordDict

from clients.app import NEIGHBOURLY, SimulatedApp
from clients.handlers.cost import COUNTS, multiplications
from clients.handlers.features import feature_request
from clients.handlers.screening import fault_of
from clients.messages.arrays import write_arrays
from clients.messages.requests import RELAY, SEND_OWN, SHOW_OWN, TAKE_MIXED
from clients.models import mlp
from clients.models.discriminator import DiscriminatorRecipe
from clients.mutual import rules
from clients.mutual.from_neighbours import Digest, Transfer
from clients.mutual.messenger import Messenger
from clients.training.losses import kl
from sim.engine.grid import PoolGrid
from tests.federations import distillation, open_pool, tiny_clients
from tests.federations import run_ours as run_federation
from tests.timed import (
    EPOCHS,
    EXAMPLES,
    LINEAR,
    MLP,
    SENT,
    SGD,
    TEST,
    asking,
    drawn,
    parameters,
    profiles,
    questions,
)
from tests.watching import Noisy

# --- work ---


OWN = parameters(partial(mlp, hidden=(8,)))
FIT = {"negative_ids": np.arange(7), "recipe": DiscriminatorRecipe("features")}
PIXELS = FIT | {"recipe": DiscriminatorRecipe("pixels")}
LOCAL = 3 * EPOCHS * EXAMPLES * MLP
"""Of client 1, an MLP: three passes for an example in training."""
TAUGHT = RecordDict(
    {"targets": write_arrays({"proxy-ids": np.arange(6), "targets": np.ones((6, 4))})}
)


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("train", None, LOCAL),
        ("evaluate", None, EXAMPLES * MLP),
        ("train.predictions", questions(), LOCAL + 10 * MLP),
        ("train.predictions", questions(**FIT), LOCAL + (10 + EXAMPLES + 7) * MLP),
        ("train.predictions", questions(**PIXELS), LOCAL + 10 * MLP),
        # Fed back and of another architecture: ask it, then imitate it for two epochs.
        (
            "train.predictions",
            questions(student=SENT, digest_epochs=2),
            10 * LINEAR + 3 * 2 * 10 * MLP + LOCAL + 10 * MLP,
        ),
        # The ten are a chunk of the 24 that are distilled.
        (
            "train.predictions",
            questions(student=SENT, digest_epochs=2, digest_ids=np.arange(24)),
            24 * LINEAR + 3 * 2 * 24 * MLP + LOCAL + 10 * MLP,
        ),
        ("train.predictions", questions(student=OWN, digest_epochs=2), LOCAL + 10 * MLP),
        ("evaluate.predictions", questions(), 10 * MLP),
        ("evaluate.predictions", questions(None), TEST * MLP),
        ("train.targets", TAUGHT, 3 * 5 * 6 * MLP),
        ("train.own", None, LOCAL),
        ("train.mixed", None, LOCAL),
        ("train.received", None, 0.0),  # this strategy has none
        ("evaluate.own", None, TEST * MLP),
        ("evaluate.features", feature_request(np.arange(9)), 9 * MLP),
        ("query.own", None, 0.0),
        ("query.relay", None, 0.0),
        ("train.take", None, 0.0),
        ("evaluate.parameters", None, 0.0),
        ("train.dreams", None, 0.0),
        ("train.predictions", None, 0.0),  # cannot be read
    ],
)
def test_the_work_of_each_message_by_hand(
    kind: str, content: RecordDict | None, expected: float
) -> None:
    clients = tiny_clients(
        peer_lesson=Digest(kl, {"epochs": 5}), profile=drawn(profiles(*[1.0] * 5))
    )
    assert clients.forward == {"linear": LINEAR, "mlp": MLP, "(student)": LINEAR}
    request = asking(kind, content)
    assert multiplications(clients, request) == expected
    assert SimulatedApp(clients).multiplications(request) == expected
    assert SimulatedApp(tiny_clients()).multiplications(request) == 0.0  # nobody wants to know


def test_work_is_that_of_the_clients_own_architecture_and_examples() -> None:
    clients = tiny_clients(2, [np.arange(5), np.arange(100)])
    assert multiplications(clients, asking("train", client_id=0)) == 3 * EPOCHS * 5 * LINEAR
    assert multiplications(clients, asking("train", client_id=1)) == 3 * EPOCHS * 100 * MLP


def test_the_work_of_networks_that_learn_together() -> None:
    how = Messenger(rule=rules.dml, optimizer=SGD, epochs=4, batch_size=8)
    clients = tiny_clients(messenger=how)
    both = 3 * 4 * EXAMPLES * (MLP + LINEAR)
    for kind in ("train", "train.own", "train.mixed"):
        assert multiplications(clients, asking(kind)) == both
    assert multiplications(clients, asking("evaluate")) == EXAMPLES * LINEAR + TEST * MLP
    assert multiplications(clients, asking("evaluate.own")) == TEST * (MLP + LINEAR)
    paired = tiny_clients(peer_lesson=Transfer(how, "received"))
    assert multiplications(paired, asking("train.received")) == 3 * 4 * EXAMPLES * 2 * MLP
    assert multiplications(paired, asking("train.targets")) == 0.0


def test_every_message_that_clients_know_is_counted_or_known_to_be_free() -> None:
    free = {SEND_OWN, SHOW_OWN, TAKE_MIXED, RELAY}
    others = {"train", "evaluate", "train.predictions", "evaluate.predictions", "evaluate.features"}
    assert others | NEIGHBOURLY.keys() == COUNTS.keys() | free
    assert not COUNTS.keys() & free


# --- the run folder ---


def test_counting_work_draws_from_no_tasks_generators() -> None:
    """With a clock of any kind, or none, the bits are those of config and seed."""
    models, hashes = {"linear": Noisy}, set()
    for rule in (None, drawn(profiles(*[1000.0] * 3))):
        clients = tiny_clients(
            3, models=models, architectures=["linear"] * 3, together=False, profile=rule
        )
        with open_pool("inline", SimulatedApp(clients)) as pool:
            grid = PoolGrid(
                pool,
                clients.architectures,
                fault_of,
                group_size=3,
                profiles=clients.profiles,
            )
            hashes.add(run_federation(pool, clients, distillation(clients), grid=grid).sha256)
    assert len(hashes) == 1
