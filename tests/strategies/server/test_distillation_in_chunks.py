"""The proxy set in chunks: who is asked, and that timing changes no bit."""

import threading
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Error, Message
from torch import Tensor, nn

from clients.handlers.predictions import EVALUATE_PREDICTIONS
from clients.messages.arrays import write_arrays
from clients.messages.replies import PredictionReply, write_reply
from clients.messages.requests import client_id_of, crc32_of, node_id_of, read_request
from clients.messages.round_views import RoundView
from clients.models.discriminator import DiscriminatorRecipe
from clients.models.factory import parameters_of
from clients.seeding import Purpose, generator
from clients.training.losses import kl
from sim.engine.grid import PoolGrid, assume_task_identity
from strategies.aggregation.scorers import max_prob, own_odds, uniform
from strategies.server.distillation import DistillationStrategy
from strategies.teaching import answer_chunks as chunks
from tests.distilling import DISTIL, PROXY, SEED, bits, federation, fresh_student, make
from tests.federations import inline, simulated
from tests.predictions import fault_of


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


class Grid:
    """Answers from a table of logits [K, all proxy examples, C]; some clients fail some chunks."""

    def __init__(self, logits: Tensor, fails: Iterable[tuple[int, int]] = ()) -> None:
        self.logits, self.fails = logits, set(fails)
        self.asked: list[tuple[str, list[int], Any]] = []

    def get_node_ids(self) -> list[int]:
        return [node_id_of(k) for k in range(len(self.logits))]

    def send_and_receive(self, messages: Iterable[Message]) -> list[Message]:
        requests = list(messages)
        told = read_request(requests[0].content)
        who = [client_id_of(request.metadata.dst_node_id) for request in requests]
        self.asked.append((requests[0].metadata.message_type, who, told.proxy_ids))
        number = len({tuple(ids) for _, _, ids in self.asked}) - 1
        return [self.reply(request, number) for request in requests]

    def reply(self, request: Message, number: int) -> Message:
        told, client = read_request(request.content), client_id_of(request.metadata.dst_node_id)
        if (client, number) in self.fails:
            return Message(Error(2, "battery"), reply_to=request)
        answer = PredictionReply(
            server_round=told.server_round,
            client_id=client,
            inputs_crc32=crc32_of(told.proxy_ids),
            num_examples=10 + client,
            logits=self.logits[client, told.proxy_ids].numpy(),
            own_probs=None,
            mask=None,
            metrics={},
            answers=told.answers,
        )
        reply = Message(write_reply(answer), reply_to=request)
        assert fault_of(request, reply) is None
        return reply


def table(num_clients: int = 4) -> Tensor:
    rng = torch.Generator().manual_seed(2)
    return 3 * torch.randn(num_clients, len(PROXY), 4, generator=rng)


def run_round(
    grid: Any, **changes: Any
) -> tuple[DistillationStrategy, dict[str, Any], list[RoundView]]:
    views: list[RoundView] = []
    strategy = make(report=views.append, **changes)
    arrays = write_arrays(parameters_of(strategy.student))
    requests = strategy.configure_train(1, arrays, ConfigRecord(), grid)
    _, metrics = strategy.aggregate_train(1, list(grid.send_and_receive(requests)))
    return strategy, dict(metrics or {}), views


@pytest.mark.parametrize("scorer", [uniform, max_prob])
@pytest.mark.parametrize("cap", [1.0, 0.6], ids=["summed", "all-answers"])
def test_chunks_change_neither_targets_nor_what_probes_see(scorer: Any, cap: float) -> None:
    rounds = [run_round(Grid(table()), scorer=scorer, weight_cap=cap, chunks=s) for s in (1, 4)]
    (_, whole_metrics, (whole,)), (_, metrics, (view,)) = rounds
    assert view.proxy_ids == whole.proxy_ids
    assert view.teachers.client_ids == whole.teachers.client_ids == (0, 1, 2, 3)
    assert torch.equal(view.teachers.logits, whole.teachers.logits)
    assert torch.equal(view.teachers.mask, whole.teachers.mask)
    torch.testing.assert_close(view.weights, whole.weights, rtol=0, atol=1e-6)
    torch.testing.assert_close(view.targets, whole.targets, rtol=0, atol=1e-6)
    assert metrics["dropped-examples"] == whole_metrics["dropped-examples"] == 0
    assert len(view.losses) == len(whole.losses) == 3


def test_the_view_shows_the_probe_examples_of_the_table() -> None:
    logits = table()
    strategy, _, (view,) = run_round(Grid(logits), chunks=3, probe_examples=10)
    assert len(view.proxy_ids) == 10
    assert set(view.proxy_ids) < set(strategy.split.distilled_ids.tolist())
    assert list(view.proxy_ids) == sorted(view.proxy_ids)
    assert torch.equal(view.teachers.logits, logits[:, list(view.proxy_ids)])
    expected = logits[:, list(view.proxy_ids)].softmax(-1).mean(0)
    torch.testing.assert_close(view.targets, expected, rtol=0, atol=1e-6)
    assert view.teachers.num_examples.tolist() == [10, 11, 12, 13]


def test_the_student_learns_chunk_by_chunk_and_then_from_all() -> None:
    calls: list[tuple[list[int], Tensor, int]] = []

    def spy(
        model: nn.Module, data: Any, ids: Any, targets: Tensor, *rest: Any, epochs: int = 3
    ) -> Any:
        calls.append((list(ids), targets, epochs))
        return DISTIL(model, data, ids, targets, *rest, epochs=epochs)

    logits = table()
    strategy, metrics, (view,) = run_round(Grid(logits), chunks=3, distil=spy)
    parts = [chunk.tolist() for chunk in strategy.split.chunks]
    assert [ids for ids, _, _ in calls] == [*parts, [i for part in parts for i in part]]
    assert [epochs for _, _, epochs in calls] == [1, 1, 1, 2]
    for ids, targets, _ in calls:
        expected = logits[:, ids].softmax(-1).mean(0)
        torch.testing.assert_close(targets, expected, rtol=0, atol=1e-6)
    assert len(view.losses) == 3
    assert metrics["distillation-loss"] == view.losses[-1]

    # And by hand: the same stream of randomness through all of it
    student, rng = fresh_student(), generator(SEED, Purpose.DISTILLATION, 1)
    loss = partial(kl, temperature=1.0)
    firsts = [
        DISTIL(student, PROXY, np.array(ids), targets, loss, rng, epochs=epochs)[0]
        for ids, targets, epochs in calls
    ]
    assert bits(student) == bits(strategy.student)
    assert view.losses[0] == pytest.approx(np.mean(firsts[:3]))  # three chunks of 48


def test_no_epoch_is_no_epoch() -> None:
    strategy, metrics, (view,) = run_round(
        Grid(table()), chunks=3, distil=partial(DISTIL, epochs=0)
    )
    assert bits(strategy.student) == bits(fresh_student())
    assert view.losses == []
    assert "distillation-loss" not in metrics


def test_only_those_are_asked_on_whose_first_answers_were_usable() -> None:
    grid = Grid(table(), fails=[(1, 0)])
    strategy, metrics, _ = run_round(grid, chunks=3)
    assert metrics["num-teachers"] == 3
    (_, first, ids), *others = grid.asked
    assert first == [0, 1, 2, 3]
    assert ids.tolist() == strategy.split.chunks[0].tolist()
    for number, (kind, who, ids) in enumerate(others, start=1):
        assert kind == EVALUATE_PREDICTIONS.kind
        assert who == [0, 2, 3]
        assert ids.tolist() == strategy.split.chunks[number].tolist()


@pytest.mark.parametrize("cap", [1.0, 0.9], ids=["summed", "all-answers"])
def test_a_teacher_that_fails_a_later_chunk_does_not_count_there(cap: float) -> None:
    logits = table()
    strategy, metrics, (view,) = run_round(Grid(logits, fails=[(2, 1)]), chunks=3, weight_cap=cap)
    assert metrics["num-teachers"] == 4
    assert metrics["dropped-examples"] == 0
    missing = torch.tensor(np.isin(view.proxy_ids, strategy.split.chunks[1]))
    assert missing.any()
    assert torch.equal(view.teachers.mask[2], ~missing)
    assert view.teachers.mask[[0, 1, 3]].all()
    assert (view.weights[2, missing] == 0).all()
    torch.testing.assert_close(view.weights.sum(0), torch.ones(len(missing)))
    columns = torch.tensor(view.proxy_ids)[missing]
    expected = logits[[0, 1, 3]][:, columns].softmax(-1).mean(0)
    torch.testing.assert_close(view.targets[missing], expected, rtol=0, atol=1e-6)


def test_a_chunk_that_nobody_answers_is_dropped_and_counted() -> None:
    grid = Grid(table(), fails=[(k, 1) for k in range(4)])
    strategy, metrics, (view,) = run_round(grid, chunks=3)
    assert metrics["dropped-examples"] == len(strategy.split.chunks[1]) == 48
    missing = torch.tensor(np.isin(view.proxy_ids, strategy.split.chunks[1]))
    assert not view.teachers.mask[:, missing].any()
    assert (view.weights[:, missing] == 0).all()
    assert bits(strategy.student) != bits(fresh_student())


def test_summed_answers_come_a_few_teachers_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_round(Grid(table(5)), chunks=2)[2][0]
    monkeypatch.setattr(chunks, "TEACHERS_AT_ONCE", 2)
    grid = Grid(table(5))
    (view,) = run_round(grid, chunks=2)[2]
    assert [who for _, who, _ in grid.asked] == [[0, 1, 2, 3, 4], [0, 1], [2, 3], [4]]
    assert torch.equal(view.teachers.logits, whole.teachers.logits)
    torch.testing.assert_close(view.targets, whole.targets, rtol=0, atol=1e-6)


def test_timing_changes_no_bit() -> None:
    # A dropout layer draws from torch's global generator while the helper thread combines.
    slow = threading.Event()

    class Slow(Grid):
        def send_and_receive(self, messages: Iterable[Message]) -> list[Message]:
            slow.wait(0.05)
            return super().send_and_receive(messages)

    def student() -> nn.Module:
        model = fresh_student()
        return nn.Sequential(nn.Dropout(0.3), model)

    runs = [
        run_round(grid(table()), chunks=4, overlap=overlap, student=student())
        for grid, overlap in ((Grid, False), (Grid, True), (Slow, True))
    ]
    assert len({str(bits(strategy.student)) for strategy, _, _ in runs}) == 1
    assert len({str(metrics) for _, metrics, _ in runs}) == 1


@pytest.mark.parametrize("answers", ["float32", "float16", "uint8"])
def test_simulated_clients_answer_in_chunks_and_in_any_precision(answers: str) -> None:
    views: list[RoundView] = []
    for number in (1, 3):
        recipe = DiscriminatorRecipe("pixels")
        strategy = make(
            scorer=own_odds,
            discriminator=recipe,
            answers=answers,
            chunks=number,
            report=views.append,
        )
        clients = federation()
        grid = PoolGrid(inline(simulated(clients)), clients.architectures)
        grid.begin_round(1)
        arrays = write_arrays(parameters_of(strategy.student))
        requests = strategy.configure_train(1, arrays, ConfigRecord(), grid)
        strategy.aggregate_train(1, grid.send_and_receive(requests))
        assert not [exchange for exchange in grid.exchanges if exchange.failure]
        assert len(grid.exchanges) == 2 * number
    whole, view = views
    # A matrix product's rounding depends on who shares the batch, and may cross a code's border.
    tolerance = {"float32": 1e-5, "float16": 1e-2, "uint8": 1e-1}[answers]
    torch.testing.assert_close(view.teachers.logits, whole.teachers.logits, rtol=0, atol=tolerance)
    assert view.teachers.own_probs is not None
    torch.testing.assert_close(
        view.teachers.own_probs, whole.teachers.own_probs, rtol=1e-3, atol=1e-5
    )
    torch.testing.assert_close(view.targets, whole.targets, rtol=0, atol=1e-2)
    right = view.targets.argmax(-1).numpy() == PROXY.labels[list(view.proxy_ids)]
    assert right.mean() > 0.95
