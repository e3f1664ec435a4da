"""Views: what a client sees of an input, by hand; training, answers and tests go by them."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from clients.data import Dataset, blobs, classification, normalised, subset, viewed
from clients.models import mlp
from clients.population.rehearsal import rehearse
from clients.population.views import (
    PHASES,
    flipped,
    low_resolution,
    occluded,
    require_view,
    rotated,
    seen_by,
    shifted,
)
from strategies.server.averaging import Averaging
from tests.federations import (
    SEED,
    distillation,
    inline,
    open_pool,
    run_ours,
    simulated,
    tiny_clients,
)

IMAGE = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def images(number: int, side: int = 4) -> Any:
    return np.ones((number, 2, side, side), np.float32)


# --- those that are shipped, by hand ---


def test_a_mirrored_image_and_none_outside_of_training() -> None:
    found = flipped(IMAGE.copy(), phase="train", rng=rng(), share=1.0)
    assert found[0, 0].tolist() == IMAGE[0, 0, :, ::-1].tolist()
    for phase in ("answer", "test"):
        assert flipped(IMAGE.copy(), phase=phase, rng=rng(), share=1.0).tolist() == IMAGE.tolist()
    many = np.broadcast_to(IMAGE, (2000, 1, 4, 4)).copy()
    share = (flipped(many, phase="train", rng=rng(), share=0.3)[:, 0, 0, 0] == 3).mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 2000)


def test_a_moved_image_has_its_edge_again() -> None:
    many = np.broadcast_to(IMAGE, (200, 1, 4, 4)).copy()
    found = shifted(many, phase="train", rng=rng(), pixels=1)
    kinds = {tuple(each.ravel().tolist()) for each in found}
    padded = np.pad(IMAGE[0, 0], 1, mode="edge")
    assert kinds == {
        tuple(padded[i : i + 4, j : j + 4].ravel().tolist()) for i in range(3) for j in range(3)
    }
    assert shifted(many.copy(), phase="test", rng=rng(), pixels=1).tolist() == many.tolist()


@pytest.mark.parametrize(("client_id", "corner"), [(0, 0), (1, 3), (2, 15), (3, 12), (5, 3)])
def test_a_client_turns_its_images_by_its_own_quarters(client_id: int, corner: int) -> None:
    assert rotated(IMAGE, client_id=client_id)[0, 0, 0, 0] == corner
    assert rotated(IMAGE, client_id=client_id, turns=[1])[0, 0, 0, 0] == 3


@pytest.mark.parametrize(("share", "hidden"), [(0.0, 0), (0.25, 4), (1.0, 16)])
def test_a_square_of_the_share_is_hidden(share: float, hidden: int) -> None:
    found = occluded(images(50), client_id=1, rng=rng(), share=share)
    assert ((found == 0).sum(axis=(2, 3)) == hidden).all()
    if 0 < share < 1:
        assert len({each.tobytes() for each in found}) == 9  # all places
    assert (occluded(images(5), client_id=1, rng=rng(), clients=[0]) == 1).all()


def test_blocks_of_pixels_are_their_means() -> None:
    found = low_resolution(IMAGE, client_id=0, factor=2)[0, 0]
    assert found[:2, :2].tolist() == [[2.5, 2.5], [2.5, 2.5]]  # of 0, 1, 4, 5
    odd = low_resolution(IMAGE, client_id=0, factor=3)[0, 0]
    assert odd[3, 3] == 15  # a block of one
    assert odd[0, 3] == 7  # of 3, 7, 11
    assert low_resolution(IMAGE, client_id=0, factor=1).tolist() == IMAGE.tolist()
    assert low_resolution(IMAGE, client_id=0, clients=[1]).tolist() == IMAGE.tolist()


# --- a data set that is seen ---


def test_a_view_is_of_network_inputs_and_goes_with_its_data_set() -> None:
    inputs = np.array([[[0, 2]], [[4, 8]]], np.uint8).reshape(2, 1, 1, 2)
    plain = Dataset(
        "two", inputs, np.array([0, 1]), classification((1, 1, 2), 2), 0.5, (1.0,), (2.0,)
    )
    seen = viewed(plain, lambda values: values + 1)
    assert normalised(plain, np.array([1])).ravel().tolist() == [0.5, 1.5]
    assert normalised(seen, np.array([1])).ravel().tolist() == [1.5, 2.5]
    assert normalised(subset(seen, np.array([1, 0])), np.array([0])).ravel().tolist() == [1.5, 2.5]
    assert seen.inputs is plain.inputs
    assert normalised(seen, np.array([0, 1])).strides == normalised(plain, np.array([0, 1])).strides


def test_the_generator_of_a_view_goes_on_from_batch_to_batch() -> None:
    private, _ = blobs(num_examples=40, seed=1)
    key = np.random.SeedSequence(3)

    def noisy(inputs: Any, *, rng: np.random.Generator) -> Any:
        return inputs + rng.random(inputs.shape)

    one, two = (seen_by(noisy, private, 0, "train", key) for _ in range(2))
    ids = np.arange(8)
    whole = normalised(one, ids)
    halves = [normalised(two, ids[:4]), normalised(two, ids[4:])]
    np.testing.assert_array_equal(whole, np.concatenate(halves))
    assert (normalised(one, ids) != whole).all()


# --- clients that look ---


def noised(inputs: Any, *, client_id: int, phase: str, rng: np.random.Generator) -> Any:
    """Add what says who looks and for what, and noise."""
    mark = 0.1 * client_id + PHASES.index(phase)  # type: ignore[arg-type]
    return inputs + np.float32(mark) + 0.1 * rng.standard_normal(inputs.shape, dtype=np.float32)


def averaged(group_size: int, pool: str = "inline", view: Any = noised, **more: Any) -> Any:
    small = {"architectures": ["mlp"] * 4, "student": partial(mlp, hidden=(8,))}
    clients = tiny_clients(4, view=view, **small, **more)
    strategy = Averaging(seed=SEED)
    with open_pool(pool, simulated(clients, strategy)) as opened:
        from sim.engine.grid import PoolGrid

        grid = PoolGrid(opened, clients.architectures, group_size=group_size)
        return run_ours(opened, clients, strategy, rounds=2, grid=grid)


def test_clients_see_the_same_alone_together_and_over_ray() -> None:
    """Sizes differ, so batches are padded: a view does not draw for what pads."""
    cut = np.split(np.arange(120), [17, 50, 83])
    alone, together = (averaged(size, partitions=cut) for size in (1, 4))
    for name, value in alone.parameters.items():
        np.testing.assert_allclose(together.parameters[name], value, rtol=2e-4, atol=2e-5)
    plain = averaged(4, partitions=cut, view=None)
    distance = max(abs(plain.parameters[n] - v).max() for n, v in alone.parameters.items())
    assert distance > 0.01
    over_ray = averaged(4, "ray", partitions=cut)
    assert over_ray.sha256 == together.sha256


def test_each_round_phase_and_client_sees_by_a_stream_of_its_own() -> None:
    def drawn(inputs: Any, *, rng: np.random.Generator) -> Any:
        return np.full_like(inputs, rng.random())

    clients = tiny_clients(2, view=drawn)
    looks = [(k, phase, r) for k in (0, 1) for phase in PHASES for r in (1, 2)]
    once, again = (
        [
            normalised(clients.seen(clients.splits.test, *each), np.array([0])).max()
            for each in looks
        ]
        for _ in range(2)
    )
    assert once == again
    assert len({*once}) == len(looks) == 12


def test_each_phase_is_told_and_answers_are_to_what_a_client_sees() -> None:
    told: list[tuple[int, str]] = []

    def watching(inputs: Any, *, client_id: int, phase: str) -> Any:
        told.append((client_id, phase))
        return inputs if phase == "train" else np.zeros_like(inputs)

    clients = tiny_clients(2, view=watching)
    strategy = distillation(clients)
    run_ours(inline(simulated(clients, strategy)), clients, strategy)
    assert {*told} == {(k, phase) for k in (0, 1) for phase in PHASES}
    answers = strategy.teachers._first  # nothing is kept of summed answers
    assert answers is None
    blind = tiny_clients(1, view=watching)
    app, strategy = simulated(blind), distillation(blind)
    found = run_ours(inline(app), blind, strategy)
    accuracy = found.reports[0].evaluated["ensemble-accuracy"]
    share = np.bincount(blind.splits.test.labels).max() / len(blind.splits.test)
    assert accuracy <= share + 1e-6  # it says one class of all


def test_a_client_that_cannot_see_fails_by_name_and_the_others_go_on() -> None:
    def odd(inputs: Any, *, client_id: int, phase: str) -> Any:
        return inputs[:, :, :2] if client_id == 2 else inputs

    found = averaged(1, view=odd)
    failures = {(e.client_id, e.failure) for e in found.reports[0].exchanges if e.failure}
    assert {k for k, _ in failures} == {2}
    assert all("clients.view gave inputs of float32 (" in line for _, line in failures)


# --- what is no view ---


def needy(inputs: Any, *, strength: float) -> Any:
    return inputs * strength


class Hoarder:
    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, inputs: Any) -> Any:
        self.seen += 1
        return inputs


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (needy, "clients.view.strength is not set.*client_id, phase, rng"),
        (lambda inputs: inputs[:1], r"clients.view gave inputs of float32 \(1,"),
        (lambda inputs: inputs > 0, "clients.view gave inputs of bool"),
        (lambda inputs: inputs / 0, "clients.view gave inputs that are not finite"),
        (lambda inputs: inputs.no, "clients.view: AttributeError"),
        (lambda inputs: None, "clients.view: what it gave is of NoneType: expected an array"),
        (lambda inputs: [[1.0], []], "clients.view: what it gave is of list: expected an array"),
        (Hoarder(), "clients.view: Hoarder changed its 'seen'"),
    ],
    ids=["needy", "shape", "kind", "infinite", "error", "None", "ragged", "hoarder"],
)  # fmt: skip
def test_what_is_no_view_is_refused_before_anybody_trains(view: Any, said: str) -> None:
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=said):
        rehearse(tiny_clients(2, view=view))


@pytest.mark.parametrize("view", [flipped, shifted, rotated, occluded, low_resolution])
def test_views_of_images_say_so_of_a_table(view: Any) -> None:
    task, rows = classification((3,), 2), np.ones((4, 3), np.float32)
    table = Dataset("table", rows, np.array([0, 1, 0, 1]), task, 1.0, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(ValueError, match=rf"{view.__name__} takes images .* inputs are \[3\]"):
        require_view(view, table)


def test_tokens_stay_tokens() -> None:
    task = classification((3,), 2, num_tokens=5)
    words = Dataset("words", np.array([[0, 1, 2], [3, 4, 0]], np.uint8), np.array([0, 1]), task)
    require_view(lambda tokens: (tokens + 1) % 5, words)
    with pytest.raises(ValueError, match=r"tokens beyond 0\.\.4"):
        require_view(lambda tokens: tokens + 3, words)
    with pytest.raises(ValueError, match="gave inputs of float64"):
        require_view(lambda tokens: tokens * 0.5, words)


def test_a_view_of_torch_is_a_view() -> None:
    private, _ = blobs(num_examples=40, seed=1)

    def scaled(inputs: Any) -> Any:
        return torch.from_numpy(inputs).mul(2)

    require_view(scaled, private)
