"""The graph and the mixing matrix of every round, from the seed alone."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import networkx as nx
import numpy as np
from scipy import sparse

from clients.seeding import Purpose, generator
from clients.signatures import takes
from sim.topology.mixing import check_mixing, is_doubly_stochastic, spectral_gap
from sim.topology.sequences import Rule, apply_rule
from sim.topology.spectrum import mixing_rate

WINDOW = 32
"""How many rounds are looked at where the graph changes: is it connected, how fast does it mix."""

DIAMETER_UP_TO = 500
"""Peers: a ring of so many takes 0.3 s."""


class Topology:
    """Who hears of whom in each round, and with which weights.

    A rule that takes `server_round` gives another graph every round; one that only draws does with
    `redraw`. Everything is a function of rule, number of peers, seed and round, so that a run can
    be resumed at any round.
    """

    def __init__(
        self,
        graph: Rule,
        mixing: Callable[[nx.Graph], sparse.csr_array],
        *,
        num_peers: int,
        seed: int,
        redraw: bool = False,
        require_connected: bool = True,
    ) -> None:
        """Bind the rules to a federation.

        Args:
            graph: A rule of graphs.py, sequences.py or edge_file.py, or one like them.
            mixing: Graph -> W [n receivers, n senders], as in mixing.py.
            num_peers: n >= 1.
            seed: The run's seed, >= 0.
            redraw: Whether a random graph is drawn anew each round.
            require_connected: Whether to refuse a graph in which not everybody can reach everybody;
                where it changes, the union of the first 32 rounds is meant.

        Raises:
            ValueError: A number or graph is not usable, or not connected; names key or rule.
        """
        if num_peers < 1:
            raise ValueError(f"num_peers={num_peers}: expected an integer >= 1")
        function = graph.func if isinstance(graph, partial) else graph
        self.name = getattr(function, "__name__", "graph")
        if redraw and not takes(graph, "rng"):
            raise ValueError(f"topology.redraw=true: '{self.name}' draws nothing, expected false")
        self.num_peers, self.seed = num_peers, seed
        self.changes = redraw or takes(graph, "server_round")
        self._rule, self._mix = graph, mixing
        self._graph: tuple[int, nx.Graph] | None = None
        self._matrix: tuple[int, sparse.csr_array] | None = None
        self.mixing(1)  # a rule that cannot be applied fails now
        if require_connected and len(parts := self._components()) > 1:
            raise ValueError(
                f"topology '{self.name}' is not connected{self._over()}: {len(parts)} components "
                f"of {_some(parts)} peers; topology.require_connected=false lets them be"
            )

    @property
    def directed(self) -> bool:
        """Whether an edge of round 1 has a direction."""
        return bool(self.graph(1).is_directed())

    def graph(self, server_round: int) -> nx.Graph:
        """Return the graph of a round; not to be changed.

        Args:
            server_round: 1..R.

        Returns:
            On the peers 0..n-1, in order, without self loops; edges of a DiGraph point from the
            sender to the receiver.

        Raises:
            ValueError: The round is below 1, or the rule returned something else.
        """
        if server_round < 1:
            raise ValueError(f"server_round={server_round}: expected an integer >= 1")
        key = server_round if self.changes else 0
        if self._graph is None or self._graph[0] != key:
            rng = generator(self.seed, Purpose.TOPOLOGY, key)
            try:
                drawn = apply_rule(
                    self._rule, num_peers=self.num_peers, server_round=server_round, rng=rng
                )
            except Exception as error:  # anyone's rule
                kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
                raise ValueError(
                    f"topology.graph '{self.name}', round {server_round}: {kind}{error} (a rule "
                    "may take num_peers, server_round and rng)"
                ) from error
            self._graph = key, self._checked(drawn, server_round)
        return self._graph[1]

    def mixing(self, server_round: int) -> sparse.csr_array:
        """Return the mixing matrix of a round; not to be changed.

        Args:
            server_round: 1..R.

        Returns:
            W [n receivers, n senders], float64.

        Raises:
            ValueError: As in `graph`, or the mixing rule does not suit the graph.
        """
        key = server_round if self.changes else 0
        if self._matrix is None or self._matrix[0] != key or server_round < 1:
            graph = self.graph(server_round)
            matrix = self._mix(graph)
            check_mixing(matrix, graph)
            self._matrix = key, matrix
        return self._matrix[1]

    def report(self) -> dict[str, Any]:
        """Describe the graph for people, before the run.

        Degrees count receivers. Where the graph changes, figures are over the first 32 rounds:
        `edges` per round, `components` of the union, and no diameter.

        Returns:
            `graph`, `num_peers`, `changes`, `directed`, `edges`, `least_degree`, `mean_degree`,
            `largest_degree`, `components` (strong ones, if directed), `doubly_stochastic`,
            `spectral_gap` (where W is doubly stochastic and stays, 1 - ||W - J/n||; else the rate
            per round, `spectrum.mixing_rate`) and `diameter` (None where it is infinite, or there
            are more than 500 peers). Plain numbers, texts and truth values.
        """
        degrees, edges, doubly = [], [], True
        for server_round in self._window():
            degrees.append(_degrees(graph := self.graph(server_round)))
            edges.append(graph.number_of_edges())
            doubly = doubly and is_doubly_stochastic(self.mixing(server_round))
        if self.changes or not doubly:
            gap = mixing_rate(self.mixing(r) for r in range(1, WINDOW + 1))
        else:
            gap = spectral_gap(self.mixing(1))
        return {
            **{"graph": self.name, "num_peers": self.num_peers, "changes": self.changes},
            **{"directed": self.directed, "edges": float(np.mean(edges))},
            **{"least_degree": int(np.min(degrees)), "mean_degree": float(np.mean(degrees))},
            **{"largest_degree": int(np.max(degrees)), "components": len(self._components())},
            **{"doubly_stochastic": doubly, "spectral_gap": gap, "diameter": self._diameter()},
        }

    def _window(self) -> range:
        return range(1, WINDOW + 1 if self.changes else 2)

    def _over(self) -> str:
        return f", not even over the first {WINDOW} rounds together" if self.changes else ""

    def _components(self) -> list[int]:
        """Sizes of the parts within which everybody can reach everybody, the largest first."""
        union, sizes = nx.empty_graph(self.num_peers, create_using=nx.DiGraph), []
        for server_round in self._window():
            graph = self.graph(server_round)
            union.add_edges_from(graph.edges)
            if not graph.is_directed():
                union.add_edges_from((j, i) for i, j in graph.edges)
            sizes = sorted(map(len, nx.strongly_connected_components(union)), reverse=True)
            if len(sizes) == 1:
                break
        return sizes

    def _diameter(self) -> int | None:
        if self.changes or self.num_peers > DIAMETER_UP_TO or len(self._components()) > 1:
            return None
        return int(nx.diameter(self.graph(1)))

    def _checked(self, graph: Any, server_round: int) -> nx.Graph:
        """Order the peers; refuse what a rule of the user's own may have returned."""
        where = f"topology.graph '{self.name}', round {server_round}"
        if not isinstance(graph, nx.Graph) or graph.is_multigraph():
            raise ValueError(f"{where}: expected a networkx Graph or DiGraph, found {type(graph)}")
        if set(graph) != set(range(self.num_peers)):
            nodes = list(itertools.islice(graph, 5))
            raise ValueError(
                f"{where}: expected the nodes 0..{self.num_peers - 1}, found {len(graph)}: "
                f"{nodes}..."
            )
        if loops := list(nx.selfloop_edges(graph)):
            raise ValueError(f"{where}: expected no self loops, found {loops[:5]}")
        ordered = nx.empty_graph(self.num_peers, create_using=type(graph))
        ordered.add_edges_from(graph.edges)
        return ordered


def _degrees(graph: nx.Graph) -> list[int]:
    degree = graph.out_degree if graph.is_directed() else graph.degree
    return [number for _, number in degree]


def _some(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes[:10])) + (", ..." if len(sizes) > 10 else "")
