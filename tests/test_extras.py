"""The extras, with the packages themselves: ONNX of every shipped network, W&B, MLflow.

Not in `.venv`, so skipped there: `make test-extras` has a place of its own for them.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import stillhouse
from tests.places import CONF

pytestmark = pytest.mark.slow

TINY = [
    *("rounds=1", "sim=inline", "tracking.figures_every=0", "probes=none", "partition=iid"),
    *("strategy=averaging", "clients=same", "clients.num_clients=2", "clients.training.epochs=1"),
    *("data.limit=40", "data.test_limit=20", "data.proxy_share=0"),
]
COLOURS = ("mobilenet_v2_small", "resnet18", "shufflenet_v2_05", "strided_cnn", "vgg9")
TEXTS, PIXELS = ("bag_of_embeddings", "transformer"), ("fcn",)
DATA = {
    **{name: ["data=cifar10"] for name in COLOURS},
    **{name: ["data=shakespeare", "data.limit=200"] for name in TEXTS},
}
MODELS = sorted({path.stem for path in (CONF / "student").glob("*.yaml")} - {*PIXELS})
assert len(MODELS) == 15


@pytest.mark.parametrize("model", MODELS)
def test_onnx_says_what_the_student_says(model: str, tmp_path: Path) -> None:
    """PIXELS have a set of their own, `examples/segmentation`."""
    runtime = pytest.importorskip("onnxruntime")
    stillhouse.run(
        [*TINY, f"student={model}", *DATA.get(model, [])], f"hydra.run.dir={tmp_path / 'run'}"
    )
    path = stillhouse.export(tmp_path / "run", "onnx")
    session = runtime.InferenceSession(str(path))
    (asked,) = session.get_inputs()
    shape = (5, *asked.shape[1:])
    rng = np.random.default_rng(0)
    inputs = rng.uniform(0, 200, shape).astype(np.float32)
    if asked.type == "tensor(int64)":
        inputs = rng.integers(0, 50, shape)
    with torch.no_grad():
        expected = stillhouse.load_student(tmp_path / "run")(torch.from_numpy(inputs)).numpy()
    (found,) = session.run(None, {asked.name: inputs})
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-4 * scale)
    assert np.ptp(found, axis=0).max() > 1e-3 * scale  # it looks at its inputs


@pytest.mark.filterwarnings("ignore")  # of its own database's
def test_mlflow_has_each_rounds_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with stillhouse.to_mlflow(run_name="one") as each:
        result = stillhouse.run(
            [*TINY, "rounds=2"], f"hydra.run.dir={tmp_path / 'run'}", callbacks=[each]
        )
    (row,) = mlflow.search_runs(output_format="list")
    assert (row.info.run_name, row.info.status) == ("one", "FINISHED")
    assert row.data.metrics["student/accuracy"] == result.numbers["student_accuracy"]
    history = mlflow.MlflowClient().get_metric_history(row.info.run_id, "student/accuracy")
    assert [each.step for each in history] == [1, 2]


def test_wandb_has_each_rounds_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with stillhouse.to_wandb(project="p", dir=str(tmp_path)) as each:
        result = stillhouse.run(
            [*TINY, "rounds=2"], f"hydra.run.dir={tmp_path / 'run'}", callbacks=[each]
        )
        wandb.log({}, step=3)  # a step is taken up as the next one comes
        summary = dict(wandb.run.summary)
    assert summary["student/accuracy"] == result.numbers["student_accuracy"]
    assert summary["round"] == 2
