"""Many peers on a graph: seconds, memory and bytes as they grow in number.

    python -m benchmarks.graph_scale --root PATH [--peers 250,500,1000] [--rounds 10]

Logistic regressions on MNIST, ten examples each, on a 4-regular graph: averaging (adapt, then
combine) and gossip distillation with equal trust on 256 proxy examples. Peak memory is the
proportional set size of the driver and all Ray processes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.memory import MARK, PeakMemory, wait_until_gone
from benchmarks.results import heading

ROOT = Path(__file__).parent.parent
METHODS = {
    "averaging": ["strategy=adapt_then_combine"],
    "gossip": [
        "strategy=gossip", "strategy/scorer=uniform", "strategy/discriminator=none",
        "strategy.distil.epochs=1", "data.proxy_limit=320",
    ],
}  # fmt: skip
COMMON = [
    "topology=k_regular", "clients=same", "student=logistic_regression", "partition=iid",
    "data=mnist", "data.test_limit=200", "clients.training.epochs=1", "tracking.figures_every=0",
    "evaluate_every=10", "~probes.trust", "~probes.output_drift",
]  # fmt: skip
POOLS = {"inline": ["sim=inline"], "ray": ["sim=ray", "sim.workers=2"]}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--peers", default="250,500,1000")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    print(f"{heading()}\n")
    print("| method | pool | peers | messages | s a round | peak MB | MB between peers a round |")
    print("|---|---|---|---|---|---|---|")
    for name, words in METHODS.items():
        for pool, where in POOLS.items():
            for peers in map(int, args.peers.split(",")):
                with tempfile.TemporaryDirectory() as folder:
                    command = [
                        sys.executable, "run.py", *COMMON, *words, *where,
                        f"clients.num_clients={peers}", f"rounds={args.rounds}",
                        f"data.root={args.root.resolve()}", f"data.limit={peers * 13}",
                        f"hydra.run.dir={folder}/run",
                    ]  # fmt: skip
                    mark = f"{name}-{pool}-{peers}"
                    began = time.perf_counter()
                    with PeakMemory(mark, every_s=0.5) as memory:
                        subprocess.run(
                            command,
                            cwd=ROOT,
                            stdout=subprocess.DEVNULL,
                            env=os.environ | {MARK: mark},
                            check=True,
                        )
                    seconds = time.perf_counter() - began
                    wait_until_gone(mark)
                    text = (Path(folder) / "run" / "metrics.jsonl").read_text()
                last = json.loads(text.splitlines()[-1])["strategy"]
                print(
                    f"| {name} | {pool} | {peers} | {last['messages']:.0f} | "
                    f"{seconds / args.rounds:.2f} | {memory.peak_bytes / 1e6:.0f} | "
                    f"{last['edge_bytes'] / 1e6:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
