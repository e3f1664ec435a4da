"""Distillation over graphs, on real data: who learns how much, for how many bytes?

    python -m benchmarks.gossip --data mnist --root PATH --seeds 0,1,2 --jobs 2

Twenty peers of three architectures, three classes each, over several topologies, with trust by
discriminators and with equal trust, beside learning alone and a server. The table has the mean, the
worst and the standard deviation of peers' accuracy after the last round, megabytes between peers
(with a server: up and down), and the paired difference to equal trust with a 95 % interval over
seeds. `--figure FILE` draws the mean accuracy over rounds and over megabytes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.mutual import interval

ROOT = Path(__file__).parent.parent
GRAPHS = ("ring", "torus", "random_matchings", "static_exponential", "complete")
COMMON = [
    "sim=inline", "clients.num_clients=20", "partition=classes_per_client", "partition.classes=3",
    "data.limit=4000", "data.test_limit=2000", "clients.training.epochs=1",
    "clients.training.optimizer.lr=0.01", "strategy.distil.epochs=10", "tracking.figures_every=0",
]  # fmt: skip
TRUSTS = {
    "odds": ["strategy/scorer=own_odds", "strategy/discriminator=features"],
    "uniform": ["strategy/scorer=uniform", "strategy/discriminator=none"],
}
ALONE = ["strategy=gossip", "topology=ring", "strategy.distil.epochs=0"]
STAR = ["strategy=dlad", "strategy.feed_back=true", "strategy.digest_epochs=10"]

Found = dict[tuple[str, str, int], dict[str, Any]]


def settings() -> dict[tuple[str, str], list[str]]:
    """Return the words of each method, by topology and trust."""
    graphs = {
        (graph, trust): [*COMMON, "strategy=gossip", f"topology={graph}", *words]
        for graph, (trust, words) in product(GRAPHS, TRUSTS.items())
    }
    stars = {("server", trust): [*COMMON, *STAR, *words] for trust, words in TRUSTS.items()}
    return {("alone", "none"): [*COMMON, *ALONE, *TRUSTS["uniform"]], **stars, **graphs}


def run(words: list[str]) -> dict[str, Any]:
    """Run a federation in a process of its own; return curves and the last round's accuracies."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        command = [sys.executable, "run.py", *words, f"hydra.run.dir={folder}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        rows = pq.read_table(folder / "clients.parquet").to_pylist()
    last = [row["accuracy"] for row in rows if row["round"] == len(lines)]
    sent = [line["strategy"].get("edge_bytes", sum(line["bytes"].values())) / 1e6 for line in lines]
    return {
        "mean": float(np.mean(last)),
        "worst": float(np.min(last)),
        "spread": float(np.std(last)),
        "student": lines[-1]["student"].get("accuracy"),
        "curve": [line["clients"]["accuracy"]["mean"] for line in lines],
        "megabytes": np.cumsum(sent).tolist(),
    }


def table(found: Found, seeds: list[int], title: str) -> str:
    """Write the table, in Markdown."""
    lines = [
        f"{title}\n",
        "| topology | trust | mean | worst | std over peers | MB | mean: odds - uniform |",
        "|---|---|---|---|---|---|---|",
    ]
    for graph, trust in settings():
        own = [found[graph, trust, seed] for seed in seeds]
        cells = [f"{100 * np.mean([one[k] for one in own]):.1f}" for k in ("mean", "worst")]
        cells.append(f"{100 * np.mean([one['spread'] for one in own]):.1f}")
        megabytes = 0.0 if graph == "alone" else own[0]["megabytes"][-1]
        apart = ""
        if trust == "odds":
            pairs = [
                one["mean"] - found[graph, "uniform", s]["mean"]
                for one, s in zip(own, seeds, strict=True)
            ]
            apart = interval(pairs)
        name = graph
        if own[0]["student"] is not None:
            name += f" (student {100 * np.mean([one['student'] for one in own]):.1f})"
        lines.append(f"| {name} | {trust} | {' | '.join(cells)} | {megabytes:.1f} | {apart} |")
    return "\n".join(lines)


def draw(found: Found, seeds: list[int], title: str, path: Path) -> None:
    """Draw mean accuracy over rounds and over megabytes, one line per topology."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=80)
    rounds, cost = figure.subplots(1, 2, sharey=True)
    for number, graph in enumerate(("alone", "server", *GRAPHS)):
        trust, look = "none" if graph == "alone" else "odds", {"color": f"C{number}"}
        curve = np.mean([found[graph, trust, seed]["curve"] for seed in seeds], axis=0)
        rounds.plot(range(1, len(curve) + 1), curve, label=graph, **look)
        if graph != "alone":
            cost.plot(found[graph, trust, seeds[0]]["megabytes"], curve, **look)
    cost.set_xscale("log")
    rounds.set_xlabel("round")
    cost.set_xlabel("megabytes sent")
    rounds.set_ylabel("mean accuracy of peers")
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(rect=(0, 0, 0.84, 1))
    figure.legend(loc="center right", fontsize=8)
    figure.savefig(path)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    extra = [f"data={args.data}", f"data.root={args.root.resolve()}", f"rounds={args.rounds}"]
    keys = [(*method, seed) for method, seed in product(settings(), seeds)]
    with ThreadPoolExecutor(args.jobs) as executor:
        done = executor.map(
            lambda key: run([*settings()[key[0], key[1]], *extra, f"seed={key[2]}"]), keys
        )
        found: Found = dict(zip(keys, done, strict=True))
    title = f"{args.data}, {args.rounds} rounds, seeds {args.seeds}"
    print(table(found, seeds, title), flush=True)
    if args.figure is not None:
        draw(found, seeds, title, args.figure)


if __name__ == "__main__":
    main()
