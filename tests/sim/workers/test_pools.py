"""Both pools give the same bits, whoever is slow and whoever dies."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.app import MetricRecord as Metrics
from flwr.clientapp import ClientApp

from clients.messages.requests import PREDICTIONS, client_id_of, node_id_of
from clients.models.discriminator import DiscriminatorRecipe
from sim.engine.grid import PoolGrid
from sim.tracking.clients_table import client_rows
from sim.tracking.round_metrics import summarise
from sim.workers.pools import InlinePool, Pool
from strategies.aggregation.scorers import own_odds
from tests.federations import (
    Run,
    distillation,
    inline,
    open_pool,
    run_ours,
    simulated,
    tiny_clients,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests tell clients, by files, what to do; workers are other processes."""
    return tmp_path_factory.mktemp("orders")


@pytest.fixture(scope="module")
def ray_pool(folder: Path) -> Iterator[Pool]:
    """A Ray pool of two workers; for one and four see test_fault_matrix.py and test_bits.py."""
    with open_pool("ray", slow_and_mortal(folder)) as pool:
        yield pool


@pytest.fixture
def inline_pool(folder: Path) -> InlinePool:
    return inline(slow_and_mortal(folder))


def slow_and_mortal(folder: Path) -> ClientApp:
    """Our clients, each answer delayed by 0 to 39 ms; a file such as `always-3` disturbs one."""

    def disturb(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        time.sleep(time.time_ns() // 1000 % 40 / 1000)
        me = context.node_config["partition-id"]
        if (folder / f"always-{me}").exists():
            with (folder / f"deaths-{me}").open("a") as file:
                file.write("one\n")
            os.kill(os.getpid(), signal.SIGKILL)
        if (folder / f"exit-{me}").exists():
            sys.exit(3)
        if (folder / f"hang-{me}").exists():
            time.sleep(3600)
        return reply

    clients, pixels = tiny_clients(), np.arange(256, dtype=np.uint8)

    def peek(message: Message, context: Context) -> Message:
        arrays = {"pixels": pixels, "private": clients.splits.private.inputs}
        described = {k: f"{v.dtype} {v.shape} {v.flags.writeable}" for k, v in arrays.items()}
        metrics = Metrics({"sum": int(pixels.sum(dtype=np.int64)), "process": os.getpid()})
        content = RecordDict({"config": ConfigRecord({**described}), "metrics": metrics})
        return Message(content, reply_to=message)

    app = ClientApp(mods=[disturb])

    def one(message: Message, context: Context) -> Message:
        [reply] = simulated(clients).serve([message], [context])
        assert isinstance(reply, Message)
        return reply

    app.train(PREDICTIONS)(one)
    app.evaluate(PREDICTIONS)(one)
    app.train("peek")(peek)
    return app


def two_rounds(
    pool: Pool, group_size: int = 1
) -> tuple[str, list[str], list[list[dict[str, Any]]]]:
    """Distil twice, with discriminators and feedback; return everything that must not vary."""
    clients = tiny_clients()
    strategy = distillation(
        clients, scorer=own_odds, discriminator=DiscriminatorRecipe(), fraction=0.8, feed_back=True
    )
    grid = PoolGrid(pool, clients.architectures, group_size=group_size)
    run = run_ours(pool, clients, strategy, rounds=2, grid=grid)
    return run.sha256, lines_of(run), [client_rows(report.exchanges) for report in run.reports]


def lines_of(run: Run) -> list[str]:
    return [
        json.dumps(summarise(report, client_rows(report.exchanges), {}), sort_keys=True)
        for report in run.reports
    ]


def ask(pool: Pool, size: int, action: str, group_size: int = 1) -> tuple[list[Message], list[str]]:
    """Send one message to each client; return the replies and what failed."""
    grid = PoolGrid(pool, ["alike"] * size, group_size=group_size)
    grid.begin_round(1)
    content = RecordDict({"config": ConfigRecord({"tag": 0})})
    requests = [Message(content, node_id_of(k), action) for k in range(size)]
    return list(grid.send_and_receive(requests)), [e.failure for e in grid.exchanges]


def lost(failures: list[str]) -> dict[int, str]:
    """Keep the clients that failed, with the reason."""
    return {client_id: failure for client_id, failure in enumerate(failures) if failure}


@pytest.fixture(scope="module")
def reference(folder: Path) -> tuple[str, list[str], list[list[dict[str, Any]]]]:
    """The inline pool's results, undisturbed but for delays."""
    return two_rounds(inline(slow_and_mortal(folder)))


def test_the_reference_run_is_worth_comparing(reference: Any) -> None:
    sha256, lines, rows = reference
    first, second = (json.loads(line) for line in lines)
    assert len(sha256) == 64
    assert first["failures"] == second["failures"] == 0
    assert first["student"] != second["student"]
    assert all(len(of_round) == 4 for of_round in rows)  # 0.8 of 5 clients
    assert {row["architecture"] for row in rows[0]} == {"linear", "mlp"}
    # The student, (4 * 16 + 4) float32, goes along from round 2 on.
    growth = rows[1][0]["request_bytes"] - rows[0][0]["request_bytes"]
    assert growth >= 68 * 4


def test_the_inline_pool_repeats_itself(inline_pool: InlinePool, reference: Any) -> None:
    assert two_rounds(inline_pool) == reference


@pytest.mark.timeout(120)
def test_any_number_of_workers_gives_the_inline_pools_bits(ray_pool: Pool, reference: Any) -> None:
    assert two_rounds(ray_pool) == reference


def test_workers_share_the_programs_arrays_read_only(ray_pool: Pool) -> None:
    replies, failures = ask(ray_pool, 5, "train.peek")
    assert failures == [""] * 5
    for reply in replies:
        described = reply.content.config_records["config"]
        assert described["pixels"] == "uint8 (256,) False"
        assert described["private"] == "float32 (120, 1, 4, 4) False"
        assert reply.content.metric_records["metrics"]["sum"] == 32640  # 255 * 256 / 2
    processes = {reply.content.metric_records["metrics"]["process"] for reply in replies}
    assert os.getpid() not in processes
    assert len(processes) > 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("group_size", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_client_that_always_kills_its_worker_is_lost_alone_and_run_no_more(
    ray_pool: Pool, folder: Path, group_size: int
) -> None:
    ray_pool.load(slow_and_mortal(folder))  # nobody is suspected
    order, deaths = folder / "always-0", folder / "deaths-0"
    order.touch()  # the first in a worker's queue, so that others wait behind it
    deaths.unlink(missing_ok=True)
    try:
        replies, failures = ask(ray_pool, 6, "train.peek", group_size)
    finally:
        order.unlink()
    assert set(lost(failures)) == {0}, lost(failures)
    assert [client_id_of(reply.metadata.src_node_id) for reply in replies] == list(range(6))
    said = "quarantined: its worker died 2 times running it alone: its process ended without a word"
    assert failures[0].startswith(said)
    # In its group thrice, then alone twice; or once while another one waited behind it.
    assert len(deaths.read_text().splitlines()) <= (5 if group_size > 1 else 3)
    deaths.unlink()
    again = ask(ray_pool, 6, "train.peek", group_size)[1]
    assert set(lost(again)) == {0}
    assert again[0] == failures[0]  # as in a resumed run, which finds out anew
    ray_pool.load(slow_and_mortal(folder))
    assert ask(ray_pool, 6, "train.peek", group_size)[1] == [""] * 6  # the pool has healed


@pytest.mark.slow  # waits for time to pass; inline it is below
@pytest.mark.timeout(120)
def test_a_client_that_hangs_is_ended_on_ray(
    ray_pool: Pool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "_client_timeout_s", 2.0)
    assert_hanging_is_ended(ray_pool, folder)


def test_a_client_that_hangs_is_ended_inline(
    inline_pool: InlinePool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inline_pool, "_client_timeout_s", 0.5)
    mine = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    assert_hanging_is_ended(inline_pool, folder)
    assert signal.getsignal(signal.SIGALRM) is mine[0]  # pytest's own timer, which goes on
    assert mine[1][0] - 60 < signal.getitimer(signal.ITIMER_REAL)[0] < mine[1][0]


def assert_hanging_is_ended(pool: Any, folder: Path) -> None:
    """One client of a group sleeps; the others answer, what they answer alone."""
    app, limit = slow_and_mortal(folder), f"{pool._client_timeout_s:g}"
    pool.load(app)
    order = folder / "hang-1"
    order.touch()
    try:
        first = ask(pool, 3, "train.peek", 3)
        began = time.monotonic()
        second = ask(pool, 3, "train.peek", 3)
        took = time.monotonic() - began
    finally:
        order.unlink()
    message = f"timed out after {limit} s in train.peek (sim.client_timeout_s)"
    assert lost(first[1]) == lost(second[1]) == {1: message}
    sums = [r.content.metric_records["metrics"]["sum"] for r in first[0] if r.has_content()]
    assert sums == [32640] * 2
    # Now it is known: its group is not tried together, which would take three times the limit more.
    assert pool._client_timeout_s <= took
    if isinstance(pool, InlinePool):
        assert took < 2 * pool._client_timeout_s
    assert ask(pool, 3, "train.peek", 3)[1] == [""] * 3  # it gets its chance with each message
    pool.load(app)


@pytest.mark.timeout(120)
def test_a_client_that_exits_is_counted_on_ray(ray_pool: Pool, folder: Path) -> None:
    assert_exit_is_counted(ray_pool, folder)


def test_a_client_that_exits_is_counted_inline(inline_pool: InlinePool, folder: Path) -> None:
    assert_exit_is_counted(inline_pool, folder)


def assert_exit_is_counted(pool: Pool, folder: Path) -> None:
    """One client calls sys.exit; the others answer."""
    order = folder / "exit-1"
    order.touch()
    try:
        _, failures = ask(pool, 4, "train.peek")
    finally:
        order.unlink()
    assert set(lost(failures)) == {1}, lost(failures)
