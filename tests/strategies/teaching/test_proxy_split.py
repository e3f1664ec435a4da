"""How the proxy set is cut, and into which chunks."""

from typing import Any

import numpy as np
import pytest

from clients.data import subset
from sim.engine.grid import assume_task_identity
from strategies.teaching.proxy_split import ProxySplit
from tests.distilling import PROXY, make

HUNDRED = subset(PROXY, np.arange(100))


def cut_into(chunks: int, probe_examples: int = 30, seed: int = 3) -> ProxySplit:
    numbers = {"chunks": chunks, "probe_examples": probe_examples}
    return ProxySplit(proxy=HUNDRED, seed=seed, negative_share=0.2, **numbers)


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


@pytest.mark.parametrize("num_chunks", [1, 2, 5, 80])
def test_chunks_are_the_distilled_ids_at_random_in_even_parts(num_chunks: int) -> None:
    cut = cut_into(num_chunks)
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
    cuts = [cut_into(number) for number in (1, 4)]
    assert cuts[0].negative_ids.tolist() == cuts[1].negative_ids.tolist()
    assert cuts[0].probe_ids.tolist() == cuts[1].probe_ids.tolist()
    assert len(cuts[0].probe_ids) == 30
    assert cut_into(1, seed=4).probe_ids.tolist() != cuts[0].probe_ids.tolist()
    assert cut_into(3, 999).probe_ids.tolist() == cuts[0].distilled_ids.tolist()
    for cut in cuts:
        at = [chunk[probe] for chunk, probe in zip(cut.chunks, cut.probes, strict=True)]
        assert np.sort(np.concatenate(at)).tolist() == cut.probe_ids.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunks": 0}, "chunks=0: expected from 1 to 144"),
        ({"chunks": 145}, "chunks=145: expected from 1 to 144"),
        ({"probe_examples": 0}, "probe_examples=0"),
        ({"fallback_below": -0.1}, "fallback_below=-0.1"),
        ({"fallback_below": 1.1}, "fallback_below=1.1"),
        ({"answers": "int4"}, "answers: codec 'int4': expected one of float32, float16, uint8"),
        ({"chunks": 2, "distil": lambda *a: []}, "expected distil to be a trainer with"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)
