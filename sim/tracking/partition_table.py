"""How the private set was cut, as files of the run folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clients.partition import PartitionSummary
from sim.tracking.run_files import PARTITION as PARTITION
from sim.tracking.run_files import PARTITION_SUMMARY as PARTITION_SUMMARY


def write_partition(folder: Path, summary: PartitionSummary) -> None:
    """Write who has how many examples of which class, and what that comes to.

    Args:
        folder: The run folder.
        summary: As `clients.partition.summary` gives it.
    """
    # A million clients of 4 examples, 3.4 million rows, take 2.0 MB so, and 12.7 by default.
    pq.write_table(
        _table(summary),
        folder / PARTITION,
        compression="zstd",
        use_dictionary=["label", "num_examples"],
        column_encoding={"client": "DELTA_BINARY_PACKED"},
    )
    text = json.dumps(_figures(summary), indent=2, sort_keys=True, ensure_ascii=False)
    (folder / PARTITION_SUMMARY).write_text(text + "\n", encoding="utf-8")


def require_same_partition(folder: Path, summary: PartitionSummary) -> None:
    """Refuse a run folder whose private set was cut otherwise.

    Args:
        folder: The run folder.
        summary: Of the private set as it is cut now.

    Raises:
        ValueError: The folder's table is another.
    """
    if not pq.read_table(folder / PARTITION).equals(_table(summary)):
        raise ValueError(f"{folder / PARTITION}: the data are not those that the run began with")


def _table(summary: PartitionSummary) -> pa.Table:
    columns = {
        "client": summary.clients,
        "label": summary.labels,
        "num_examples": summary.counts,
    }
    return pa.table(columns)


def _figures(summary: PartitionSummary) -> dict[str, Any]:
    sizes = summary.sizes
    return {
        "num_clients": len(sizes),
        "num_examples": {
            "min": int(sizes.min()),
            "median": float(np.median(sizes)),
            "mean": float(sizes.mean()),
            "max": int(sizes.max()),
        },
        "mean_emd": summary.mean_emd,
        "mean_effective_classes": summary.mean_effective_classes,
        **({} if summary.owners is None else {"owners": summary.owners}),
    }
