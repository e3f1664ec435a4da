"""A federation's graph as a small picture, its peers coloured by how well they do."""

import networkx as nx
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from clients.messages.round_views import GraphView


def graph_picture(
    view: GraphView, values: npt.NDArray[np.float64], title: str
) -> npt.NDArray[np.uint8]:
    """Draw who heard of whom in a round.

    Args:
        view: Of the round; those who are asleep or gone are hollow.
        values: Accuracy of each peer [n], NaN where it is not known.
        title: Above it.

    Returns:
        Colours [280, 350, 3].
    """
    graph = nx.empty_graph(len(values))
    graph.add_edges_from(zip(view.senders.tolist(), view.receivers.tolist(), strict=True))
    # Spring layouts change with every edge: a circle keeps each peer in its place.
    places = nx.circular_layout(graph)
    figure = Figure(figsize=(5, 4), dpi=70)
    axes = figure.add_axes((0.02, 0.02, 0.8, 0.88))
    nx.draw_networkx_edges(graph, places, ax=axes, edge_color="0.7", width=0.6)
    size = max(12.0, 1500.0 / len(values))
    awake = np.flatnonzero(view.awake)
    asleep = np.flatnonzero(~view.awake)
    nx.draw_networkx_nodes(
        graph, places, nodelist=asleep.tolist(), ax=axes, node_color="white", edgecolors="0.5",
        node_size=size,
    )  # fmt: skip
    drawn = axes.scatter(
        [places[k][0] for k in awake],
        [places[k][1] for k in awake],
        c=values[awake],
        vmin=0.0,
        vmax=1.0,
        s=size,
        zorder=3,
    )
    axes.set_axis_off()
    bar = figure.add_axes((0.85, 0.1, 0.03, 0.75))
    figure.colorbar(drawn, cax=bar)
    bar.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=9)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
