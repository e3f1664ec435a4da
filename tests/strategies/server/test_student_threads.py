"""Threads of the student: so many while it learns, and nobody else has them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clients.training.loop import threads_of_torch
from sim.workers.process_setup import pin_threads
from strategies.server.distillation import DistillationStrategy
from strategies.server.requirements import require_fitting
from tests.federations import distillation, open_pool, run_ours, simulated, tiny_clients, trainer
from tests.tiny_runs import BASES, composed, played


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    pin_threads(1)
    yield
    pin_threads(1)


class Watching:
    """A trainer that notes with how many threads it is called."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.train = trainer()

    def __call__(self, *arguments: Any, **changes: Any) -> list[float]:
        self.seen.append(torch.get_num_threads())
        losses: list[float] = self.train(*arguments, **changes)
        return losses


def test_the_student_alone_learns_with_so_many(pool_kind: str) -> None:
    found = []
    for threads in (1, 3):
        distil, clients = Watching(), tiny_clients()
        strategy = distillation(clients, distil=distil.__call__, student_threads=threads)
        distil.seen.clear()  # it has been tried
        with open_pool(pool_kind, simulated(clients, strategy)) as pool:
            found.append(run_ours(pool, clients, strategy, rounds=2))
        assert distil.seen == [threads] * 2
        assert torch.get_num_threads() == 1
    said = [[e.metrics for report in run.reports for e in report.exchanges] for run in found]
    assert said[0] == said[1]  # clients learn as they did


def test_the_config_hands_it_to_the_lesson_and_to_what_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int | None]] = []

    def noted(where: str, number: int | None) -> Any:
        seen.append((where, number))
        return threads_of_torch(number)

    for name in ("strategies.server.distillation", "sim.checkpoint.resumable_run"):
        monkeypatch.setattr(f"{name}.threads_of_torch", partial(noted, name.rpartition(".")[2]))
    words = BASES["uniform"]
    assert not played(composed(words, "student_threads", 3), tmp_path / "three").error
    assert set(seen) == {("distillation", 3), ("resumable_run", 3)}
    seen.clear()
    assert not played(composed((*words, "sim.threads=2")), tmp_path / "none").error
    assert set(seen) == {("distillation", None), ("resumable_run", None)}
    with threads_of_torch(2), threads_of_torch(None):
        assert torch.get_num_threads() == 2


def test_clients_of_this_process_keep_theirs(tmp_path: Path) -> None:
    clients = tiny_clients(train=partial(noting, tmp_path / "threads"))
    strategy = distillation(clients, student_threads=2)
    with open_pool("inline", simulated(clients, strategy)) as pool:
        run_ours(pool, clients, strategy)
    assert (tmp_path / "threads").read_text() == "1" * 5


def noting(path: Path, *arguments: Any, **changes: Any) -> list[float]:
    """Train a client, who may keep nothing, and write down with how many threads."""
    with path.open("a") as file:
        file.write(str(torch.get_num_threads()))
    losses: list[float] = trainer()(*arguments, **changes)
    return losses


@pytest.mark.parametrize(
    ("strategy", "workers", "message"),
    [
        (object(), 1, "this strategy has no student that is distilled into"),
        (
            partial(DistillationStrategy, distil=trainer()), 2,
            "with student_workers=2 the student learns in other processes",
        ),
    ],
)  # fmt: skip
def test_where_nobody_would_have_them_they_are_refused(
    strategy: Any, workers: int, message: str
) -> None:
    clients: Any = SimpleNamespace(messenger=None)
    with pytest.raises(ValueError, match=f"^student_threads=2: {message}"):
        require_fitting(strategy, clients, workers, False, {}, student_threads=2)
