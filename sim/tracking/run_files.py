"""What the files of a run folder are called; `docs/run_folder.md` says what is in them.

Apart from what writes them, so that the report can read them without importing torch or flwr.
"""

CONFIG, CHECKPOINT, STATES = "config.yaml", "checkpoint", "states"
METRICS, FAILURES, CLIENTS = "metrics.jsonl", "failures.jsonl", "clients.parquet"
FAILED = "FAILED"  # of a job of a sweep: why
RESULT, STUDENT, PEERS = "result.json", "student.safetensors", "peers"
PARTITION, PARTITION_SUMMARY = "partition.parquet", "partition_summary.json"
