"""How the proxy set is cut, and into which chunks."""

from typing import Any

import numpy as np
import pytest

from sim.engine.grid import assume_task_identity
from strategies.teaching.proxy_split import cut_proxy
from tests.distilling import make


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


@pytest.mark.parametrize("num_chunks", [1, 2, 5, 80])
def test_chunks_are_the_distilled_ids_at_random_in_even_parts(num_chunks: int) -> None:
    cut = cut_proxy(100, 0.2, True, num_chunks, 30, seed=3)
    assert len(cut.chunks) == len(cut.probes) == num_chunks
    sizes = [len(chunk) for chunk in cut.chunks]
    assert max(sizes) - min(sizes) <= 1
    assert all((np.diff(chunk) > 0).all() for chunk in cut.chunks)
    both = np.sort(np.concatenate([cut.negative_ids, *cut.chunks]))
    assert both.tolist() == list(range(100))
    assert cut.distilled_ids.tolist() == sorted(set(range(100)) - set(cut.negative_ids.tolist()))
    if num_chunks == 2:  # not the first and the second half
        assert 0.2 < (cut.chunks[0] < 50).mean() < 0.8


def test_negatives_and_probes_do_not_depend_on_the_number_of_chunks() -> None:
    cuts = [cut_proxy(100, 0.2, True, number, 30, seed=3) for number in (1, 4)]
    assert cuts[0].negative_ids.tolist() == cuts[1].negative_ids.tolist()
    assert cuts[0].probe_ids.tolist() == cuts[1].probe_ids.tolist()
    assert len(cuts[0].probe_ids) == 30
    assert cut_proxy(100, 0.2, True, 1, 30, seed=4).probe_ids.tolist() != cuts[0].probe_ids.tolist()
    assert (
        cut_proxy(100, 0.2, True, 3, 999, seed=3).probe_ids.tolist()
        == cuts[0].distilled_ids.tolist()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proxy_chunks": 0}, "proxy_chunks=0: expected from 1 to 144"),
        ({"proxy_chunks": 145}, "proxy_chunks=145: expected from 1 to 144"),
        ({"probe_examples": 0}, "probe_examples=0"),
        ({"fallback_below": -0.1}, "fallback_below=-0.1"),
        ({"fallback_below": 1.1}, "fallback_below=1.1"),
        ({"answers": "int4"}, "answers='int4': expected one of float32, float16, uint8"),
        ({"proxy_chunks": 2, "distil": lambda *a: []}, "expected distil to be a trainer with"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)
