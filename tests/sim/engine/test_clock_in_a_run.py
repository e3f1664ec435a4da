"""A clock changes nothing else in a run folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from run import federate
from sim.tracking.clients_table import ClientsTable, client_rows
from tests.composing import composed
from tests.exchanges import exchange


def test_rows_sum_a_clients_seconds_and_the_column_is_there_only_with_a_clock() -> None:
    exchanges = [
        exchange(1, simulated_time_s=1.5, metrics={"simulated-time-s": 9.0}),
        exchange(0, simulated_time_s=0.0),
        exchange(1, "evaluate.predictions", simulated_time_s=2.0),
    ]
    rows = client_rows(exchanges)
    assert [row["simulated_time_s"] for row in rows] == [0.0, 3.5]
    assert rows[1]["client_simulated_time_s"] == 9.0  # what a client says of itself
    table = ClientsTable()
    table.add(rows)
    assert str(table.since(0).schema.field("simulated_time_s").type) == "double"
    assert table.since(0)["simulated_time_s"].to_pylist() == [0.0, 3.5]
    untimed = ClientsTable()
    untimed.add(client_rows([exchange(0)]))
    assert "simulated_time_s" not in untimed.since(0).column_names


SHORT = ("sim=inline", "clients.num_clients=5", "clients.training.epochs=2", "checkpoint_every=1",
         "strategy.distil.epochs=1", "data.limit=400", "tracking.figures_every=0")  # fmt: skip


def federated(folder: Path, *words: str, resume: bool = False) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return federate(composed(*SHORT, *words), folder, resume)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_clock_changes_nothing_else_and_is_right_after_a_resume(tmp_path: Path) -> None:
    timed = ("rounds=2", "clients/profile=lognormal")
    plain = federated(tmp_path / "plain", "rounds=2")
    whole = federated(tmp_path / "whole", *timed)
    federated(tmp_path / "half", timed[1], "rounds=1")
    resumed = federated(tmp_path / "half", *timed, resume=True)

    assert "simulated_time_s" not in plain
    assert whole["student_sha256"] == plain["student_sha256"]
    lines, bare = lines_of(tmp_path / "whole"), lines_of(tmp_path / "plain")
    seconds = [line.pop("simulated_time_s") for line in lines]
    assert lines == bare
    assert whole["simulated_time_s"] == sum(seconds)
    assert min(seconds) > 0
    table = pq.read_table(tmp_path / "whole" / "clients.parquet")
    assert table.drop_columns(["simulated_time_s"]) == pq.read_table(
        tmp_path / "plain" / "clients.parquet"
    )
    # No client's requests take longer than the round, and some client is the slowest in all waves
    # of DLAD: there is one.
    frame = table.to_pandas().groupby("round")["simulated_time_s"].max()
    np.testing.assert_allclose(frame, seconds, rtol=1e-12)

    for result in (whole, resumed):
        del result["wall_time_s"]
    assert resumed == whole
    for name in ("metrics.jsonl", "clients.parquet", "student.safetensors"):
        assert (tmp_path / "half" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
