"""The work of each message by hand."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from clients.app import SimulatedApp
from clients.handlers.feature_probes import feature_request
from clients.handlers.peer_targets import train_targets
from clients.handlers.transfer import train_received
from clients.messages.arrays import write_arrays
from clients.models import mlp
from clients.models.discriminator import DiscriminatorRecipe
from clients.mutual import rules
from clients.mutual.messenger import Messenger
from clients.population.clients import SimulatedClients
from clients.training.losses import kl
from sim.engine.grid import PoolGrid
from tests.federations import HANDLERS, distillation, open_pool, simulated, tiny_clients
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


def multiplications(clients: SimulatedClients, request: Message, *more: Any) -> float:
    """Count by the handlers that need no numbers, and by more."""
    clients.profiles = profiles(*[1.0] * len(clients.partitions))
    return SimulatedApp(clients, [*HANDLERS, *more]).multiplications(request)


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
        ("train.received", None, 0.0),  # nobody answers it
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
    clients = tiny_clients(profile=drawn(profiles(*[1.0] * 5)))
    assert clients.forward == {"linear": LINEAR, "mlp": MLP, "(student)": LINEAR}
    request = asking(kind, content)
    assert multiplications(clients, request, train_targets(kl, {"epochs": 5})) == expected
    assert simulated(tiny_clients()).multiplications(request) == 0.0  # nobody wants to know


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
    asked, paired = asking("train.received"), train_received(how, "received")
    assert multiplications(tiny_clients(), asked, paired) == 3 * 4 * EXAMPLES * 2 * MLP


def test_only_messages_that_send_take_or_relay_are_free() -> None:
    free = {each.kind for each in HANDLERS if each.multiplications is None}
    assert free == {"query.own", "evaluate.parameters", "train.take", "query.relay"}


# --- the run folder ---


def test_counting_work_draws_from_no_tasks_generators() -> None:
    """With a clock of any kind, or none, the bits are those of config and seed."""
    models, hashes = {"linear": Noisy}, set()
    for rule in (None, drawn(profiles(*[1000.0] * 3))):
        clients = tiny_clients(
            3, models=models, architectures=["linear"] * 3, together=False, profile=rule
        )
        with open_pool("inline", simulated(clients)) as pool:
            grid = PoolGrid(
                pool,
                clients.architectures,
                group_size=3,
                profiles=clients.profiles,
            )
            hashes.add(run_federation(pool, clients, distillation(clients), grid=grid).sha256)
    assert len(hashes) == 1
