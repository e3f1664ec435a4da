"""Lock-step peers in one process and spread over workers: milliseconds and bytes of a step.

    python -m benchmarks.peers
    python -m benchmarks.peers --device cuda --gpus-per-worker 0.25

Equal peers learn 50 steps on 28x28 images; what an epoch costs to begin (an epoch of one step) is
taken off. "apart" is the largest difference of any parameter from the group in one process on the
CPU. Spreading pays where the last but one column is below 1.
"""

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import torch
from flwr.clientapp import ClientApp

from clients.data import Dataset, blobs
from clients.models import cnn, lenet5, mlp
from clients.models.factory import ModelFunction, build, parameters_of
from clients.mutual import group_heads, rules
from clients.mutual.group import GroupLesson, GroupState, Head, Peer, Snapshot
from clients.mutual.lockstep import train_peers
from sim.workers.process_setup import keep_memory, pin_threads
from sim.workers.ray_pool import RayPool

SGD = partial(torch.optim.SGD, lr=0.01, momentum=0.9)
MODELS: dict[str, ModelFunction] = {
    "mlp": mlp,
    "lenet5": lenet5,
    "cnn": partial(cnn, channels=(32, 64), hidden=128),
}
Train = Callable[[GroupLesson, GroupState, Dataset], GroupState]


def lesson(model: str, rule: str, peers: int, steps: int, batch_size: int) -> GroupLesson:
    """A group of equal peers and one epoch of some steps."""
    ids = np.arange(steps * batch_size)
    head = Head(group_heads.Fusion, SGD) if rule == "ffl" else None
    return GroupLesson(
        peers=tuple(Peer(f"{model}-{k}", MODELS[model], SGD) for k in range(peers)),
        rule=getattr(rules, rule),
        head=head,
        ids=ids,
        targets=torch.full((len(ids), 10), 0.1),
        epochs=1,
        batch_size=batch_size,
    )


def start(task: GroupLesson, dataset: Dataset) -> GroupState:
    """Fresh parameters."""
    return GroupState(
        tuple(
            Snapshot(parameters_of(build(peer.model, dataset.task, np.random.default_rng(k))))
            for k, peer in enumerate(task.peers)
        )
    )


def timed(train: Train, task: GroupLesson, dataset: Dataset) -> tuple[float, GroupState]:
    """Train twice; return the seconds of the second time, and what came of it."""
    begun = start(task, dataset)
    train(task, begun, dataset)
    began = time.perf_counter()
    state = train(task, begun, dataset)
    return time.perf_counter() - began, state


def step_ms(
    train: Train, case: tuple[str, str, int], args: argparse.Namespace
) -> tuple[float, GroupState]:
    """Milliseconds of a step, less what an epoch costs to begin; the median of five."""
    dataset = blobs(
        num_examples=args.steps * args.batch_size * 2, image_shape=(1, 28, 28), num_classes=10
    )[0]
    found = []
    for _ in range(5):
        long, state = timed(train, lesson(*case, args.steps, args.batch_size), dataset)
        short, _ = timed(train, lesson(*case, 1, args.batch_size), dataset)
        found.append(1e3 * (long - short) / (args.steps - 1))
    return float(np.median(found)), state


def apart(one: GroupState, other: GroupState) -> float:
    """Return the largest difference of any parameter."""
    return max(
        float(np.abs(a.parameters[name].astype(float) - b.parameters[name]).max())
        for a, b in zip(one.peers, other.peers, strict=True)
        for name in a.parameters
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--models", default="mlp,lenet5,cnn")
    parser.add_argument("--rules", default="dml,ffl")
    parser.add_argument("--workers", default="2,4")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--gpus-per-worker", type=float, default=0.25)
    args = parser.parse_args()
    keep_memory()
    pin_threads(1)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {args.device}")
    print("| peers | rule | workers | ms per step | times one process | kB per step | apart |")
    print("|---|---|---|---|---|---|---|")
    options = (args.models.split(","), args.rules.split(","), map(int, args.workers.split(",")))
    cases = list(product(*options))
    reference: dict[tuple[str, str, int], tuple[float, GroupState]] = {}
    for case in cases:
        here = reference[case] = step_ms(train_peers, case, args)
        row = f"| {case[2]} {case[0]} | {case[1]} | one process | {here[0]:.2f} | 1.00 | 0 | 0 |"
        print(row, flush=True)
    for workers in sorted({case[2] for case in cases}):
        pool = RayPool(0, workers, device=args.device, gpus_per_worker=args.gpus_per_worker)
        pool.load(ClientApp())
        try:
            for case in [case for case in cases if case[2] == workers]:
                ms, state = step_ms(pool.train_peers(print), case, args)
                one = reference[case]
                sent = state.sent_bytes / args.steps / 1e3
                name = f"| {case[2]} {case[0]} | {case[1]} | {workers} | {ms:.2f} "
                print(name + f"| {ms / one[0]:.2f} | {sent:.1f} | {apart(state, one[1]):.0e} |")
        finally:
            pool.close()


if __name__ == "__main__":
    main()
