"""The next chunk is asked while the last one is used."""

import threading

import pytest

from sim.engine.grid import assume_task_identity
from strategies.teaching.answer_chunks import ahead


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_everything_is_asked_once_and_comes_in_order(number: int, overlap: bool) -> None:
    asked: list[int] = []
    made = ahead(lambda k: asked.append(k) or 10 * k, number, overlap)  # type: ignore[func-returns-value]
    assert list(made) == [10 * k for k in range(number)]
    assert asked == list(range(number))


def test_the_next_one_is_asked_while_the_last_one_is_used_and_only_then() -> None:
    begun = [threading.Event() for _ in range(4)]
    for k, _ in enumerate(ahead(lambda k: begun[k].set(), 4, overlap=True)):
        if k < 3:
            assert begun[k + 1].wait(timeout=10)  # while we are still using number k
        assert not any(event.is_set() for event in begun[k + 2 :])


def test_without_overlap_the_next_one_waits_for_its_turn() -> None:
    asked: list[int] = []
    for k, _ in enumerate(ahead(asked.append, 4, overlap=False)):
        assert asked == list(range(k + 1))


@pytest.mark.parametrize("overlap", [True, False])
def test_what_asking_raises_is_raised(overlap: bool) -> None:
    def ask(number: int) -> int:
        if number == 2:
            raise OSError("the cable")
        return number

    seen = []
    with pytest.raises(OSError, match="the cable"):
        seen += list(map(seen.append, ahead(ask, 4, overlap)))
    assert seen == [0, 1]
