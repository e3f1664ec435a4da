"""Profiles: speeds and links of clients, and whose draws they are."""

from typing import Any

import numpy as np
import pytest

from clients.mutual import rules
from clients.mutual.messenger import Messenger
from clients.population.profiles import Profiles, alike, lognormal, two_speeds
from clients.population.rehearsal import rehearse
from clients.seeding import Purpose, generator
from tests.federations import tiny_clients
from tests.timed import PHONE, SGD, drawn, profiles

# --- profiles ---


def test_alike_and_two_speeds_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    same = alike(3, rng, **PHONE)
    assert same.multiplications_per_s.tolist() == [1000.0] * 3
    assert (same.upload_bytes_per_s[0], same.latency_s[2]) == (50.0, 0.5)
    two = two_speeds(5, rng, slow_share=0.4, slowdown=4, **PHONE)
    slow = two.multiplications_per_s == 250.0
    assert slow.sum() == 2
    assert (two.download_bytes_per_s == np.where(slow, 100.0, 400.0)).all()
    assert (two.upload_bytes_per_s == np.where(slow, 12.5, 50.0)).all()
    assert (two.latency_s == 0.5).all()
    who = {tuple(two_speeds(5, np.random.default_rng(k), slow_share=0.4, slowdown=4, **PHONE)
                 .multiplications_per_s) for k in range(20)}  # fmt: skip
    assert len(who) > 1


def test_lognormal_speeds_have_their_median_and_spread_and_links_a_draw_of_their_own() -> None:
    drawn = lognormal(4001, np.random.default_rng(0), spread=0.7, **PHONE)
    logs = np.log(drawn.multiplications_per_s / 1000.0)
    # The standard error of a standard deviation of 4,001 draws is 0.7 / sqrt(2 * 4001) = 0.008.
    assert abs(logs.std() - 0.7) < 0.04
    assert abs(np.median(logs)) < 0.06
    down, up = np.log(drawn.download_bytes_per_s / 400), np.log(drawn.upload_bytes_per_s / 50)
    np.testing.assert_allclose(down, up, atol=1e-12)
    assert abs(np.corrcoef(logs, down)[0, 1]) < 0.08
    even = lognormal(3, np.random.default_rng(0), spread=0.0, **PHONE)
    assert vars(even).keys() == PHONE.keys()
    assert all((vars(even)[name] == value).all() for name, value in PHONE.items())


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("multiplications_per_s", [1.0, 0.0], r"multiplications_per_s=0.0 of client 1: expected >"),
        ("upload_bytes_per_s", [np.nan, 1.0], r"upload_bytes_per_s=nan of client 0: expected > 0"),
        ("latency_s", [0.0, np.inf], r"latency_s=inf of client 1: expected >= 0 and finite"),
        ("latency_s", [0.0], r": latency_s has shape \(1,\), expected \(2,\)"),
        ("download_bytes_per_s", [[1.0], [1.0]], r": download_bytes_per_s has shape \(2, 1\), exp"),
    ],
)
def test_profiles_out_of_range_name_key_and_client(name: str, values: Any, message: str) -> None:
    good = {key: np.ones(2) for key in PHONE}
    with pytest.raises(ValueError, match=r"clients\.profile.?" + message):
        Profiles(**(good | {name: np.array(values)}))


def test_there_is_a_profile_for_each_client_and_local_epochs_to_count() -> None:
    with pytest.raises(ValueError, match=r"clients\.profile: 2 profiles for 5 clients"):
        tiny_clients(profile=drawn(profiles(1.0, 1.0)))
    odd = tiny_clients(1, train=lambda *args, **kwargs: [], profile=drawn(profiles(1.0)))
    with pytest.raises(ValueError, match=r"clients\.profile: .*expected clients.training.epochs"):
        rehearse(odd)
    how = Messenger(rule=rules.dml, optimizer=SGD, epochs=1, batch_size=8)
    rehearse(tiny_clients(1, messenger=how, train=odd.local_training, profile=drawn(profiles(1.0))))


# --- the run folder ---


def test_the_draws_are_the_seeds_and_no_other_stream() -> None:
    one, again, other = (
        lognormal(4, generator(seed, Purpose.PROFILES), spread=1.0, **PHONE) for seed in (1, 1, 2)
    )
    assert one.multiplications_per_s.tolist() == again.multiplications_per_s.tolist()
    assert one.multiplications_per_s.tolist() != other.multiplications_per_s.tolist()
