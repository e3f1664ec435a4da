"""Who drifts most."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clients.population.label_conditions import permuted_labels
from sim.analysis.probes import Forgetting, calibration, output_drift, recall_spread, teacher_audit
from sim.report.client_drift_ranking import MEASURES, Furthest, Often, furthest, outlier, sentence
from sim.report.reading import read_run
from sim.report.reading_client_tables import client_tables
from tests.run_folders import report, table_of, told, write_run
from tests.tracked_runs import events_of
from tests.watching import drifting, watched


def with_clients(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a run whose table of clients has these rows."""
    pq.write_table(pa.Table.from_pylist(rows), write_run(folder) / "clients.parquet")
    return folder


def rows_of(measure: str, by_round: dict[int, dict[int, float | None]]) -> list[dict[str, Any]]:
    return [
        {"round": n, "client": client, "architecture": f"net{client % 2}", measure: value}
        for n, values in by_round.items()
        for client, value in values.items()
    ]


def drift_of(folder: Path, rows: list[dict[str, Any]]) -> list[Furthest]:
    run = read_run(with_clients(folder, rows))
    return furthest(client_tables(run, ["round", "client", "architecture", *MEASURES], []).clients)


def test_who_is_furthest_out_by_hand(tmp_path: Path) -> None:
    # Client 7 leads in rounds 2 and 4 and sits round 3 out; in rounds 3 and 5 are two clients only.
    rounds = {
        1: {1: 0.3, 4: 0.2, 7: 0.1},
        2: {1: 0.3, 4: 0.2, 7: 0.8},
        3: {1: 0.9, 4: 0.2},
        4: {1: 0.5, 4: 0.4, 7: 0.6},
        5: {4: 0.7, 7: 0.3, 9: None},
    }
    (found,) = drift_of(tmp_path / "run", rows_of("disagreement", rounds))
    assert (found.measure, found.client, found.architecture) == ("disagreement", 7, "net1")
    assert (found.value, found.following, found.median) == (0.6, 0.5, 0.5)
    assert (found.round, found.ranked, found.known, found.since) == (4, 3, 3, 2)
    assert found.often == Often(client=7, architecture="net1", led=2, ranked=3)
    assert sentence([found]) == "Client 7 (net1) is furthest out by 1 of 1 measure in round 4."


def test_values_of_different_rounds_are_not_compared(tmp_path: Path) -> None:
    """Client 0 was last asked in round 2, before anybody had learned: 0.9 is no drift by now."""
    rounds = {
        1: {0: 0.9, 1: 0.8, 2: 0.95},
        2: {0: 0.9, 3: 0.85, 4: 0.8},
        3: {1: 0.2, 2: 0.3, 4: 0.1},
        4: {1: 0.1, 2: 0.05, 3: 0.15},
    }
    (found,) = drift_of(tmp_path / "run", rows_of("disagreement", rounds))
    assert (found.client, found.value, found.following, found.median) == (3, 0.15, 0.1, 0.1)
    # Client 3 was beaten in round 2, the only other that it was in.
    assert (found.round, found.ranked, found.known, found.since) == (4, 3, 5, 4)
    assert found.often == Often(client=2, architecture="net0", led=2, ranked=3)
    text, twin = told(tmp_path, tmp_path / "run")
    assert table_of(twin, "measure | meaning")[0][2:] == [
        *("3 net1", "0.15", "0.1", "0.1", "4", "2 net0, 2 of 3")
    ]
    assert "is furthest out by 1 of 1 measure in round 4." in text
    assert "see who was furthest out most often" in text


def test_nobody_led_most_often_if_two_did_equally(tmp_path: Path) -> None:
    rounds = {1: {0: 0.9, 1: 0.8, 2: 0.7}, 2: {0: 0.8, 1: 0.9, 2: 0.7}}
    (found,) = drift_of(tmp_path / "a", rows_of("ece", rounds))
    assert (found.client, found.since, found.often) == (1, 2, None)
    more = rounds | {3: {0: 0.1, 2: 0.2, 3: 0.2}}  # tied; client 1 was in fewer rounds than 0
    (found,) = drift_of(tmp_path / "b", rows_of("ece", more))
    assert (found.client, found.since) == (None, None)
    assert found.often == Often(client=1, architecture="net1", led=1, ranked=2)


def test_of_some_measures_the_least_is_furthest_out(tmp_path: Path) -> None:
    rounds = {1: {0: 0.1, 1: -0.6, 2: 0.2, 3: -0.4}}
    (found,) = drift_of(tmp_path / "run", rows_of("cosine_to_mean", rounds))
    assert (found.client, found.value, found.following) == (1, -0.6, -0.4)
    assert found.median == pytest.approx(-0.15)


@pytest.mark.parametrize("values", [{0: 0.1, 1: 0.2}, {0: None, 1: 0.1, 2: 0.2}, {}])
def test_of_two_clients_nobody_is_furthest_out(
    tmp_path: Path, values: dict[int, float | None]
) -> None:
    assert drift_of(tmp_path / "run", rows_of("ece", {1: values})) == []
    text, twin = told(tmp_path, tmp_path / "run")
    for said in (text, twin):
        assert "Nobody can be named: in no round have three clients a measure of drift." in said


def test_ties_are_said(tmp_path: Path) -> None:
    values = {
        "ece": (0.2, 0.2, 0.1),
        "forgetting": (0.0, 0.0, 0.0),
        "disagreement": (0.1, 0.2, 0.3),
    }
    rows = [
        {"round": 1, "client": k, **{name: each[k] for name, each in values.items()}}
        for k in range(3)
    ]
    found = {one.measure: one for one in drift_of(tmp_path / "a", rows)}
    assert [found[name].client for name in values] == [None, None, 2]
    assert (found["ece"].value, found["ece"].following, found["ece"].since) == (0.2, 0.2, None)
    said = "Client 2 is furthest out by 1 of 3 measures in round 1; by 2 the first are alike."
    assert sentence([*found.values()]) == said
    assert (
        sentence([found["ece"], found["forgetting"]])
        == "Nobody is furthest out in round 1: the first are alike by all 2 measures."
    )
    _, twin = told(tmp_path, tmp_path / "a")
    cells = {row[0]: (row[2], row[-1]) for row in table_of(twin, "measure | meaning")}
    assert cells["ece"] == ("alike", "-")
    other = [row | {"overconfidence": -0.1 * row["client"]} for row in rows]
    equal = drift_of(tmp_path / "b", other)
    assert sentence(equal) == (
        "Client 2 and client 0 are furthest out by 1 of 4 measures each in round 1; by 2 the first "
        "are alike."
    )


def test_the_page_names_the_client_that_began_to_drift(tmp_path: Path) -> None:
    """Client 2 of 6 takes every class for the next one from round 5 on."""
    clients = drifting(6, condition=partial(permuted_labels, clients=[2], from_round=5))
    probes = (output_drift, calibration, recall_spread, teacher_audit, Forgetting())
    watched(tmp_path / "run", clients, 6, probes)
    _, text, markdown = report(tmp_path, tmp_path / "run")
    rows = table_of(markdown, "measure | meaning")
    assert len(rows) == 8
    assert {(row[2], row[-1]) for row in rows} == {("2 linear", "5")}
    assert "Client 2 (linear) is furthest out by 8 of 8 measures in round 6." in text
    assert "drift over rounds" in text  # of a picture
    first = "* Client 2 (linear) is furthest out by 8 of 8 measures in round 6, by most of them"
    assert f"{first} since round 5." in markdown
    shown = events_of(tmp_path / "run").Scalars("8 bands/js_to_ensemble/max")
    most = [event.value for event in shown]
    assert min(most[4:]) > 3 * max(most[:4])


def test_a_client_that_leads_by_half_of_the_measures_does_not_stand_out() -> None:
    """Somebody is always furthest out: under label skew one led by 4 of 8, and nobody was wrong."""
    rows = furthest(
        {
            "round": np.repeat([1, 2], 4),
            "client": np.tile(np.arange(4), 2),
            **{name: np.tile([9.0, 1, 1, 1], 2) for name in [*MEASURES][:4]},
            **{name: np.tile([1.0, 1, 9, 1], 2) for name in [*MEASURES][4:8]},
        }
    )
    assert len(rows) >= 4
    assert outlier(rows) == ""
    assert outlier([]) == ""


def test_who_has_a_name_is_called_by_it(tmp_path: Path) -> None:
    rounds = {1: {0: 0.1, 1: 0.6, 2: 0.2}}
    rows = rows_of("ece", rounds)
    folder = with_clients(tmp_path / "run", rows)
    (folder / "partition_summary.json").write_text('{"owners": [["a"], ["St Mary", 7], ["c"]]}')
    tables = client_tables(read_run(folder), ["round", "client", "architecture", *MEASURES], [])
    (found,) = furthest(tables.clients)
    assert (found.client, found.architecture) == (1, "net1, St Mary + 7")
    assert sentence([found]).startswith("Client 1 (net1, St Mary + 7) is furthest out by 1 of 1")
    assert {*tables.clients["architecture"]} == {"net0", "net1"}  # by which maps are sorted
    long = '{"owners": [["a"], ["' + 40 * "b" + '"], ["c"]]}'
    (folder / "partition_summary.json").write_text(long)
    tables = client_tables(read_run(folder), ["round", "client", "architecture", *MEASURES], [])
    assert furthest(tables.clients)[0].architecture == "net1, " + 29 * "b" + "…"
    for odd in ('{"owners": [["a"]]}', '{"owners": 3}', "[1]", "{"):
        (folder / "partition_summary.json").write_text(odd)
        tables = client_tables(read_run(folder), ["client", "architecture", *MEASURES], [])
        assert "owner" not in tables.clients
