"""What the files of a run folder are called; `docs/run_folder.md` says what is in them.

Apart from what writes them, so that the report can read them without importing torch or flwr.
"""

from pathlib import Path

CONFIG, CHECKPOINT, STATES = "config.yaml", "checkpoint", "states"
METRICS, FAILURES, CLIENTS = "metrics.jsonl", "failures.jsonl", "clients.parquet"
RESULT, STUDENT, PEERS = "result.json", "student.safetensors", "peers"
PARTITION, PARTITION_SUMMARY = "partition.parquet", "partition_summary.json"


def require_no_run(folder: Path) -> None:
    """Refuse a run folder that has been begun in.

    Args:
        folder: It need not be there.

    Raises:
        ValueError: It holds a run; says how to go on with that.
    """
    if not (folder / CONFIG).exists():
        return
    on = f", or go on with that run by resume={folder}"
    if not (folder / CHECKPOINT).exists():
        on = "; that one kept no checkpoint"
    raise ValueError(f"hydra.run.dir={folder}: already holds a run; name another folder{on}")
