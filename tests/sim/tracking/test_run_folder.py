"""The files of a run folder: rows, tables, lines, hashes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from clients.models import mobilenet_v2_small
from clients.models.factory import load_parameters, parameters_of
from clients.partition import iid, summary
from sim.tracking.partition_table import PARTITION, PARTITION_SUMMARY, write_partition
from sim.tracking.run_folder import (
    FAILURES,
    METRICS,
    PEERS,
    RESULT,
    STUDENT,
    append_line,
    begin,
    conclude,
    sha256_of_arrays,
    sha256_of_file,
    versions,
    write_peers,
    write_result,
    write_student,
)

# --- the partition ---


def test_a_partition_is_a_row_per_client_and_class_and_a_few_numbers(tmp_path: Path) -> None:
    labels = np.array([1, 0, 1, 1, 0, 2])
    write_partition(tmp_path, summary(labels, [np.array([0, 1, 2]), np.array([5]), [3, 4]], 3))
    table = pq.read_table(tmp_path / PARTITION)
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("client", "int32"),
        ("label", "int32"),
        ("num_examples", "int32"),
    ]
    assert list(zip(*table.to_pydict().values(), strict=True)) == [
        (0, 0, 1),
        (0, 1, 2),
        (1, 2, 1),
        (2, 0, 1),
        (2, 1, 1),
    ]
    written = json.loads((tmp_path / PARTITION_SUMMARY).read_text())
    assert written["num_clients"] == 3
    assert written["num_examples"] == {"min": 1, "median": 2.0, "mean": 2.0, "max": 3}
    # p = (2, 3, 1) / 6: distances 0 + 1/6 + 1/6, 1/3 + 1/2 + 5/6 and 1/6 + 0 + 1/6
    assert written["mean_emd"] == pytest.approx((1 / 3 + 5 / 3 + 1 / 3) / 3)


def test_a_large_partition_is_small_on_disk_and_repeats_byte_for_byte(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 10, 400_000)
    parts = iid(labels, 100_000, np.random.default_rng(1))
    hashes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_partition(tmp_path / name, summary(labels, parts, 10))
        hashes.append(sha256_of_file(tmp_path / name / PARTITION))
    assert hashes[0] == hashes[1]
    # Measured: 2.0 bytes a client; as JSON, a line for each of 10 counts of a client, 109.
    assert sum(path.stat().st_size for path in (tmp_path / "a").iterdir()) < 3 * 100_000


# --- lines and results ---


def test_lines_are_appended_with_sorted_keys(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, {"b": 1, "a": {"d": 0.1, "c": "ä"}})
    append_line(path, {"a": {"c": "ä", "d": 0.1}, "b": 1})
    first, second = path.read_text(encoding="utf-8").splitlines()
    assert first == second
    assert list(json.loads(first)) == ["a", "b"]
    assert json.loads(first) == {"b": 1, "a": {"d": 0.1, "c": "ä"}}


def test_the_result_is_readable_json_with_a_last_newline(tmp_path: Path) -> None:
    write_result(tmp_path, {"seed": 3, "accuracy": None})
    text = (tmp_path / RESULT).read_text(encoding="utf-8")
    assert text == '{\n  "accuracy": null,\n  "seed": 3\n}\n'


def test_versions_name_everything_a_bit_may_depend_on() -> None:
    assert {"python", "torch", "numpy", "flwr", "ray"} <= set(versions())
    assert versions()["torch"].startswith("2.13")


# --- hashes ---


def arrays() -> dict[str, Any]:
    return {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, np.float32)}


def test_the_hash_ignores_order_and_memory_layout() -> None:
    expected = sha256_of_arrays(arrays())
    assert len(expected) == 64
    assert sha256_of_arrays(dict(reversed(arrays().items()))) == expected
    fortran = {name: np.asfortranarray(array) for name, array in arrays().items()}
    assert sha256_of_arrays(fortran) == expected
    strided = {"w": np.repeat(arrays()["w"], 2, axis=1)[:, ::2], "b": arrays()["b"]}
    assert sha256_of_arrays(strided) == expected


CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "name": lambda a: {"v": a["w"], "b": a["b"]},
    "swapped names": lambda a: {"w": a["b"], "b": a["w"]},
    "shape": lambda a: a | {"w": a["w"].reshape(3, 2)},
    "dtype": lambda a: a | {"b": np.zeros(2, np.int32)},  # the same bytes
    "byte order": lambda a: a | {"w": a["w"].astype(">f4")},
    "one bit": lambda a: a | {"b": np.array([0, np.float32(1e-45)])},
    "sign of zero": lambda a: a | {"b": np.array([0, -0.0], np.float32)},
    "one array less": lambda a: {"w": a["w"]},
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_hash_changes_with(change: str) -> None:
    assert sha256_of_arrays(CHANGES[change](arrays())) != sha256_of_arrays(arrays())


def test_the_hash_tells_a_scalar_from_an_array_of_one() -> None:
    scalar, one = np.array(3), np.array([3])
    assert sha256_of_arrays({"steps": scalar}) != sha256_of_arrays({"steps": one})


def test_a_missing_file_hashes_as_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "full").write_text("x")
    absent = sha256_of_file(tmp_path / "absent")
    assert absent == sha256_of_file(tmp_path / "empty") != sha256_of_file(tmp_path / "full")


# --- what else a result says, and what other models are left ---


class Leaver:
    """Leaves two models; one has a name that would lead elsewhere."""

    def models(self) -> dict[str, Any]:
        return {"mlp": arrays(), "../out": arrays()}


def test_other_models_stay_in_the_run_folder_and_go_when_it_is_gone_on_with(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    write_peers(folder, object())
    assert not (folder / PEERS).exists()
    write_peers(folder, Leaver())
    assert {path.name for path in tmp_path.rglob("*.safetensors")} == {
        "mlp.safetensors", "..%2Fout.safetensors",
    }  # fmt: skip
    assert all(path.parent == folder / PEERS for path in tmp_path.rglob("*.safetensors"))
    assert sha256_of_arrays(load_file(folder / PEERS / "mlp.safetensors")) == (
        sha256_of_arrays(arrays())
    )
    shape = summary(np.array([0, 1]), [np.array([0, 1])], 2)
    write_partition(folder, shape)
    begin(folder, "rounds: 1", shape, {METRICS: 0, FAILURES: 0})
    assert not (folder / PEERS).exists()


def test_a_result_has_a_groups_accuracies_of_the_last_round(tmp_path: Path) -> None:
    for fused in (0.25, 0.5):
        append_line(tmp_path / METRICS, {"strategy": {"fused_accuracy": fused, "peer_bytes": 8.0}})
    result = conclude(tmp_path, arrays(), {})
    assert result["fused_accuracy"] == 0.5
    assert not {"peer_bytes", "peers_mean_accuracy"} & set(result)


# --- the student ---


def test_a_written_student_fits_its_network_again(tmp_path: Path) -> None:
    model = mobilenet_v2_small((3, 8, 8), 4)  # BatchNorm counts its steps in arrays without axes
    parameters = parameters_of(model)
    write_student(tmp_path, parameters)
    read = load_file(tmp_path / STUDENT)
    assert {k: (v.dtype, v.shape) for k, v in read.items()} == {
        k: (v.dtype, v.shape) for k, v in parameters.items()
    }
    load_parameters(model, read)
    assert sha256_of_arrays(read) == sha256_of_arrays(parameters)
