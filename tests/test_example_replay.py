"""The example replay: clients that meet classes one after another, with a memory and without."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests.example_runs import EXAMPLES, both_pools, gone_on, imported

WORDS = ["--config-dir", str(EXAMPLES / "replay"), "clients/training=replay", "partition=iid",
         "strategy=distillation", "clients=same", "clients.num_clients=4"]  # fmt: skip


def test_a_reservoir_keeps_every_example_as_often() -> None:
    """Of 20 that came in two parts each is among the 5 kept in a quarter of 4,000 draws."""
    reservoir, rng = imported("replay").reservoir, np.random.default_rng(0)
    kept: Counter[int] = Counter()
    for _ in range(4000):
        memory = reservoir(np.empty(0, np.int64), np.arange(8), 0, 5, rng)
        assert len(memory) == 5
        kept.update(reservoir(memory, np.arange(8, 20), 8, 5, rng).tolist())
    assert len(kept) == 20
    assert all(abs(count - 1000) < 5 * np.sqrt(750) for count in kept.values())
    assert len(reservoir(np.empty(0, np.int64), np.arange(8), 0, 0, rng)) == 0


def test_a_memory_keeps_clients_from_forgetting_on_both_pools_and_after_a_resume(
    tmp_path: Path,
) -> None:
    words = [*WORDS, "rounds=3"]
    runs = both_pools(tmp_path, words, without="clients.training.size=0")
    remembers, forgets = (runs[name]["student_accuracy"] for name in ("inline", "without"))
    assert remembers > 0.35  # of six of ten classes
    assert forgets < 0.2  # the last two
    table = pq.read_table(tmp_path / "ray" / "clients.parquet").to_pandas()
    assert table.groupby("round")["remembered"].max().tolist()[0] == 0
    assert (table[table["round"] == 3]["remembered"] == 50).all()
    assert (table["met"] > 0).all()
    gone = gone_on(tmp_path / "resumed", WORDS, "replay.replay")
    for what in ("student_sha256", "clients_sha256"):
        assert gone[what] == runs["inline"][what]
