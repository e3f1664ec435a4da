"""What watching costs: probes, figures and event files, at the default frequency.

    python -m benchmarks.probes
    python -m benchmarks.probes --overrides data=mnist data.root=PATH clients.num_clients=100

First a run of 21 rounds, inline: the share of its time that goes into the student's answers for
the view, the probes, the lines of the run folder, the events and the figures. The first round is
not counted, and one of the twenty others has figures, as one in twenty has by default. Then made-up
rounds of 10, 100 and 1,000 clients: milliseconds, event bytes and tags.
"""

import argparse
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord
from hydra import compose, initialize_config_dir
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.profile import BEGINNING, Phases, replace_everywhere
from benchmarks.results import heading
from clients.messages.answers import Answers
from clients.messages.round_views import RoundView
from conf.building import instantiate
from conf.schema import register
from sim.engine.exchanges import Exchange
from sim.engine.rounds import RoundReport
from sim.tracking.tracker import Tracker
from sim.workers.process_setup import pin_threads

ROUNDS = 21
WATCHING = {
    "view and probes": [
        "strategies.teaching.round_view.answers_of",
        "strategies.teaching.round_view.show",
    ],
    "probes of averaging": ["sim.tracking.tracker.Tracker.view"],
    "lines, events and figures": ["sim.tracking.tracker.Tracker.round"],
}
EXAMPLES, CLASSES = 256, 10


def share_of_a_run(overrides: list[str]) -> str:
    """Run a federation; say how much of a round is spent on watching it."""
    import run
    import strategies.server.mutual  # noqa: F401  # all that may have taken a function by name

    phases = Phases()
    for phase, names in WATCHING.items():
        for name in names:
            replace_everywhere(name, partial(phases.timed, phase))
    replace_everywhere(BEGINNING, phases.counting)
    with tempfile.TemporaryDirectory() as folder:
        words = ["sim=inline", f"rounds={ROUNDS}", f"hydra.run.dir={folder}/run", *overrides]
        sys.argv = ["run.py", *words]
        run.main()
        events = (Path(folder) / "run" / "events").rglob("events.*")
        size = sum(path.stat().st_size for path in events) / ROUNDS
    return f"{phases.table()}\n\n{size / 1e3:.0f} kB of events a round"


def probes_of_the_config() -> dict:
    """Instantiate the probes that a run has by default."""
    register()
    conf = Path(__file__).parent.parent / "conf"
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose("config")
    return {str(name): instantiate(probe) for name, probe in config.probes.items()}


def made_up(num_clients: int, server_round: int) -> tuple[RoundView, RoundReport]:
    """A round of clients that answer at random, sure of some class, and are trusted alike."""
    rng = torch.Generator().manual_seed(server_round)
    logits = 3 * torch.randn(num_clients, EXAMPLES, CLASSES, generator=rng)
    weights = torch.rand(num_clients, EXAMPLES, generator=rng)
    weights /= weights.sum(0)
    mask = torch.ones(num_clients, EXAMPLES, dtype=torch.bool)
    ids = tuple(range(num_clients))
    teachers = Answers(ids, logits, mask, None, torch.ones(num_clients))
    targets = torch.einsum("kn,knc->nc", weights, logits.softmax(-1))
    view = RoundView(
        server_round, tuple(range(EXAMPLES)), teachers, weights, targets, [1.0],
        student_before=logits[0], student_after=logits[1],
    )  # fmt: skip
    draws = np.random.default_rng(server_round).random((num_clients, 3))
    exchanges = [
        Exchange(server_round, k, "train.predictions", "mlp", 4_000, 20_000,
                 dict(zip(("train-loss", "accuracy", "loss"), draws[k], strict=True)), "", "")
        for k in ids
    ]  # fmt: skip
    student = {"accuracy": 0.5, "loss": 1.0}
    return view, RoundReport(server_round, ArrayRecord(), student, {}, {}, exchanges)


def row_of(num_clients: int) -> str:
    """Track made-up rounds; write a row of the table."""
    labels = np.arange(EXAMPLES) % CLASSES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tracker = Tracker(
            folder, probes_of_the_config(), "", proxy_labels=labels, figures_every=20, watch=[0, 3]
        )
        seconds = []
        for server_round in range(1, ROUNDS + 1):
            view, report = made_up(num_clients, server_round)
            began = time.perf_counter()
            tracker.view(view)
            tracker.round(report)
            seconds.append(time.perf_counter() - began)
        tracker.close()
        files = list((folder / "events").rglob("events.*"))
        size = sum(path.stat().st_size for path in files) / ROUNDS
        (points,) = (folder / "events").rglob("clients_points.tsv")
        points = points.stat().st_size / ROUNDS
        tags = [EventAccumulator(str(path)).Reload().Tags() for path in files]
    kinds = ("scalars", "histograms", "images")
    numbers = [sum(len(each[kind]) for each in tags) for kind in kinds]
    plain, drawn = 1e3 * float(np.median(seconds[1:-1])), 1e3 * seconds[-1]
    return (
        f"| {num_clients:,} | {plain:.0f} | {drawn:.0f} | {size / 1e3:.1f} | {points / 1e3:.1f} | "
        f"{' + '.join(map(str, numbers))} |"
    )


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", default="10,100,1000", help="numbers of made-up clients")
    parser.add_argument("--overrides", nargs="*", default=[], help="run.py's, for the run")
    args = parser.parse_args()
    pin_threads(1)
    rows = [row_of(int(number)) for number in args.clients.split(",")]
    print(f"made-up rounds, one thread, {len(os.sched_getaffinity(0))} cores\n\n{heading()}\n")
    print("| clients | ms a round | ms with figures | kB of events a round | kB of points | tags |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows), flush=True)
    print(f"\na run with {' '.join(args.overrides) or 'the defaults'}\n")
    print(share_of_a_run(args.overrides))


if __name__ == "__main__":
    main()
