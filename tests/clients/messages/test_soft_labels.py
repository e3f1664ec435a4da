"""Soft labels in a few bits: levels by hand, bytes after entropy coding, what is refused."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from clients.messages.codecs import codec_of
from clients.messages.layout import LAYOUT, layout_of
from clients.messages.soft_labels import SoftLabels
from sim.engine.grid import PoolGrid
from tests.asking import run
from tests.federations import distillation, inline, run_ours, simulated, tiny_clients

P = np.array([[0.5, 0.3, 0.2]])


@pytest.mark.parametrize(
    ("bits", "levels"),
    [
        (1, [1, 0, 0]),
        (2, [1, 1, 1]),  # 1.5, .9, .6: two are missing, for .9 and .6
        (3, [4, 2, 1]),  # 3.5, 2.1, 1.4: one is, for .5
        (8, [128, 76, 51]),  # 127.5, 76.5, 51: of equal remainders the first
    ],
)
def test_levels_by_hand(bits: int, levels: list[int]) -> None:
    assert SoftLabels(bits).levels(P).tolist() == [levels]


def test_rows_are_the_nearest_on_the_grid_and_sum_to_one() -> None:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(7, 0.3), 500)
    for bits in (1, 2, 4, 8):
        steps = (1 << bits) - 1
        levels = SoftLabels(bits).levels(probs)
        assert (levels.sum(1) == steps).all()
        assert np.abs(levels / steps - probs).max() < 1 / steps + 1e-9


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_probabilities_come_back_as_levels_and_logits_as_their_logarithm(bits: int) -> None:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(5), (30, 2)).astype(np.float32)
    codec = SoftLabels(bits)
    back = codec.decode(codec.encode({"targets": probs}))["targets"]
    assert (back.shape, back.dtype) == (probs.shape, probs.dtype)
    steps = np.float32((1 << bits) - 1)
    levels = codec.levels(probs.reshape(-1, 5)).reshape(probs.shape)
    np.testing.assert_array_equal(back, (levels / steps).astype(np.float32))
    of_logits = SoftLabels(bits, logits=True)
    said = of_logits.decode(of_logits.encode({"logits": np.log(probs) + 3}))["logits"]
    np.testing.assert_allclose(np.exp(said), np.maximum(back, 1e-6), rtol=1e-5)


def test_bytes_are_near_the_entropy() -> None:
    """4,000 labels, of ten classes, that are one class in nine of ten cases: .786 bits each."""
    rng = np.random.default_rng(0)
    share = np.array([0.91, *[0.01] * 9])
    labels = rng.choice(10, 4000, p=share)
    entropy = -(share * np.log2(share)).sum() * 4000 / 8
    sent = SoftLabels(1).encode({"targets": np.eye(10, dtype=np.float32)[labels]})
    assert entropy < sent["deflated"].nbytes < 2 * entropy
    assert sent["deflated"].nbytes < 0.01 * 4000 * 10 * 4


def test_many_classes_take_more_than_a_byte() -> None:
    codec, probs = SoftLabels(1), np.eye(300, dtype=np.float32)[[299, 0, 256]]
    np.testing.assert_array_equal(codec.decode(codec.encode({"a": probs}))["a"], probs)


def test_it_is_one_for_answers_and_for_requests() -> None:
    codec_of(SoftLabels())
    codec_of(SoftLabels(), ("rng", "server_round"))


def replaced(body: np.ndarray, shape: Any = (1, 3)) -> dict[str, np.ndarray]:
    import zlib

    told = layout_of([["a", shape]])
    return {LAYOUT: told, "deflated": np.frombuffer(zlib.compress(body.tobytes()), np.uint8)}


@pytest.mark.parametrize(
    ("bits", "sent", "message"),
    [
        (1, replaced(np.array([3], np.uint8)), "a class is 3, expected 0..2"),
        (2, replaced(np.array([1, 1, 2], np.uint8)), "does not sum to 1"),
        (2, replaced(np.array([1, 1], np.uint8)), "is of 2 bytes, expected 3"),
        (2, replaced(np.array([1, 1, 1, 0], np.uint8)), "is of 4 bytes, expected 3"),
        (2, replaced(np.zeros(1, np.uint8), (10**9, 3)), "cannot be"),
        (2, replaced(np.zeros(0, np.uint8), ()), "expected rows"),
    ],
    ids=["class", "sum", "short", "long", "swells", "no rows"],
)
def test_what_nobody_encodes_is_refused(bits: int, sent: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SoftLabels(bits).decode(sent)


def test_what_is_not_finite_and_bits_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="'a' is not finite"):
        SoftLabels().encode({"a": np.full((1, 3), np.nan, np.float32)})
    for bits in (0, 9):
        with pytest.raises(ValueError, match=f"bits={bits}, expected 1 to 8"):
            SoftLabels(bits)


def test_one_bit_up_makes_a_vote_and_few_bytes_and_a_coded_round_differs_down() -> None:
    views: list[Any] = []
    clients = tiny_clients()
    strategy = distillation(clients, answers=SoftLabels(1, logits=True), report=views.append)
    run(strategy, clients)
    votes = views[0].targets * 5
    np.testing.assert_allclose(votes, votes.round(), atol=1e-3)
    clients = tiny_clients(codec_down=SoftLabels(2))
    strategy = distillation(clients, feed_back="answers")
    app = simulated(clients, strategy)
    about = partial(PoolGrid, inline(app), clients.architectures)
    coded, plain = (
        run_ours(inline(app), clients, strategy, rounds=2, grid=about(encode=encode))
        for encode in (app.encode_request, None)
    )
    sizes = [found.reports[1].exchanges[0].request_bytes for found in (coded, plain)]
    assert sizes[0] < sizes[1]
