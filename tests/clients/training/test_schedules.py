"""How long training goes on, and at which learning rate."""

from functools import partial
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from clients.data import normalised
from clients.seeding import torch_seed
from clients.training.batches import batches, examples_learned, local_steps, passes
from clients.training.loop import train
from clients.training.losses import cross_entropy
from clients.training.schedules import learning_rates, of_round
from tests.trained_together import NOISE, built

HALVED = partial(lr_scheduler.StepLR, step_size=2, gamma=0.5)
PLAIN = partial(torch.optim.SGD, lr=1.0)
OPTIMIZERS = [
    partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    partial(torch.optim.Adam, lr=0.01),
    partial(torch.optim.RMSprop, lr=0.01),
]


# --- learning rates ---


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (HALVED, [1, 1, 0.5, 0.5, 0.25]),
        (partial(lr_scheduler.ExponentialLR, gamma=0.1), [1, 0.1, 0.01, 0.001, 0.0001]),
        (partial(lr_scheduler.CosineAnnealingLR, T_max=2), [1, 0.5, 0, 0.5, 1]),
        (partial(lr_scheduler.LinearLR, start_factor=0.5, total_iters=2), [0.5, 0.75, 1, 1, 1]),
    ],
)
def test_rates_by_hand(scheduler: Any, expected: list[float]) -> None:
    found = list(islice(learning_rates(scheduler, PLAIN), 5))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (lr_scheduler.ReduceLROnPlateau, "not by a loss"),
        (partial(lr_scheduler.CyclicLR, base_lr=0.1, max_lr=1.0), "cycle_momentum=false"),
        (HALVED.func, "step_size"),
        (lambda optimizer: None, "one of torch's"),
    ],
)
def test_what_is_no_schedule_of_rates_is_refused(scheduler: Any, message: str) -> None:
    momentum = partial(torch.optim.SGD, lr=1.0, momentum=0.9)
    with pytest.raises(ValueError, match=message):
        list(islice(learning_rates(scheduler, momentum), 3))


def by_torch(optimizer: Any, scheduler: Any, turns: str, epochs: int) -> nn.Module:
    """Train as anyone would, with torch's own objects, on the same batches."""
    network, rng = built("logistic_regression"), np.random.default_rng(3)
    made = optimizer(network.parameters())
    schedule = scheduler(made)
    torch_seed(rng)  # which `train` draws, too
    for _ in range(epochs):
        for batch in batches(40, 16, rng):
            made.zero_grad()
            logits = network(torch.from_numpy(normalised(NOISE, batch)))
            nn.functional.cross_entropy(logits, torch.tensor(NOISE.labels[batch])).backward()
            made.step()
            if turns == "step":
                schedule.step()
        if turns == "epoch":
            schedule.step()
    return network


def ours(seed: int = 3, n: int = 40, **numbers: Any) -> tuple[nn.Module, list[float]]:
    network = built("logistic_regression")
    numbers = {"epochs": 3, "batch_size": 16, "optimizer": PLAIN} | numbers
    rng, labels = np.random.default_rng(seed), torch.tensor(NOISE.labels[:n])
    return network, train(network, NOISE, np.arange(n), labels, cross_entropy, rng, **numbers)


@pytest.mark.parametrize("turns", ["step", "epoch"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_schedule_is_torchs(turns: str, optimizer: Any) -> None:
    scheduler = partial(lr_scheduler.CosineAnnealingLR, T_max=4)
    expected = by_torch(optimizer, scheduler, turns, 3)
    found, _ = ours(optimizer=optimizer, scheduler=scheduler, scheduler_by=turns)
    plain, _ = ours(optimizer=optimizer)
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[name], rtol=1e-4, atol=1e-5)
    changed = zip(plain.parameters(), found.parameters(), strict=True)
    assert not any(torch.allclose(before, after) for before, after in changed)


def test_the_rate_of_a_round() -> None:
    how = partial(train, epochs=1, batch_size=8, optimizer=PLAIN, scheduler=HALVED)
    rates = [of_round(how, r)["optimizer"].keywords["lr"] for r in (1, 2, 3, 4, 5)]
    assert rates == [1, 1, 0.5, 0.5, 0.25]
    assert of_round(partial(how, scheduler_by="step"), 3) == {}
    assert of_round(partial(train, epochs=1, optimizer=PLAIN), 3) == {}


def test_a_turn_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="scheduler_by=day: expected one of round, epoch, step"):
        ours(scheduler=HALVED, scheduler_by="day")


# --- how long ---


def sizes_of(n: int, **numbers: Any) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [[len(batch) for batch in order] for order in passes(n, 4, rng, **numbers)]


def test_batches_of_each_epoch_by_hand() -> None:
    assert sizes_of(10, epochs=2) == [[4, 4, 2], [4, 4, 2]]
    assert sizes_of(9, epochs=1) == [[4, 5]]  # one alone joins
    assert sizes_of(10, epochs=2, drop_last=True) == [[4, 4], [4, 4]]
    assert sizes_of(9, epochs=1, drop_last=True) == [[4, 4]]
    assert sizes_of(3, epochs=1, drop_last=True) == [[3]]
    assert sizes_of(10, epochs=9, steps=4) == [[4, 4, 2], [4]]
    assert sizes_of(10, epochs=1, steps=0) == sizes_of(10, epochs=0) == []


@given(
    n=st.integers(1, 40),
    size=st.integers(1, 12),
    epochs=st.integers(0, 3),
    steps=st.none() | st.integers(0, 12),
    drop=st.booleans(),
)
def test_what_is_counted_is_what_is_drawn(
    n: int, size: int, epochs: int, steps: int | None, drop: bool
) -> None:
    numbers: dict[str, Any] = {"epochs": epochs, "steps": steps, "drop_last": drop}
    drawn = [b for o in passes(n, size, np.random.default_rng(0), **numbers) for b in o]
    how = partial(train, batch_size=size, optimizer=PLAIN, **numbers)
    assert local_steps(how, n) == len(drawn)
    assert examples_learned(how, n) == sum(map(len, drawn))
    assert max(map(len, drawn), default=0) <= size + 1


def test_steps_stand_in_the_place_of_epochs() -> None:
    taken, losses = ours(steps=4, epochs=9)
    whole, _ = ours(epochs=1)
    assert len(losses) == 2
    same, _ = ours(steps=3, epochs=9)
    assert all(
        torch.equal(a, b) for a, b in zip(same.parameters(), whole.parameters(), strict=True)
    )
    assert not torch.equal(next(taken.parameters()), next(whole.parameters()))


def test_the_loss_of_a_broken_epoch_is_a_mean_over_what_was_seen() -> None:
    frozen = partial(torch.optim.SGD, lr=0.0)
    _, whole = ours(optimizer=frozen, epochs=1, n=16)
    _, broken = ours(optimizer=frozen, steps=3, n=16, batch_size=8)
    assert whole[0] == pytest.approx(broken[0])
    assert 0.5 < broken[1] / whole[0] < 2


def test_training_stops_where_the_loss_is_flat() -> None:
    still = partial(torch.optim.SGD, lr=0.0)
    _, losses = ours(optimizer=still, epochs=9, stop_below=0.01)
    assert len(losses) == 2
    falling = partial(torch.optim.SGD, lr=0.1)
    _, losses = ours(optimizer=falling, epochs=30, stop_below=0.05, batch_size=40)
    falls = [1 - after / before for before, after in pairwise(losses)]
    assert 3 < len(losses) < 30
    assert min(falls[:-1]) >= 0.05 > falls[-1]
    assert len(ours(optimizer=still, epochs=9)[1]) == 9


@pytest.mark.parametrize(
    ("numbers", "message"),
    [({"steps": -1}, "steps=-1: expected >= 0"), ({"stop_below": -1.0}, "stop_below=-1.0")],
)
def test_odd_numbers_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ours(**numbers)
