"""Who has which architecture."""

import hashlib
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.population.architectures import Architectures, assign_architectures


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- shares ---


@pytest.mark.parametrize(
    ("shares", "num_clients", "expected"),
    [
        ({"a": 1}, 3, {"a": 3}),
        ({"a": 0.3, "b": 0.3, "c": 0.4}, 10, {"a": 3, "b": 3, "c": 4}),
        ({"a": 3, "b": 1}, 8, {"a": 6, "b": 2}),  # shares need not sum to one
        # 5 * (.5, .3, .2) = 2.5, 1.5, 1: one is left over, equal remainders, the first named
        ({"a": 0.5, "b": 0.3, "c": 0.2}, 5, {"a": 3, "b": 1, "c": 1}),
        # 10 / 3 each: one left over
        ({"a": 1, "b": 1, "c": 1}, 10, {"a": 4, "b": 3, "c": 3}),
        # 4 * (.7, .2, .1) = 2.8, .8, .4: floors 2, 0, 0; the two largest remainders get one
        ({"a": 7, "b": 2, "c": 1}, 4, {"a": 3, "b": 1}),
    ],
)
def test_shares_are_rounded_by_largest_remainder(
    shares: dict[str, float], num_clients: int, expected: dict[str, int]
) -> None:
    assert Counter(assign_architectures(shares, num_clients, rng())) == expected


@settings(max_examples=100, deadline=None)
@given(
    shares=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8),
    num_clients=st.integers(1, 200),
)
def test_counts_add_up_and_are_within_one_of_the_exact_share(
    shares: list[float], num_clients: int
) -> None:
    names = {f"m{i}": share for i, share in enumerate(shares)}
    assigned = assign_architectures(names, num_clients, rng())
    assert len(assigned) == num_clients
    counts = Counter(assigned)
    for name, share in names.items():
        assert abs(counts[name] - num_clients * share / sum(shares)) < 1 + 1e-9


def test_who_gets_what_is_shuffled_by_the_generator() -> None:
    shares = {"a": 1, "b": 1}
    one, again, other = (list(assign_architectures(shares, 40, rng(k))) for k in (0, 0, 1))
    assert one == again
    assert one != other
    assert one != sorted(one)
    assert {type(name) for name in one} == {str}


@pytest.mark.parametrize(
    ("shares", "num_clients", "message"),
    [
        ({}, 3, "0 architectures"),
        ({"a": 1}, 0, "num_clients=0"),
        ({"a": 1, "b": 0}, 3, "share=0 of architecture 'b'"),
        ({"a": -1.0}, 3, "share=-1.0 of architecture 'a'"),
        ({"a": 1.0, "b": float("nan")}, 3, "share=nan of architecture 'b'"),
    ],
    ids=str,
)
def test_impossible_populations_are_refused(
    shares: dict[str, float], num_clients: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        assign_architectures(shares, num_clients, rng())


@pytest.mark.parametrize(
    ("num_clients", "expected"), [(1, "d4fc12b634627142"), (1000, "0a73f01f632c2b48")]
)
def test_who_has_which_architecture_stays_as_it_was(num_clients: int, expected: str) -> None:
    """Recorded when names, and not codes, were shuffled."""
    shares = {"mlp": 2, "cnn": 1, "a longer name": 0.5}
    assigned = assign_architectures(shares, num_clients, rng(num_clients))
    assert hashlib.sha256("\n".join(assigned).encode()).hexdigest()[:16] == expected


# --- the type ---


def test_architectures_read_like_a_list_of_names() -> None:
    kinds = Architectures(("a", "b", "c"), np.array([1, 0, 1, 1], dtype=np.uint8))
    assert list(kinds) == [kinds[k] for k in range(4)] == ["b", "a", "b", "b"]
    assert len(kinds) == 4
    assert kinds[-1] == kinds[np.int64(2)] == "b"
    assert list(kinds[1:3]) == ["a", "b"]
    assert [kinds.count(name) for name in ("a", "b", "c", "d")] == [1, 3, 0, 0]
    assert "a" in kinds
    assert "c" not in kinds  # known, but nobody has it
    with pytest.raises(IndexError):
        kinds[4]


@pytest.mark.parametrize(("number", "item_bytes"), [(1, 1), (256, 1), (257, 2)])
def test_a_client_costs_a_byte_up_to_256_architectures(number: int, item_bytes: int) -> None:
    shares = {f"m{k}": 1.0 for k in range(number)}
    kinds = assign_architectures(shares, 10_000, rng())
    assert kinds.codes.nbytes == 10_000 * item_bytes
    assert len(set(kinds)) == number
    assert len(pickle.dumps(kinds)) < 10_000 * item_bytes + 100 * number + 1000
