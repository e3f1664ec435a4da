"""HeteroFL of examples/: slices of the global network, averaged number by number."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import MetricRecord, RecordDict

from clients.data import classification
from clients.messages.arrays import read_arrays, write_arrays
from clients.models import cnn
from clients.models.factory import parameters_of
from tests.example_runs import EXAMPLES, both_pools, imported
from tests.quick_runs import federated

MINE = ["--config-dir", str(EXAMPLES / "heterofl"), "student=sliced", "partition=iid",
        "clients.training.epochs=5"]  # fmt: skip
SLICES = [*MINE, "strategy=heterofl", "clients=slices"]
W = {"w": (2, 2)}


@pytest.fixture
def heterofl() -> Any:
    return imported("heterofl")


def reply(arrays: Any, examples: int) -> RecordDict:
    sent = {name: np.array(array, np.float32) for name, array in arrays.items()}
    metrics = MetricRecord({"num-examples": examples, "train-loss": 0.0})
    return RecordDict({"arrays": write_arrays(sent), "metrics": metrics})


def strategy_of(heterofl: Any, own: Any, student: Any, **changes: Any) -> Any:
    models = {f"arch{k}": model for k, model in enumerate(own)}
    test = SimpleNamespace(task=classification((2,), 2))
    numbers = {"seed": 0, "window": "first", "by_examples": True, "fraction": 1.0, **changes}
    about: dict[str, Any] = {"architectures": [*models], "models": models, "test": test}
    return heterofl.HeteroFL(student=student, **about, **numbers)


@pytest.mark.parametrize(
    ("by_examples", "shift", "first"),
    [(True, 0, [[4, 2], [3, 4]]), (False, 0, [[3, 2], [3, 4]]), (True, 1, [[1, 2], [3, 4.75]])],
)
def test_a_number_is_the_mean_over_those_who_have_it_by_hand(
    heterofl: Any, by_examples: bool, shift: int, first: Any
) -> None:
    """(1 * 1 + 3 * 5) / 4 upper left, the only one of the second client; or lower right."""
    one, other = reply({"w": [[1, 2], [3, 4]]}, 1), reply({"w": [[5]]}, 3)
    sums = heterofl.Sums(W, shift, by_examples)
    sums.add(one)
    halves = heterofl.Sums(W, shift, by_examples)
    halves.add(other)
    sums.merge(halves.part())
    np.testing.assert_allclose(sums.sums["w"] / sums.mass["w"], first)


def test_numbers_that_nobody_has_stay(heterofl: Any) -> None:
    strategy = object.__new__(heterofl.HeteroFL)
    strategy.whole, strategy.rolls, strategy.by_examples = {**W, "n": ()}, False, True
    strategy.arrays = {"w": np.arange(4, dtype=np.float32).reshape(2, 2), "n": np.array(7)}
    replies = [SimpleNamespace(has_content=lambda: True, content=reply({"w": [[5]], "n": 9}, 3),
                               metadata=SimpleNamespace(src_node_id=3))]  # fmt: skip
    arrays, metrics = strategy.aggregate_train(1, replies)
    found = read_arrays(arrays)
    assert found["w"].tolist() == [[5, 1], [2, 3]]
    assert (found["w"].dtype, found["n"].dtype, int(found["n"])) == (np.float32, np.int64, 9)
    assert metrics["trained_share"] == 2 / 5


def test_a_window_rolls_over_units_and_the_pixels_of_flat_channels(heterofl: Any) -> None:
    """Of 3 units 2 from the last on: 2, 0; of 3 channels with 4 pixels each likewise."""
    whole = {"a": (3, 5), "b": (3,), "c": (4, 12), "d": (4,)}
    own = {"a": (2, 5), "b": (2,), "c": (4, 8), "d": (4,)}
    at = heterofl.places(whole, own, shift=2)
    values = {name: np.arange(np.prod(shape)).reshape(shape) for name, shape in whole.items()}
    assert values["a"][at["a"]][:, 0].tolist() == [10, 0]
    assert values["b"][at["b"]].tolist() == [2, 0]
    assert values["c"][at["c"]][0].tolist() == [8, 9, 10, 11, 0, 1, 2, 3]
    assert values["d"][at["d"]].tolist() == [0, 1, 2, 3]
    first = heterofl.places(whole, own)
    assert all((values[n][first[n]] == values[n][tuple(map(slice, own[n]))]).all() for n in own)


@pytest.mark.parametrize("shift", [0, 3])
def test_a_slice_answers_as_the_whole_whose_other_units_are_0(heterofl: Any, shift: int) -> None:
    narrow, wide = (
        cnn((1, 8, 8), 5, channels=(2,), hidden=3),
        cnn((1, 8, 8), 5, channels=(4,), hidden=6),
    )
    shapes = [heterofl.shapes_of(parameters_of(each)) for each in (wide, narrow)]
    at, small = heterofl.places(*shapes, shift), parameters_of(narrow)
    whole = {name: np.zeros(shape, np.float32) for name, shape in shapes[0].items()}
    for name, where in at.items():
        whole[name][where] = small[name]
    wide.load_state_dict({name: torch.from_numpy(array) for name, array in whole.items()})
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(wide(images), narrow(images), rtol=1e-4, atol=1e-5)


def test_what_the_scaler_does_and_what_is_refused(heterofl: Any) -> None:
    half, inputs = heterofl.Scaler(0.5), torch.ones(2)
    assert half(inputs).tolist() == [2, 2]
    assert half.eval()(inputs).tolist() == [1, 1]
    assert [m.share for m in heterofl.sliced((1, 2, 2), 3, tier=0.25).modules()
            if isinstance(m, heterofl.Scaler)] == [0.25, 0.25]  # fmt: skip
    with pytest.raises(ValueError, match=r"tier=0: expected a share in \(0, 1\]"):
        heterofl.sliced((1, 2, 2), 3, tier=0)
    with pytest.raises(ValueError, match=r"strategy\.window=last: expected first or rolling"):
        strategy_of(heterofl, [], torch.nn.Linear(2, 2), window="last")


def test_a_network_that_is_no_slice_of_the_students_is_refused(heterofl: Any) -> None:
    student, small = torch.nn.Linear(2, 2), partial(torch.nn.Linear, 1, 2)
    strategy_of(heterofl, [small], student)
    for model in (partial(torch.nn.Linear, 3, 2), partial(torch.nn.Conv1d, 2, 2, 1), torch.nn.ReLU):
        with pytest.raises(ValueError, match="architecture 'arch1' is no slice of the student"):
            strategy_of(heterofl, [small, model], student)


@pytest.mark.slow
def test_slices_learn_more_than_small_networks_alone_on_both_pools_and_after_a_resume(
    tmp_path: Path,
) -> None:
    others = {"rolling": "strategy.window=rolling", "plain": "student.scaler=false",
              "alike": "strategy.by_examples=false partition=dirichlet"}  # fmt: skip
    target = "heterofl.HeteroFL,heterofl.sliced"
    runs = both_pools(tmp_path, [*SLICES, "rounds=3"], target, **others)
    whole = runs["inline"]["student_accuracy"]
    alone = federated(tmp_path / "alone", *MINE, "rounds=3", "strategy=averaging", "clients=same",
                      "student.hidden=[4,4]", "seed=7")  # fmt: skip
    assert whole > alone["student_accuracy"] + 0.2
    assert runs["inline"]["reply_bytes"] < 0.7 * 3 * 10 * 4 * 9000
