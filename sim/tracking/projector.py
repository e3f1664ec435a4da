"""Clients as points by what they answer, for TensorBoard's projector: three plain text files."""

from pathlib import Path

import numpy as np
import torch

from clients.messages.round_views import RoundView
from sim.analysis.probes.values import Numbers, array, some_of

POINTS, NAMES, CONFIG = "clients_points.tsv", "clients_names.tsv", "projector_config.pbtxt"
HEAD = "client\tround"
DIMENSIONS = 32
MOST_CLIENTS = 64
"""In a round; spread evenly over the cohort."""


def coordinates(view: RoundView) -> tuple[list[int], Numbers]:
    """Place clients by their answers.

    The P x C probabilities are projected at random onto 32 axes, the same in every round and run,
    which keeps distances to about an eighth (one deviation).

    Args:
        view: Of one round.

    Returns:
        Client ids [M], M at most 64, of those that answered every example, and points [M, 32].

    Reference:
        Johnson and Lindenstrauss, "Extensions of Lipschitz Mappings into a Hilbert Space", 1984.
    """
    answered = view.teachers.mask.all(1).nonzero()[:, 0].tolist() if view.proxy_ids else []
    chosen = [answered[i] for i in some_of(len(answered), MOST_CLIENTS)]
    answers = view.teachers.logits[chosen]
    probs = (answers.softmax(-1) if view.teachers.soft else answers).flatten(1)
    axes = np.random.default_rng(0).standard_normal((probs.shape[1], DIMENSIONS))
    points = probs.double() @ torch.from_numpy(axes / DIMENSIONS**0.5)
    return [view.teachers.client_ids[k] for k in chosen], array(points)


def go_on_after(folder: Path, server_round: int) -> None:
    """Cut the files of an interrupted run back to the rounds that are done.

    Args:
        folder: Where TensorBoard looks; there need be no files yet.
        server_round: The last round that is done, 0 = none.

    Raises:
        ValueError: A file is not as `add` writes it; names it.
    """
    if not (folder / CONFIG).exists():
        return
    names, points = (_lines(folder / name) for name in (NAMES, POINTS))
    # A crash may have come between the two files, or in the middle of a line.
    pairs = zip(names[1:], points, strict=False)
    try:
        kept = [(n, p) for n, p in pairs if int(n.split("\t")[1]) <= server_round]
    except (IndexError, ValueError) as error:
        raise ValueError(f"{folder / NAMES}: expected lines of client, tab, round") from error
    _write(folder / NAMES, [HEAD, *(name for name, _ in kept)])
    _write(folder / POINTS, [point for _, point in kept])


def add(folder: Path, server_round: int, ids: list[int], points: Numbers) -> None:
    """Append the points of a round.

    Args:
        folder: As in `go_on_after`; must exist.
        server_round: 1..R.
        ids: Of the clients [M].
        points: Theirs [M, 32].
    """
    if not (folder / CONFIG).exists():
        paths = f'tensor_path: "{POINTS}"\n  metadata_path: "{NAMES}"'
        _write(folder / NAMES, [HEAD])
        _write(folder / CONFIG, [f'embeddings {{\n  tensor_name: "clients"\n  {paths}\n}}'])
    with (folder / POINTS).open("a") as file:
        np.savetxt(file, points, fmt="%.4g", delimiter="\t")
    with (folder / NAMES).open("a") as file:
        file.writelines(f"{client_id}\t{server_round}\n" for client_id in ids)


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
