"""The per-client table: rows of a round, columns of a run."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from sim.tracking.clients_table import ClientsTable, client_rows
from sim.tracking.run_folder import CLIENTS, sha256_of_file
from tests.exchanges import exchange


def table_of(*rounds: list[dict[str, Any]]) -> ClientsTable:
    table = ClientsTable()
    for rows in rounds:
        table.add(rows)
    return table


# --- rows ---


def test_a_clients_exchanges_become_one_row() -> None:
    rows = client_rows(
        [
            exchange(1, metrics={"num-examples": 8.0, "train-loss": 0.5}),
            exchange(0, metrics={"num-examples": 4.0}),
            exchange(1, "evaluate", reply_bytes=7, metrics={"num-examples": 9.0, "accuracy": 0.25}),
        ]
    )
    assert [row["client"] for row in rows] == [0, 1]
    assert rows[1] == {
        "round": 3,
        "client": 1,
        "architecture": "arch-1",
        "request_bytes": 200,
        "reply_bytes": 17,
        "failure": "",
        "num_examples": 9.0,  # the later one
        "train_loss": 0.5,
        "accuracy": 0.25,
    }


def test_a_row_keeps_the_first_failure_and_what_else_is_known() -> None:
    (row,) = client_rows(
        [
            exchange(5, metrics={"train-loss": 0.5}),
            exchange(5, "evaluate", reply_bytes=0, failure="first"),
            exchange(5, "evaluate", reply_bytes=0, failure="second"),
        ]
    )
    assert (row["failure"], row["train_loss"], row["reply_bytes"]) == ("first", 0.5, 10)
    assert row["request_bytes"] == 300


@pytest.mark.parametrize("name", ["client", "round", "failure", "architecture", "request-bytes"])
def test_a_clients_metric_cannot_overwrite_who_it_is(tmp_path: Path, name: str) -> None:
    rows = client_rows([exchange(5, metrics={name: 77.0})])
    fixed = {"client": 5, "round": 3, "failure": "", "architecture": "arch-5"}
    assert rows[0] | fixed | {"request_bytes": 100} == rows[0]
    table_of(rows).write(tmp_path)


# --- the table ---


def test_the_table_has_typed_columns_and_null_for_what_a_row_lacks(tmp_path: Path) -> None:
    rows = client_rows(
        [
            exchange(0, metrics={"accuracy": 0.5, "zeal": 2.0}),
            exchange(1, failure="broke", metrics={}),
            exchange(2, metrics={"apt": 1.0}),
        ]
    )
    table_of(rows).write(tmp_path)
    table = pq.read_table(tmp_path / CLIENTS)
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("round", "int32"),
        ("client", "int32"),
        ("architecture", "string"),
        ("request_bytes", "int64"),
        ("reply_bytes", "int64"),
        ("failure", "string"),
        ("num_examples", "double"),
        ("train_loss", "double"),
        ("accuracy", "double"),
        ("loss", "double"),
        ("apt", "double"),
        ("zeal", "double"),
    ]
    columns = table.to_pydict()
    assert columns["client"] == [0, 1, 2]
    assert columns["failure"] == ["", "broke", ""]
    assert columns["accuracy"] == [0.5, None, None]
    assert columns["zeal"] == [2.0, None, None]
    assert columns["apt"] == [None, None, 1.0]
    assert columns["loss"] == [None, None, None]


def test_the_table_repeats_byte_for_byte_and_may_be_empty(tmp_path: Path) -> None:
    rows = client_rows([exchange(0, metrics={"accuracy": 0.5}), exchange(1)])
    hashes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        table_of(rows).write(tmp_path / name)
        hashes.append(sha256_of_file(tmp_path / name / CLIENTS))
    assert hashes[0] == hashes[1]
    ClientsTable().write(tmp_path)
    assert pq.read_table(tmp_path / CLIENTS).num_rows == 0
    assert sha256_of_file(tmp_path / CLIENTS) != hashes[0]


def rows_of(server_round: int, **metrics: float) -> list[dict[str, Any]]:
    return client_rows(exchange(k, server_round=server_round, metrics=metrics) for k in (0, 1))


def test_rounds_may_have_columns_that_others_lack() -> None:
    table = table_of(rows_of(1, loss=1.0), [], rows_of(2, zeal=7.0), rows_of(3, apt=2.0))
    whole = table.since(0)
    assert whole.column_names[-4:] == ["accuracy", "loss", "apt", "zeal"]
    assert whole["round"].to_pylist() == [1, 1, 2, 2, 3, 3]
    assert whole["zeal"].to_pylist() == [None, None, 7.0, 7.0, None, None]
    assert (table.num_rows, table.since(6).num_rows) == (6, 0)
    # From the middle of a round on: what these rows lack is no column
    assert table.since(3)["client"].to_pylist() == [1, 0, 1]
    assert table.since(4).column_names[-1] == "apt"


def test_a_table_goes_on_from_a_part_with_the_bytes_of_the_whole(tmp_path: Path) -> None:
    rounds = [rows_of(1, loss=1.0), rows_of(2, zeal=7.0, x=-0.0), rows_of(3, loss=float("inf"))]
    whole, first = table_of(*rounds), table_of(*rounds[:2])
    again = ClientsTable(first.since(0))
    again.add(rounds[2])
    hashes = []
    for name, table in (("whole", whole), ("again", again)):
        (tmp_path / name).mkdir()
        table.write(tmp_path / name)
        table.write(tmp_path / name)  # the second time it is one piece
        hashes.append(sha256_of_file(tmp_path / name / CLIENTS))
    assert hashes[0] == hashes[1]
    read = pq.read_table(tmp_path / "again" / CLIENTS).to_pydict()
    assert read["loss"] == [1.0, 1.0, None, None, float("inf"), float("inf")]
    assert np.signbit(read["x"][2])


def test_whoever_reads_while_it_is_written_sees_the_table_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(rows_of(1))
    table.write(tmp_path)
    seen, replace = list[int](), os.replace

    def looked_at(source: Path, target: Path) -> None:
        seen.append(pq.read_table(target).num_rows)
        replace(source, target)

    monkeypatch.setattr(os, "replace", looked_at)
    table.add(rows_of(2))
    table.write(tmp_path)
    assert (seen, pq.read_table(tmp_path / CLIENTS).num_rows) == ([2], 4)
    assert [path.name for path in tmp_path.iterdir()] == [CLIENTS]
