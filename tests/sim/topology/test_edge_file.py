"""A graph from a file."""

from pathlib import Path

import pytest

from sim.topology.edge_file import from_file
from tests.shipped_topologies import shipped

EDGES = "0 1  # a path\n1,2\n\n2\t3\n"


def test_edges_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "edges.csv"
    path.write_text(EDGES)
    assert set(from_file(4, path=str(path)).edges) == {(0, 1), (1, 2), (2, 3)}
    one_way = from_file(6, path=str(path), directed=True)
    assert set(one_way.edges) == {(0, 1), (1, 2), (2, 3)}
    assert one_way.is_directed()
    assert list(one_way) == list(range(6))
    with pytest.raises(
        ValueError, match="'from_file' is not connected: 2 components of 4, 1 peers"
    ):
        shipped("from_file", 5, f"topology.graph.path={path}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 1 0.5", "'0 1 0.5': expected two peers, 'i j' or 'i,j'"),
        ("3", "'3': expected two peers"),
        ("a b", "'a b': expected two peers"),
        ("-1 2", "'-1 2': expected two peers"),
        ("2,4", r"peer 4: expected 0\.\.3, as num_peers=4"),
        ("2 2", "an edge from peer 2 to itself"),
    ],
)
def test_a_bad_line_is_named_with_its_file(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "edges.csv"
    path.write_text(f"{EDGES}{line}\n")
    with pytest.raises(ValueError, match=f"edges.csv:5: {message}"):
        from_file(4, path=str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.csv not found: .*one edge 'i j' a line"):
        from_file(4, path=str(tmp_path / "none.csv"))
