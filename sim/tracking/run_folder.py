"""The files of a run folder: JSON lines, parameters, one result. No pickle is read here."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save

from clients.duck_typing import offers
from clients.partition import PartitionSummary
from sim.engine.exchanges import Exchange
from sim.files import finish, write_unfinished
from sim.tracking.partition_table import require_same_partition, write_partition
from sim.tracking.run_files import CHECKPOINT as CHECKPOINT
from sim.tracking.run_files import CLIENTS as CLIENTS
from sim.tracking.run_files import CONFIG as CONFIG
from sim.tracking.run_files import FAILURES as FAILURES
from sim.tracking.run_files import METRICS as METRICS
from sim.tracking.run_files import PEERS as PEERS
from sim.tracking.run_files import RESULT as RESULT
from sim.tracking.run_files import STATES as STATES
from sim.tracking.run_files import STUDENT as STUDENT

OF_A_GROUP = ("fused_accuracy", "peers_mean_accuracy")
"""Measures of the last round that a result has where the strategy makes them."""


def begin(
    folder: Path,
    config_text: str,
    summary: PartitionSummary,
    lines: Mapping[str, int] | None = None,
) -> None:
    """Write down what is to be run, or take a run back to where a checkpoint left it.

    Args:
        folder: The run folder.
        config_text: The resolved config as YAML.
        summary: How the private set was cut.
        lines: How many lines to keep of METRICS and FAILURES; None = the folder holds no run.

    Raises:
        ValueError: The private set was cut otherwise than it is now, or a file has too few lines.
    """
    if lines is None:
        write_partition(folder, summary)
    else:
        require_same_partition(folder, summary)
        read_lines(folder / METRICS, lines[METRICS])
    # Without it no run is gone on with: in place, a full disk would leave half of it.
    write_unfinished(folder / CONFIG, config_text.encode())
    finish([folder / CONFIG])
    if lines is not None:
        for name in (METRICS, FAILURES):
            truncate(folder / name, lines[name])
        for name in (RESULT, STUDENT):  # of the run's earlier end, if it had one
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / PEERS, ignore_errors=True)


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON line, with sorted keys, so that equal records give equal bytes.

    A number that is not finite, which JSON cannot say, becomes null.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(_finite(record), sort_keys=True, allow_nan=False) + "\n")


def append_failures(folder: Path, exchanges: Iterable[Exchange]) -> None:
    """Append to `failures.jsonl` a line for each of these exchanges that is a failure."""
    for exchange in exchanges:
        if exchange.failure:
            line = {
                "round": exchange.server_round,
                "client": exchange.client_id,
                "architecture": exchange.architecture,
                "phase": exchange.phase,
                "failure": exchange.failure,
                "traceback": exchange.traceback,
            }
            append_line(folder / FAILURES, line)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def read_lines(path: Path, most: int | None = None) -> list[dict[str, Any]]:
    """Read the lines of a file of JSON objects.

    Args:
        path: The file; one that does not exist has none.
        most: How many to read; None = all.

    Returns:
        The objects.

    Raises:
        ValueError: A line is none; names it.
    """
    content = path.read_bytes() if path.exists() else b""
    found: list[dict[str, Any]] = []
    for line in content.splitlines()[:most]:
        try:
            found.append({**json.loads(line)})
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path}: line {len(found) + 1}: expected a JSON object") from error
    return found


def truncate(path: Path, lines: int) -> None:
    """Cut a file of JSON lines back to its first ones.

    Args:
        path: The file; it need not exist if no line is to be kept.
        lines: How many to keep, >= 0.

    Raises:
        ValueError: It has fewer.
    """
    content = path.read_bytes() if path.exists() else b""
    whole = content.splitlines(keepends=True)[:lines]
    if len(whole) < lines or (whole and not whole[-1].endswith(b"\n")):
        raise ValueError(f"{path}: has fewer lines than the {lines} of the checkpoint")
    if content:
        os.truncate(path, sum(map(len, whole)))


def write_student(
    folder: Path,
    parameters: Mapping[str, npt.NDArray[Any]],
    about: dict[str, str] | None = None,
) -> None:
    """Write the final student's parameters and buffers as safetensors, and what it is."""
    (folder / STUDENT).write_bytes(save(_plain(parameters), about))


@runtime_checkable
class Leaving(Protocol):
    """A strategy that leaves other models than the student."""

    def models(self) -> Mapping[str, Mapping[str, npt.NDArray[Any]]]:
        """Return parameters and buffers of each, by name."""
        ...


class LeavingError(RuntimeError):
    """What a strategy leaves beside the student could not be written; the results are."""


def write_peers(
    folder: Path, strategy: object, about: Mapping[str, dict[str, str]] | None = None
) -> None:
    """Write what a strategy leaves beside the student, if it does, as `peers/NAME.safetensors`.

    Args:
        folder: The run folder, with all results.
        strategy: Anyone's; what it calls `models` and is no method without arguments is its own.
        about: What each is, by architecture; a client's own model is called ARCHITECTURE-CLIENT.

    Raises:
        LeavingError: It does not leave what it should; names it.
        OSError: It cannot be written.
    """
    if not (isinstance(strategy, Leaving) and offers(strategy, Leaving)):
        return
    try:
        left = {name: _plain(parameters) for name, parameters in strategy.models().items()}
        known = about or {}
        headers = {name: known.get(name, known.get(name.rpartition("-")[0])) for name in left}
        files = {quote(name, safe=""): save(left[name], headers[name]) for name in left}
    except Exception as error:  # anyone's code
        raise LeavingError(
            f"{type(strategy).__name__}.models(): {type(error).__name__}: {error}; "
            f"all other results are in {folder}"
        ) from error
    for name, content in files.items():  # quoted, for names are anyone's: "../x" stays here
        (folder / PEERS).mkdir(exist_ok=True)
        (folder / PEERS / f"{name}.safetensors").write_bytes(content)


def _plain(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {name: np.asarray(array, order="C") for name, array in arrays.items()}


def conclude(
    folder: Path,
    student: Mapping[str, npt.NDArray[Any]],
    about: Mapping[str, Any],
    described: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Write the final student and `result.json`; `docs/run_folder.md` documents its keys.

    Args:
        folder: The run folder, with its metrics and its per-client table.
        student: The final student's parameters and buffers; none where there is no student.
        about: What else the result says.
        described: What the student is, for whoever loads it.

    Returns:
        The content of `result.json`.
    """
    if student:
        write_student(folder, student, described)
    last = (read_lines(folder / METRICS) or [{"strategy": {}}])[-1]["strategy"]
    result = {
        **about,
        **{name: last[name] for name in OF_A_GROUP if name in last},
        "student_sha256": sha256_of_arrays(student) if student else None,
        "metrics_sha256": sha256_of_file(folder / METRICS),
        "clients_sha256": sha256_of_file(folder / CLIENTS),
        "versions": versions(),
    }
    write_result(folder, result)
    return result


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write `result.json`."""
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


version = cache(importlib.metadata.version)
"""2 ms each, and asked for five packages five times in a run."""


def versions() -> dict[str, str]:
    """Tell the versions that a result may depend on."""
    packages = ("torch", "numpy", "flwr", "ray", "scikit-learn")
    return {
        "python": platform.python_version(),
        # Which vector instructions torch's kernels use: another width rounds sums differently.
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **{name: version(name) for name in packages},
    }


def changed_versions(then: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Compare versions with the present ones.

    Args:
        then: As `versions` told them once.

    Returns:
        (then, now) by name, of those that differ.
    """
    now = versions()
    names = then.keys() | now.keys()
    both = {name: (then.get(name, "none"), now.get(name, "none")) for name in sorted(names)}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}
