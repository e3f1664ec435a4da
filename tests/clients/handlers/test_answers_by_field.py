"""A student that is fed back: what clients of another architecture make of it before they train."""

from functools import partial
from math import log
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message

from clients.data import classification
from clients.execution.executor import Lesson
from clients.handlers.predictions import imitated_ids
from clients.messages.arrays import write_arrays
from clients.messages.replies import read_reply
from clients.messages.requests import read_request
from clients.models.factory import build, parameters_of
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, generator, stream
from clients.training.evaluation import predict
from clients.training.losses import kl
from sim.engine.grid import PoolGrid
from strategies.server.distillation import DistillationStrategy
from tests.federations import SEED, distillation, inline, simulated, tiny_clients, trainer

ROUND, UNLIKE = 2, 1
"""In round 2 the student, a linear model, comes to client 1, an mlp."""


def two_clients() -> SimulatedClients:
    """Clients that do not train, so that their answers show what became of the student."""
    return tiny_clients(2, train=partial(trainer(), epochs=0))


def fed_back(clients: SimulatedClients, strategy: DistillationStrategy) -> list[Message]:
    """Send a student that is sure of itself; return the requests, then the replies to them."""
    grid = PoolGrid(inline(simulated(clients)), clients.architectures)
    grid.begin_round(ROUND)
    sure = write_arrays({k: 5 * v for k, v in parameters_of(strategy.student).items()})
    requests = list(strategy.configure_train(ROUND, sure, ConfigRecord(), grid))
    return [*requests, *grid.send_and_receive(requests)]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("chunks", [1, 4])
def test_an_unlike_client_imitates_the_student_on_all_distilled_examples(
    chunks: int, temperature: float
) -> None:
    # By T**2 KL(softmax(student / T) || softmax(client / T)), three epochs long.
    clients = two_clients()
    strategy = distillation(
        clients, feed_back=True, digest_epochs=3, temperature=temperature, chunks=chunks
    )
    _, request, _, reply = fed_back(clients, strategy)
    splits, ids = clients.splits, strategy.split.distilled_ids
    start = generator(SEED, Purpose.INITIALISE, 0, UNLIKE)
    expected = build(clients.models["mlp"], classification((1, 4, 4), 4), start)
    targets = (predict(strategy.student, splits.proxy, ids) / temperature).softmax(-1)
    loss = partial(kl, temperature=temperature)
    rng = np.random.default_rng(stream(SEED, Purpose.DIGEST, ROUND, UNLIKE))
    trainer()(expected, splits.proxy, ids, targets, loss, rng, epochs=3)
    answered = read_request(request.content).proxy_ids
    assert answered is not None
    assert len(answered) == len(ids) // chunks
    logits = torch.from_numpy(read_reply(reply.content).logits)
    assert torch.equal(logits, predict(expected, splits.proxy, answered))


def test_other_chunks_and_first_rounds_bring_no_student_and_one_chunk_no_more_bytes() -> None:
    clients = two_clients()
    strategy = distillation(clients, feed_back=True, chunks=3)
    asked = read_request(fed_back(clients, strategy)[0].content)
    assert imitated_ids(asked).tolist() == strategy.split.distilled_ids.tolist()
    assert strategy.teachers.question(ROUND, strategy.split.chunks[1]).student is None
    alone = read_request(fed_back(clients, distillation(clients, feed_back=True))[0].content)
    assert alone.digest_ids is None


def test_a_digest_has_its_temperature_in_the_targets_and_in_the_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The student says (2 ln 3, 0, 0, 0). At T = 2 that is (3, 1, 1, 1) / 6, at T = 1 it would be
    # (9, 1, 1, 1) / 12. A client that knows nothing loses T**2 (ln(2) / 2 + ln(2/3) / 2), and one
    # that says what the student says loses nothing.
    told: list[tuple[Lesson, Any]] = []
    fit = SimulatedClients.fit

    def listening(self: Any, ids: Any, starts: Any, lesson: Any, *rest: Any, **changes: Any) -> Any:
        told.append((lesson(ids[0], starts[0]), rest[1]))
        return fit(self, ids, starts, lesson, *rest, **changes)

    clients = two_clients()
    strategy = distillation(clients, feed_back=True, temperature=2.0)
    said = torch.tensor([[2 * log(3), 0.0, 0.0, 0.0]])
    with torch.no_grad():
        for parameter in strategy.student.parameters():
            parameter.zero_()
        bias = next(p for p in strategy.student.parameters() if p.ndim == 1)
        bias.copy_(said[0] / 5)  # `fed_back` sends five times as much
    monkeypatch.setattr(SimulatedClients, "fit", listening)
    fed_back(clients, strategy)
    lesson, loss = next((lesson, loss) for lesson, loss in told if lesson.targets.ndim == 2)
    assert lesson.targets[0].tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=1e-6)
    target = lesson.targets[:1]
    expected = 4 * (log(2) / 2 + log(2 / 3) / 2)
    assert loss(torch.zeros(1, 4), target).item() == pytest.approx(expected, abs=1e-6)
    assert loss(said, target).item() == pytest.approx(0.0, abs=1e-6)
