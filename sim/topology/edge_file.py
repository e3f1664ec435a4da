"""A graph written down in a file, for networks that others measured or drew."""

from pathlib import Path

import networkx as nx


def from_file(num_peers: int, *, path: str, directed: bool = False) -> nx.Graph:
    """Read a graph from a list of edges, one `i j` or `i,j` a line.

    Empty lines and what follows a `#` are skipped; an edge may be named twice. Weights come from
    the mixing rule, so that a third column is refused.

    Args:
        num_peers: n >= 1; peers are 0..n-1, and those without an edge are in the graph too.
        path: The file.
        directed: Whether `i j` means only that i sends to j.

    Returns:
        The graph, a DiGraph if `directed`.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: A line is no edge between two different peers; names file and line.
    """
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        raise FileNotFoundError(
            f"{file.name} not found: looked for {file}. It is a file of your own, one edge 'i j' "
            "a line"
        )
    graph = nx.empty_graph(num_peers, create_using=nx.DiGraph if directed else nx.Graph)
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if words := line.partition("#")[0].replace(",", " ").split():
            graph.add_edge(*_edge(f"{file}:{number}", words, num_peers))
    return graph


def _edge(place: str, words: list[str], num_peers: int) -> tuple[int, int]:
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        raise ValueError(f"{place}: '{' '.join(words)}': expected two peers, 'i j' or 'i,j'")
    sender, receiver = map(int, words)
    for peer in (sender, receiver):
        if peer >= num_peers:
            raise ValueError(
                f"{place}: peer {peer}: expected 0..{num_peers - 1}, as num_peers={num_peers}"
            )
    if sender == receiver:
        raise ValueError(f"{place}: an edge from peer {sender} to itself, expected another peer")
    return sender, receiver
