"""Weights of letters on every shipped graph: rows sum to one, the newest counts, no mass is made.

That where nobody trains nothing moves is in test_nobody_trains.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sim.topology.availability import Availability
from strategies.decentralised.delivery import Delivery, Mixing, Neighbours
from strategies.decentralised.late_messages import round_of
from tests.shipped import FAULTS, MIXINGS, TOPOLOGIES, mixings_of, serverless

ROUNDS = 8
SUMS = 1e-12
"""How far a sum of at most eight weights may be from what it is to be: rounding leaves 1e-15."""

QUICK = settings(max_examples=2, deadline=None, phases=(Phase.reuse, Phase.generate))
"""An example is several hundred rounds; what fails names its case, so no smaller one is sought."""
MISSING = [("own", True), ("renormalise", True), ("drop", False)]

PEERS, SEEDS = st.integers(4, 7), st.integers(0, 2**20)


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph in a file, a ring of two and a loner where there are more."""
    path = tmp_path_factory.mktemp("graphs") / "edges"
    path.write_text("0 1\n1 0\n")
    return path


def test_everything_that_is_shipped_is_looked_at(edges: Path) -> None:
    assert (len(TOPOLOGIES), len(MIXINGS)) == (15, 4)
    assert serverless() == [
        *("strategy=adapt_then_combine", "strategy=cpfl", "strategy=defkt", "strategy=dpsgd"),
        *("strategy=gossip", "strategy=push_sum", "experiment=proxyfl"),
    ]
    built = [mixings_of(name, 8, 0, edges) for name in TOPOLOGIES]
    assert all(built)
    assert sum(map(len, built)) == 50


def cases(
    topology: str, n: int, seed: int, edges: Path
) -> Iterator[tuple[str, Mixing, Availability]]:
    for called, mixing in mixings_of(topology, n, seed, edges).items():
        for kind, faults in FAULTS.items():
            yield f"{called}, {kind}", mixing, Availability(num_peers=n, seed=seed, **faults)


def played(
    mixing: Mixing, there: Availability, missing: Any, failing: int, with_own: bool = True
) -> Iterator[tuple[int, list[int], Delivery, Neighbours]]:
    """Deliver round by round; of those who are awake now and then one has nothing to send."""
    n = there.num_peers
    peers = Neighbours(mixing, there, n, missing)
    for r in range(1, ROUNDS + 1):
        have = [k for k in peers.awake(r) if k != (failing + r) % (2 * n)]
        yield r, have, peers.deliver(r, "x", have, with_own), peers


@pytest.mark.parametrize("topology", TOPOLOGIES)
@QUICK
@given(n=PEERS, seed=SEEDS, failing=SEEDS)
def test_what_a_peer_weighs_letters_with_sums_to_its_row(
    topology: str, n: int, seed: int, failing: int, edges: Path
) -> None:
    for number, (where, mixing, there) in enumerate(cases(topology, n, seed, edges)):
        missing, with_own = MISSING[(failing + number + number // len(FAULTS)) % len(MISSING)]
        for r, have, delivery, _ in played(mixing, there, missing, failing, with_own):
            rows = mixing(r).toarray()
            rows -= 0 if with_own else np.diag(np.diag(rows))
            assert {*have} <= delivery.letters.keys() or not with_own, f"{where}, {missing}"
            for i, own in delivery.letters.items():
                total, wanted = sum(each.weight for each in own), rows[i].sum() or 1.0
                assert total <= wanted + SUMS, f"{where}, {missing}"
                assert missing == "drop" or total >= wanted - SUMS, f"{where}, {missing}"
                assert min(each.weight for each in own) > 0, f"{where}, {missing}"


@pytest.mark.parametrize("topology", TOPOLOGIES)
@QUICK
@given(n=PEERS, seed=SEEDS, failing=SEEDS)
def test_of_each_neighbour_the_newest_letter_counts(
    topology: str, n: int, seed: int, failing: int, edges: Path
) -> None:
    """Told from availability alone: what arrives in a round, if nothing newer came before."""
    for where, mixing, there in cases(topology, n, seed, edges):
        if "late" not in where:
            continue
        newest = np.zeros((n, n), dtype=np.int64)
        arriving = np.zeros((ROUNDS + 4, n, n), dtype=np.int64)
        for r, have, delivery, peers in played(mixing, there, "own", failing):
            receivers, senders = mixing(r).nonzero()
            delays = there.delays(r, senders, receivers)
            for i, j, delay in zip(receivers, senders, delays, strict=True):
                if i != j and j in have and delay >= 0:
                    arriving[r + delay, i, j] = r  # ascending, so that the newest is left
            used = np.zeros((n, n), dtype=np.int64)
            for i, own in delivery.letters.items():
                for each in own:
                    used[i, each.sender] = round_of(each.name)
            np.fill_diagonal(used, 0)
            awake = np.isin(np.arange(n), peers.awake(r))[:, None]
            expected = np.where(awake & (arriving[r] > newest), arriving[r], 0)
            np.testing.assert_array_equal(used, expected, f"{where}, round {r}")
            newest = np.maximum(newest, used)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@QUICK
@given(n=PEERS, seed=SEEDS, failing=SEEDS)
def test_pushed_weight_is_neither_made_nor_lost(
    topology: str, n: int, seed: int, failing: int, edges: Path
) -> None:
    """What is sent comes to the columns of W, and all there is, where these are one, to n."""
    for where, mixing, there in cases(topology, n, seed, edges):
        mass, kept, whole = np.ones(n), dict[tuple[str, int], float](), True
        for r, have, delivery, peers in played(mixing, there, "sender", failing):
            kept |= {(f"x@{r}", j): mass[j] for j in have}
            flying = [each for _, _, each in peers._late]
            sent = np.zeros(n)
            for each in [*flying, *(each for own in delivery.letters.values() for each in own)]:
                sent[each.sender] += each.weight * (round_of(each.name) == r)
            columns = mixing(r).sum(axis=0)
            np.testing.assert_allclose(sent[have], columns[have], 0, SUMS, err_msg=where)
            for i, own in delivery.letters.items():
                mass[i] = sum(each.weight * kept[each.name, each.sender] for each in own)
            assert mass.min() > 0, where
            total = mass.sum() + sum(each.weight * kept[each.name, each.sender] for each in flying)
            whole = whole and np.allclose(columns, 1.0, 0, SUMS)
            assert not whole or total == pytest.approx(n, rel=SUMS), where
