"""What a run says of its data before anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clients import data
from tests.quick_runs import federated

BLOBS = data.blobs(num_examples=40, num_classes=4, image_shape=(1, 2, 3), test_share=0.25)
FEW = ["clients=same", "student=mlp", "partition=iid", "clients.num_clients=2", "probes=none"]
FEW += ["clients.training.epochs=1", "strategy.distil.epochs=1", "data=npz"]


def cut(proxy: data.Dataset | None = None) -> data.Splits:
    limits = {"limit": None, "proxy_limit": None, "rng": np.random.default_rng(0)}
    return data.split(*BLOBS, proxy_share=0.2, proxy_source=proxy, **limits)  # type: ignore[arg-type]


def test_how_many_examples_of_which_shape_there_are() -> None:
    shape = "inputs [1, 2, 3], outputs [4] (classification)"
    said = f"blobs: 24 private, 6 proxy and 10 test examples; {shape}"
    assert data.described(cut()) == said
    ramp = np.arange(42, dtype=np.float32).reshape(7, 1, 2, 3)
    about = BLOBS[0].task, 1.0, (0.0,), (1.0,)
    other = data.Dataset("noise", ramp, np.zeros(7, np.int64), *about)
    said = f"blobs: 30 private, 7 proxy (noise) and 10 test examples; {shape}"
    assert data.described(cut(other)) == said


@pytest.mark.parametrize(
    ("labels", "values", "said"),
    [
        ([0, 1, 2, 3], None, None),
        ([0, 0, 3, 3], None, "own: clients have no example of 1, 2, of 4 classes"),
        ([0, 1, 1, 3], (5, 7, 9, 10), "own: clients have no example of 9, of 4 classes"),
        ([1, 1, 1, 1], tuple("abcd"), "own: clients have no example of a, c, d, of 4 classes"),
    ],
)  # fmt: skip
def test_classes_without_an_example_are_told(
    labels: list[int], values: data.dataset.LabelValues | None, said: str | None
) -> None:
    inputs = np.zeros((4, 2), np.float32)
    task = data.classification((2,), 4)
    own = data.Dataset("own", inputs, np.array(labels), task, 1.0, (0.0,) * 2, (1.0,) * 2, values)
    assert data.without_examples(own) == said


def test_of_what_is_no_class_nothing_is_told() -> None:
    assert data.without_examples(data.diabetes()[0]) is None


def test_a_run_says_so_before_its_rounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 4), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", images=images, labels=np.arange(40) % 3)
    words = [f"data.source.path={tmp_path / 'own.npz'}", "data.source.num_classes=5"]
    federated(tmp_path / "run", *FEW, *words)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("own.npz: 26 private, 6 proxy and 8 test examples; inputs [1, 3, 4]")
    warned = lines.index("own.npz: clients have no example of 3, 4, of 5 classes")
    assert warned < next(n for n, line in enumerate(lines) if line.startswith("round 1"))
