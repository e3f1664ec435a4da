"""Selection of distilled examples: by hand, and in rounds in which only those are learned from."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from strategies.teaching.selection import diverse, minority, random, uncertain
from tests.federations import distillation, open_pool, run_ours, simulated, tiny_clients

LOGITS = torch.tensor([[9.0, 0, 0], [1, 1, 1], [0, 5, 5], [0, 0, 2]])


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_least_sure_come_first() -> None:
    """Entropies are about 0, ln 3, ln 2 and 0.67."""
    assert uncertain(student=LOGITS, share=0.25).tolist() == [1]
    assert uncertain(student=LOGITS, share=0.5).tolist() == [1, 2]
    assert uncertain(student=LOGITS, share=0.01).tolist() == [1]  # one at least
    never = torch.tensor([[9.0, 0, 0], [0, 0, -torch.inf], [0, 0, 0]])  # entropies 0, ln 2, ln 3
    assert uncertain(student=never, share=0.6).tolist() == [2, 1]


def test_the_farthest_comes_next() -> None:
    corners = torch.tensor([[9.0, 0, 0], [8.9, 0, 0], [0, 9.0, 0], [0, 0, 9.0]])
    found = diverse(student=corners, rng=rng(), share=0.75)
    assert len({*found.tolist()} & {0, 1}) == 1  # of two that are alike one
    assert {2, 3} < {*found.tolist()}
    same = diverse(student=torch.zeros(5, 2), rng=rng(), share=1.0)
    assert sorted(same.tolist()) == [0, 1, 2, 3, 4]


def test_rare_classes_are_there_and_the_others_alike() -> None:
    said = torch.nn.functional.one_hot(torch.tensor([0] * 8 + [1] * 3 + [2]), 3).float()
    found = minority(student=said, rng=rng(), share=0.5)
    counts = np.bincount(said.argmax(-1).numpy()[found], minlength=3)
    assert counts.tolist() == [3, 2, 1] or counts.tolist() == [2, 3, 1]


def test_a_share_at_random() -> None:
    found = random(ids=np.arange(40), rng=rng(), share=0.25)
    assert len({*found.tolist()}) == 10
    assert found.max() > 9
    for odd in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"strategy\.selection\.share"):
            random(ids=np.arange(4), rng=rng(), share=odd)


LEARNED: list[Any] = []


def some(*, ids: Any, student: Any, inputs: Any, server_round: int) -> Any:
    assert len(ids) == len(student) == len(inputs)
    return ids % 2 == server_round % 2  # a mask


def noting(model: Any, dataset: Any, indices: Any, *what: Any, **numbers: Any) -> list[float]:
    LEARNED.append(indices.copy())
    return [0.0]


def test_so_many_at_random_or_all_if_there_are_fewer() -> None:
    rng = np.random.default_rng(0)
    few, all_ = (random(ids=np.arange(9), rng=rng, examples=number) for number in (4, 1000))
    assert len(set(few.tolist())) == 4
    assert sorted(all_.tolist()) == [*range(9)]
    with pytest.raises(ValueError, match="examples=0: expected >= 1"):
        random(ids=np.arange(9), rng=rng, examples=0)


@pytest.mark.parametrize("watched", [False, True])
def test_only_what_is_selected_is_learned_from_and_probes_look_at_the_same(watched: bool) -> None:
    clients = tiny_clients(3)
    views: list[Any] = []
    more = {"report": views.append} if watched else {}
    how = {"distil": partial(noting, epochs=1), "probe_examples": 4}
    strategy = distillation(clients, selection=some, **how, **more)
    LEARNED.clear()
    with open_pool("inline", simulated(clients, strategy)) as pool:
        found = run_ours(pool, clients, strategy, rounds=2)
    whole = strategy.split.distilled_ids
    assert [each.tolist() for each in LEARNED] == [
        whole[whole % 2 == 1].tolist(), whole[whole % 2 == 0].tolist()
    ]  # fmt: skip
    assert [report.train["dropped-examples"] for report in found.reports] == [0, 0]
    if watched:
        assert len({view.proxy_ids for view in views}) == 1
        assert views[0].teachers.logits.shape[1] == 4
    answered = [e for e in found.reports[0].exchanges if e.phase == "train.predictions"]
    whole_bytes = distillation(clients)
    with open_pool("inline", simulated(clients, whole_bytes)) as pool:
        usual = run_ours(pool, clients, whole_bytes)
    before = [e for e in usual.reports[0].exchanges if e.phase == "train.predictions"]
    assert answered[0].reply_bytes < before[0].reply_bytes


def test_each_round_draws_other_examples_and_messages_are_as_long() -> None:
    clients = tiny_clients(3)
    how = {"selection": partial(random, share=0.5), "distil": partial(noting, epochs=1)}
    strategy = distillation(clients, **how)
    LEARNED.clear()
    with open_pool("inline", simulated(clients, strategy)) as pool:
        found = run_ours(pool, clients, strategy, rounds=2)
    first, second = LEARNED
    assert len(first) == len(second) == len(strategy.split.distilled_ids) // 2
    assert {*first} != {*second}
    sizes = [
        [(e.request_bytes, e.reply_bytes) for e in report.exchanges if e.phase.startswith("train")]
        for report in found.reports
    ]
    assert sizes[0] == sizes[1] != []


@pytest.mark.parametrize("how", [random, uncertain, diverse, minority])
def test_selections_have_the_same_bits_on_both_pools(how: Any) -> None:
    clients, hashes = tiny_clients(3), {}
    for pool in ("inline", "ray"):
        strategy = distillation(clients, selection=partial(how, share=0.4))
        with open_pool(pool, simulated(clients, strategy)) as opened:
            hashes[pool] = run_ours(opened, clients, strategy, rounds=2).sha256
    assert hashes["inline"] == hashes["ray"]
    plain = distillation(clients)
    with open_pool("inline", simulated(clients, plain)) as opened:
        assert run_ours(opened, clients, plain, rounds=2).sha256 != hashes["inline"]


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        (
            lambda: np.array([3, 0, 3]),
            r"selection: gave position 3 2 times, expected positions \[M",
        ),
        (lambda: np.array([99]), r"gave position 99, which is none of 0\.\.23"),
        (lambda: np.array([1, -1]), r"gave position -1, which is none of 0\.\.23"),
        (lambda: np.array([], np.int64), r"gave no position, expected positions \[M\] among 24"),
        (lambda: np.zeros(24, bool), r"its mask \[24\] selects nothing, expected"),
        (lambda: np.ones(23, bool), r"gave bool \[23\], expected .* or a mask \[24\]"),
        (lambda: np.array([0.5]), r"gave float64 \[1\], expected"),
        (lambda: None, "what it gave is of NoneType: expected an array"),
        (lambda: [[1], [2, 3]], "what it gave is of list: expected an array"),
        (lambda: torch.zeros(2, dtype=torch.bfloat16), "gave is of torch.bfloat16: expected"),
    ],
    ids=["twice", "beyond", "below", "none", "mask", "short", "floats", "None", "ragged", "bf16"],
)
def test_what_is_no_selection_is_told_by_name(selection: Any, said: str) -> None:
    clients = tiny_clients(2)
    strategy = distillation(clients, selection=selection)
    with (
        open_pool("inline", simulated(clients, strategy)) as pool,
        pytest.raises(ValueError, match=said),
    ):
        run_ours(pool, clients, strategy)


def test_what_nobody_gives_and_several_chunks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"strategy\.selection\.labels is not set.*student, ids"):
        distillation(tiny_clients(2), selection=lambda *, labels: labels)
    with pytest.raises(ValueError, match=r"proxy_split\.chunks=2: expected 1"):
        distillation(tiny_clients(2), selection=partial(random, share=0.5), chunks=2)
