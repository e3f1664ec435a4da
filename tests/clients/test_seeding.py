"""Random streams: equal keys give equal bits, different keys do not, nothing else is disturbed."""

from itertools import combinations

import numpy as np
import pytest
import torch

from clients.seeding import Purpose, generator, seeded_torch, stream, torch_seed

KEY = (7, Purpose.COHORT, 3, 5, 1)

# Values are part of every result that was ever written down: a change here breaks old runs.
FROZEN = {
    "SPLIT": 0,
    "PARTITION": 1,
    "POPULATION": 2,
    "INITIALISE": 3,
    "STUDENT": 4,
    "COHORT": 5,
    "LOCAL_TRAINING": 6,
    "DIGEST": 7,
    "DISTILLATION": 8,
    "NEGATIVES": 9,
    "FLOWER": 10,
    "TASK": 11,
}


def words(*key: int) -> tuple[int, ...]:
    return tuple(int(word) for word in stream(*key).generate_state(4, np.uint64))


def test_purposes_keep_their_numbers() -> None:
    # Appended purposes are fine; a renumbered or dropped one is not.
    assert {name: Purpose[name].value for name in FROZEN} == FROZEN


def test_purposes_have_different_numbers() -> None:
    # Two names of one IntEnum value would be aliases, and so one stream for two purposes.
    assert len(Purpose.__members__) == len(list(Purpose))


def test_equal_keys_give_equal_streams() -> None:
    assert words(*KEY) == words(*KEY)


@pytest.mark.parametrize(
    "other",
    [
        (8, Purpose.COHORT, 3, 5, 1),
        (7, Purpose.DIGEST, 3, 5, 1),
        (7, Purpose.COHORT, 4, 5, 1),
        (7, Purpose.COHORT, 3, 6, 1),
        (7, Purpose.COHORT, 3, 5, 2),
        (7, Purpose.COHORT, 5, 3, 1),  # round and client swapped
    ],
    ids=["seed", "purpose", "round", "client", "turn", "swapped"],
)
def test_a_key_that_differs_in_one_part_gives_another_stream(other: tuple[int, ...]) -> None:
    assert words(*KEY) != words(*other)


def test_a_grid_of_keys_has_no_two_equal_streams() -> None:
    keys = [
        (seed, purpose, server_round, client)
        for seed in (0, 1)
        for purpose in Purpose
        for server_round in range(3)
        for client in range(4)
    ]
    assert len({words(*key) for key in keys}) == len(keys)


def test_the_stream_is_numpys_seed_sequence_with_the_key_as_spawn_key() -> None:
    by_hand = np.random.SeedSequence(entropy=7, spawn_key=(5, 3, 5, 1))
    assert words(*KEY) == tuple(int(w) for w in by_hand.generate_state(4, np.uint64))


def test_generators_of_different_clients_draw_differently() -> None:
    draws = [generator(0, Purpose.LOCAL_TRAINING, 1, client).random(8) for client in range(4)]
    assert not any(np.array_equal(a, b) for a, b in combinations(draws, 2))


def test_the_generator_draws_from_the_stream_of_its_key() -> None:
    expected = np.random.default_rng(stream(2, Purpose.SPLIT, 1, 4)).random(5)
    assert np.array_equal(generator(2, Purpose.SPLIT, 1, 4).random(5), expected)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        generator(-1, Purpose.SPLIT)


def test_torch_seeds_reach_the_upper_half_of_their_range_and_stay_in_it() -> None:
    rng = np.random.default_rng(0)
    seeds = [torch_seed(rng) for _ in range(64)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) >= 2**62  # all 64 below half: chance 2**-64


def test_seeded_torch_gives_the_bits_of_its_generator() -> None:
    draws = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        with seeded_torch(np.random.default_rng(5)):
            draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    with seeded_torch(np.random.default_rng(6)):
        assert not torch.equal(torch.rand(4), draws[0])


def test_seeded_torch_restores_the_global_generator() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    with seeded_torch(np.random.default_rng(0)):
        torch.rand(3)
        assert not torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_torch_restores_the_global_generator_after_an_error() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeded_torch(np.random.default_rng(0)):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_torch_takes_exactly_one_draw() -> None:
    used, counted = np.random.default_rng(3), np.random.default_rng(3)
    with seeded_torch(used):
        torch.rand(100)
    torch_seed(counted)
    assert used.random() == counted.random()
