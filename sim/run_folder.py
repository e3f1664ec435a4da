"""The files of a run folder: JSON lines, one Parquet table, one result. No pickle is read here."""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save_file

from clients.partition import PartitionSummary
from sim.exchanges import Exchange

CONFIG = "config.yaml"
METRICS, FAILURES, CLIENTS = "metrics.jsonl", "failures.jsonl", "clients.parquet"
RESULT, STUDENT = "result.json", "student.safetensors"
PARTITION, PARTITION_SUMMARY = "partition.parquet", "partition_summary.json"

IDENTITY = {
    "round": pa.int32(),
    "client": pa.int32(),
    "architecture": pa.string(),
    "request_bytes": pa.int64(),
    "reply_bytes": pa.int64(),
    "failure": pa.string(),
}
"""Columns that are ours: a client's metric of such a name goes to `client_<name>`."""

MEASURES = ("num_examples", "train_loss", "accuracy", "loss")
"""Columns of the per-client table that every run has; other metrics of replies follow them."""


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON line, with sorted keys, so that equal records give equal bytes.

    A number that is not finite, which JSON cannot say, becomes null.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(_finite(record), sort_keys=True, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def client_rows(exchanges: Iterable[Exchange]) -> list[dict[str, Any]]:
    """Make one row per client of a round from all its exchanges, ordered by client.

    Args:
        exchanges: Of one round.

    Returns:
        Rows with round, client, architecture, bytes summed, the last value of each metric, and
        the first failure or "".
    """
    rows: dict[int, dict[str, Any]] = {}
    for exchange in sorted(exchanges, key=lambda e: e.client_id):
        row = rows.setdefault(
            exchange.client_id,
            {
                "round": exchange.server_round,
                "client": exchange.client_id,
                "architecture": exchange.architecture,
                "request_bytes": 0,
                "reply_bytes": 0,
                "failure": "",
            },
        )
        row["request_bytes"] += exchange.request_bytes
        row["reply_bytes"] += exchange.reply_bytes
        row["failure"] = row["failure"] or exchange.failure
        for key, value in exchange.metrics.items():
            name = key.replace("-", "_")
            row[f"client_{name}" if name in IDENTITY else name] = value
    return list(rows.values())


def write_clients(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write the per-client table; a metric that a row lacks is null there.

    Args:
        folder: The run folder.
        rows: As `client_rows` gives them, over all rounds.
    """
    others = sorted({key for row in rows for key in row} - set(IDENTITY) - set(MEASURES))
    types = IDENTITY | {name: pa.float64() for name in (*MEASURES, *others)}
    table = pa.Table.from_pylist(rows, schema=pa.schema(list(types.items())))
    pq.write_table(table, folder / CLIENTS)


def write_student(folder: Path, parameters: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write the final student's parameters and buffers as safetensors."""
    save_file({k: np.asarray(v, order="C") for k, v in parameters.items()}, folder / STUDENT)


def write_partition(folder: Path, summary: PartitionSummary) -> None:
    """Write how the private set was cut: who has how many of which class, and what that comes to.

    Args:
        folder: The run folder.
        summary: As `clients.partition.summary` gives it.
    """
    table = {
        "client": summary.clients,
        "label": summary.labels,
        "num_examples": summary.counts,
    }
    # A million clients of 4 examples, 3.4 million rows, take 2.0 MB so, and 12.7 by default.
    pq.write_table(
        pa.table(table),
        folder / PARTITION,
        compression="zstd",
        use_dictionary=["label", "num_examples"],
        column_encoding={"client": "DELTA_BINARY_PACKED"},
    )
    sizes = summary.sizes
    content = {
        "num_clients": len(sizes),
        "num_examples": {
            "min": int(sizes.min()),
            "median": float(np.median(sizes)),
            "mean": float(sizes.mean()),
            "max": int(sizes.max()),
        },
        "mean_emd": summary.mean_emd,
        "mean_effective_classes": summary.mean_effective_classes,
    }
    _write_json(folder / PARTITION_SUMMARY, content)


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write `result.json`; `docs/run_folder.md` documents its keys."""
    _write_json(folder / RESULT, result)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def sha256_of_arrays(parameters: Mapping[str, npt.NDArray[Any]]) -> str:
    """Hash named arrays: names, dtypes, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(parameters):
        array = np.asarray(parameters[name], order="C")  # ascontiguousarray makes () into (1,)
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hash a file's bytes; those of a file that does not exist are empty."""
    return hashlib.sha256(path.read_bytes() if path.exists() else b"").hexdigest()


def versions() -> dict[str, str]:
    """Tell the versions that a result may depend on."""
    packages = ("torch", "numpy", "flwr", "ray", "scikit-learn")
    return {
        "python": platform.python_version(),
        # Which vector instructions torch's kernels use: another width rounds sums differently.
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **{name: version(name) for name in packages},
    }
