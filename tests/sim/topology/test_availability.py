"""Who is there and what arrives: shares, independence of everything but the key, and errors."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from conf.building import instantiate
from sim.topology.availability import Availability
from tests.places import CONF

SHIPPED = CONF / "availability"


def made(num_peers: int, seed: int = 0, **numbers: Any) -> Availability:
    return Availability(num_peers=num_peers, seed=seed, **numbers)


def all_pairs(num_peers: int) -> tuple[Any, Any]:
    senders, receivers = np.divmod(np.arange(num_peers**2), num_peers)
    return senders, receivers


def within(share: float, expected: float, draws: float) -> bool:
    """Four standard errors of a share."""
    return bool(abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / draws))


def shipped(name: str, num_peers: int) -> Availability:
    built: Availability = instantiate(OmegaConf.load(SHIPPED / f"{name}.yaml"))(
        num_peers=num_peers, seed=3
    )
    return built


def test_by_default_everybody_is_there_and_everything_arrives() -> None:
    for availability in (made(5), shipped("always", 5)):
        for r in (1, 2, 40):
            assert availability.present(r).all()
            assert availability.awake(r).all()
            assert not availability.delays(r, *all_pairs(5)).any()


def test_how_many_options_there_are() -> None:
    assert sorted(path.stem for path in SHIPPED.glob("*.yaml")) == ["always", "churn", "flaky"]


def test_flaky_peers_sleep_and_their_messages_suffer() -> None:
    flaky = shipped("flaky", 200)
    assert flaky.present(7).all()
    assert within(np.mean([flaky.awake(r).mean() for r in range(1, 51)]), 0.9, 200 * 50)
    delays = flaky.delays(7, *all_pairs(200))
    assert set(delays.tolist()) == {-1, 0, 1, 2}
    for delay, share in ((-1, 0.1), (0, 0.81), (1, 0.045), (2, 0.045)):
        assert within((delays == delay).mean(), share, 200**2)


def test_late_messages_are_evenly_late() -> None:
    delays = made(150, late_probability=1.0, late_rounds=3).delays(1, *all_pairs(150))
    for delay in (1, 2, 3):
        assert within((delays == delay).mean(), 1 / 3, 150**2)
    assert set(delays.tolist()) == {1, 2, 3}


def test_losing_more_does_not_change_what_is_late() -> None:
    pairs = all_pairs(30)
    some = made(30, late_probability=0.5, drop_probability=0.2).delays(4, *pairs)
    none = made(30, late_probability=0.5).delays(4, *pairs)
    arrived = some >= 0
    assert np.array_equal(some[arrived], none[arrived])
    assert (made(30, drop_probability=1.0).delays(4, *pairs) == -1).all()


@settings(max_examples=30, deadline=None)
@given(data=st.data(), server_round=st.integers(1, 10**6))
def test_a_message_does_not_care_which_others_there_are(
    data: st.DataObject, server_round: int
) -> None:
    flaky = made(12, drop_probability=0.3, late_probability=0.5, late_rounds=4)
    senders, receivers = all_pairs(12)
    everything = flaky.delays(server_round, senders, receivers).reshape(12, 12)
    chosen = np.array(data.draw(st.lists(st.integers(0, 143), max_size=30)), dtype=np.int64)
    some = flaky.delays(server_round, senders[chosen], receivers[chosen])
    assert np.array_equal(some, everything[senders[chosen], receivers[chosen]])
    # Nor about how many peers there are.
    larger = made(99, drop_probability=0.3, late_probability=0.5, late_rounds=4)
    assert np.array_equal(
        larger.delays(server_round, senders, receivers).reshape(12, 12), everything
    )


def test_rounds_seeds_and_directions_have_draws_of_their_own() -> None:
    pairs = all_pairs(20)
    draws = [
        made(20, seed, drop_probability=0.5).delays(r, *pairs) for seed in (0, 1) for r in (1, 2)
    ]
    draws.append(draws[0].reshape(20, 20).T.ravel())
    assert len({tuple(each.tolist()) for each in draws}) == 5


@cache
def long_history() -> Any:
    churn = made(2000, leave_probability=0.05, join_probability=0.2, present_share=0.8)
    return np.array([churn.present(r) for r in range(1, 201)])


def test_churn_keeps_its_stationary_share() -> None:
    # Presence has autocorrelation .75 from round to round: 7 rounds count as one draw.
    assert within(long_history().mean(), 0.8, 2000 * 200 / 7)
    assert within(long_history()[0].mean(), 0.8, 2000)


def test_peers_leave_and_join_with_their_probabilities() -> None:
    before, after = long_history()[:-1], long_history()[1:]
    assert within(1 - after[before].mean(), 0.05, before.sum())
    assert within(after[~before].mean(), 0.2, (~before).sum())


def test_churn_tends_to_the_same_share_from_anywhere() -> None:
    few = made(2000, leave_probability=0.05, join_probability=0.2, present_share=0.1)
    assert within(few.present(1).mean(), 0.1, 2000)
    assert within(few.present(60).mean(), 0.8, 2000)
    assert within(np.mean(shipped("churn", 2000).present(60)), 0.8, 2000)


def test_without_churn_who_is_there_stays_there() -> None:
    half = made(100, present_share=0.5)
    assert 20 < half.present(1).sum() < 80
    assert np.array_equal(half.present(1), half.present(30))


def test_rounds_follow_from_the_seed_in_any_order() -> None:
    numbers = {"leave_probability": 0.3, "join_probability": 0.3, "sleep_probability": 0.3}
    one, other = made(50, **numbers), made(50, **numbers)
    awake = [one.awake(r) for r in range(1, 8)]
    for r in (7, 2, 5, 1):
        assert np.array_equal(other.awake(r), awake[r - 1])
        assert not (other.awake(r) & ~other.present(r)).any()
    one.present(3)[:] = False
    assert np.array_equal(one.present(3), other.present(3))


@pytest.mark.parametrize("num_peers", [1, 3])
def test_somebody_is_always_present_if_not_awake(num_peers: int) -> None:
    gone = made(num_peers, leave_probability=1.0, present_share=1e-9, sleep_probability=1.0)
    for r in range(1, 20):
        assert gone.present(r).sum() == 1
        assert not gone.awake(r).any()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (
            {"sleep_probability": 1.5},
            r"availability.sleep_probability=1.5: expected a probability in",
        ),
        ({"drop_probability": -0.1}, r"availability.drop_probability=-0.1: expected a probability"),
        ({"late_probability": float("nan")}, "availability.late_probability=nan: expected a prob"),
        ({"leave_probability": 2}, "availability.leave_probability=2: "),
        ({"join_probability": 2}, "availability.join_probability=2: "),
        ({"late_rounds": 0}, "availability.late_rounds=0: expected an integer >= 1"),
        ({"present_share": 0}, r"availability.present_share=0: expected in \(0, 1\]"),
    ],
)
def test_numbers_out_of_range_name_the_key(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(3, **numbers)


def test_rounds_begin_at_one() -> None:
    availability = made(3)
    nobody = np.array([], dtype=np.int64)
    for ask in (
        availability.present,
        availability.awake,
        lambda r: availability.delays(r, nobody, nobody),
    ):
        with pytest.raises(ValueError, match="server_round=0: expected an integer >= 1"):
            ask(0)
