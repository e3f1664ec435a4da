"""Models out of run folders: the student, peers, files of older versions, files for elsewhere."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save

import stillhouse
from clients.data import normalised
from clients.models import cnn
from run import federate
from sim.tracking.model_file_header import KEY, describe, header, read_description
from sim.tracking.run_folder import sha256_of_arrays
from stillhouse.command import main
from stillhouse.wiring import load_splits
from tests.composing import composed
from tests.quick_runs import NO_FIGURES

SHORT = ("sim=inline", "clients.training.epochs=1", NO_FIGURES)
CNN = (*SHORT, "strategy.distil.epochs=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cnn")
    federate(composed(*CNN), folder)
    return folder


@pytest.fixture(scope="module")
def test_set() -> Any:
    return load_splits(composed(*CNN)).test


def accuracy(model: torch.nn.Module, inputs: Any, labels: Any) -> float:
    said = model(torch.tensor(inputs)).argmax(1).numpy()
    return float((said == labels).mean())


def result_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "result.json").read_text()))


def test_numbers_of_any_kind_are_described(test_set: Any) -> None:
    """A reader of one's own may give numpy's."""
    odd = replace(test_set, mean=test_set.inputs.mean((0, 2, 3), np.float32), std=(np.float32(2),))
    said = json.loads(header(describe({"_target_": "x"}, odd))[KEY])
    assert said["std"] == [2.0]
    assert said["mean"] == [pytest.approx(float(odd.mean[0]))]


def test_nothing_is_written_through_a_link(folder: Path, tmp_path: Path) -> None:
    link, victim = tmp_path / "student.pt", tmp_path / "victim"
    victim.write_text("mine")
    link.symlink_to(victim)
    with pytest.raises(ValueError, match="a link, which may lead anywhere"):
        stillhouse.export(folder, out=link)
    assert victim.read_text() == "mine"


def test_a_student_takes_a_files_pixels_or_normalised_ones(folder: Path, test_set: Any) -> None:
    wanted = result_of(folder)["student_accuracy"]
    raw, plain = stillhouse.load_student(folder), stillhouse.load_student(folder, normalised=True)
    assert not raw.training
    assert accuracy(raw, test_set.inputs, test_set.labels) == pytest.approx(wanted, abs=1e-9)
    inputs = normalised(test_set, np.arange(len(test_set)))
    assert accuracy(plain, inputs, test_set.labels) == pytest.approx(wanted, abs=1e-9)
    mine, theirs = raw[0](torch.tensor(test_set.inputs)), torch.from_numpy(inputs)
    assert torch.equal(mine, theirs)  # to the bit


def test_a_file_says_what_it_is_and_has_its_neighbours_mode(folder: Path) -> None:
    path = folder / "student.safetensors"
    about = read_description(path)
    assert about["architecture"]["_target_"] == "clients.models.cnn"
    assert about["architecture"]["channels"] == [16, 32]
    assert (about["input_shape"], about["output_shape"]) == ([1, 8, 8], [10])
    assert about["classes"] == [str(digit) for digit in range(10)]
    assert about["scale"] == 1 / 16
    assert (len(about["mean"]), len(about["std"])) == (1, 1)
    assert about["versions"] == result_of(folder)["versions"]
    assert path.stat().st_mode == (folder / "metrics.jsonl").stat().st_mode
    assert sha256_of_arrays(load_file(path)) == result_of(folder)["student_sha256"]


def test_peers_say_what_they_are_too(tmp_path: Path) -> None:
    federate(composed(*SHORT, "strategy=dml", "strategy.teaching.epochs=1"), tmp_path)
    names = sorted(path.stem for path in (tmp_path / "peers").iterdir())
    assert names == ["lenet5", "logistic_regression", "mlp"]
    for name in names:
        model = stillhouse.load_student(tmp_path, peer=name)
        assert model(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)).shape == (3, 10)
    assert (
        read_description(tmp_path / "peers/mlp.safetensors")["architecture"]
        != (read_description(tmp_path / "student.safetensors")["architecture"])
    )


def test_tokens_go_in_as_they_are(tmp_path: Path) -> None:
    words = (
        "data=shakespeare",
        "clients=mixed_text",
        "student=bag_of_embeddings",
        "data.limit=300",
    )
    words += (
        "data.test_limit=50",
        "strategy.distil.epochs=1",
        "partition=iid",
        "strategy=distillation",
    )
    if not os.environ.get("STILLHOUSE_DATA"):
        pytest.skip("needs STILLHOUSE_DATA")
    config = composed(*SHORT, *words)
    result, test = federate(config, tmp_path), load_splits(config).test
    found = accuracy(stillhouse.load_student(tmp_path), test.inputs, test.labels)
    assert found == pytest.approx(result["student_accuracy"], abs=1e-9)


def rewritten(folder: Path, to: Path, about: Any) -> Path:
    """Copy a student's file with another header; None = that of an older version."""
    arrays = load_file(folder / "student.safetensors")
    header = (
        None if about is None else {KEY: about if isinstance(about, str) else json.dumps(about)}
    )
    (to / "student.safetensors").write_bytes(save(arrays, header))
    return to


def test_a_file_of_an_older_version_is_told_in_a_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="says nothing of its network, as files of older"
    ) as caught:
        stillhouse.load_student(rewritten(folder, tmp_path, None))
    assert str(caught.value).startswith(f"{tmp_path}/student.safetensors: ")
    assert "\n" not in str(caught.value)


def test_a_header_is_not_obeyed(folder: Path, tmp_path: Path) -> None:
    about = read_description(folder / "student.safetensors")
    for target in ("os.system", "clients.data.digits"):
        about["architecture"] = {"_target_": target, "_partial_": True}
        with pytest.raises(ValueError, match=rf"not run because a file says so.*trust=\[{target}"):
            stillhouse.load_student(rewritten(folder, tmp_path, about))


@pytest.mark.parametrize("about", ["{", "[]", "{}", '{"input_shape": [1]}', "[" * 9999])
def test_a_header_that_is_none_is_told(about: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'stillhouse' is none that a run has written"):
        stillhouse.load_student(rewritten(folder, tmp_path, about))


def test_another_networks_numbers_are_told(folder: Path, tmp_path: Path) -> None:
    about = read_description(folder / "student.safetensors")
    about["architecture"]["hidden"] = 7
    with pytest.raises(ValueError, match=r"its network cannot be built: parameters do not fit"):
        stillhouse.load_student(rewritten(folder, tmp_path, about))
    with pytest.raises(ValueError, match="there is no such file: expected the folder"):
        stillhouse.load_student(tmp_path, peer="nobody")


def test_a_network_of_ones_own_is_built_if_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net_of_mine.py").write_text(
        "from torch import nn\n"
        "def net(image_shape, num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "student").mkdir()
    node = "_target_: net_of_mine.net\n_partial_: true\n"
    (tmp_path / "student" / "mine.yaml").write_text(node)
    words = [*CNN, "student=mine", "hydra.run.dir=out"]
    result = stillhouse.run(*words, config_dir=".", quiet=True)
    inputs = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    assert result.student(inputs).shape == (2, 10)  # the caller's own words named it
    with pytest.raises(ValueError, match="not run because a file says so"):
        stillhouse.load_student(tmp_path / "out")
    trusted = stillhouse.load_student(tmp_path / "out", trust=["net_of_mine.net"])
    assert torch.equal(trusted(inputs), result.student(inputs))


def test_torchscript_runs_without_us_on_any_number_of_inputs(
    folder: Path, test_set: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(folder), "--out", str(tmp_path / "model.pt")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'model.pt'}\n"
    with pytest.warns(DeprecationWarning, match="torch.jit.load"):
        model = torch.jit.load(tmp_path / "model.pt")
    for few in (1, 7):
        inputs = torch.tensor(test_set.inputs[:few]).float()
        torch.testing.assert_close(model(inputs), stillhouse.load_student(folder)(inputs))
    assert stillhouse.export(folder) == folder / "student.pt"


def test_what_cannot_be_exported_is_told(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stillhouse.models.find_spec", lambda name: None)
    assert main(["export", str(folder), "--format", "onnx"]) == 1
    told = capsys.readouterr().err
    assert told == "error: --format onnx wants onnx: pip install onnx onnxscript\n"
    assert main(["export", str(tmp_path)]) == 1
    assert "there is no such file: expected the folder of a finished run" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--format tflite: expected torchscript or onnx"):
        stillhouse.export(folder, "tflite")  # type: ignore[arg-type]


def test_the_known_network_is_the_known_network(folder: Path) -> None:
    """What is loaded is what `clients.models.cnn` makes."""
    network = stillhouse.load_student(folder, normalised=True)
    assert {*network.state_dict()} == {
        *cnn((1, 8, 8), 10, channels=[16, 32], hidden=64).state_dict()
    }
