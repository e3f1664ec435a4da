"""Combining the answers of many clients in bounded memory, beside the machine's read bandwidth.

K clients' answers to N proxy examples of C classes, trusted by their discriminators' odds, are
summed up in groups (`fold`) and the groups' sums added (`merge`), as workers and driver do. The
answers come from a few blocks made beforehand, so that making them costs nothing. The yardstick is
the sum of an array larger than the caches, in the same process, with the same threads and in turns
with the work.

    python -m benchmarks.combining --clients 1000 --examples 50000 --classes 100 --dtype float32

Bytes: answers are read once, K N C b for b bytes a number; the running sums are read and written
once per client and merged once per group, K N C 8 (1 + 3 / 2 / group). Nothing grows with K but the
answers to the probe examples, 4 K P C.
"""

import argparse
import itertools
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

GROUP, PROBE, DISTINCT, CHECKED = 10, 256, 5, 50


def seconds(work: Callable[[], Any], times: int) -> float:
    """Return the mean time of a piece of work."""
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def replies(args: argparse.Namespace) -> tuple[list[Any], list[Any], list[Any]]:
    """Make a few clients' replies; also what they say on the first examples, to check by."""
    import torch

    from clients.messages.replies import PredictionReply, read_reply, write_reply

    contents, logits, own = [], [], []
    for k in range(min(DISTINCT, args.clients)):
        rng = np.random.default_rng(k)
        answers = 3 * rng.standard_normal((args.examples, args.classes), dtype=np.float32)
        own_probs = rng.random(args.examples, dtype=np.float32)
        reply = PredictionReply(1, k, 0, 75, answers, own_probs, None, {}, args.dtype)
        contents.append(write_reply(reply))
        logits.append(torch.from_numpy(read_reply(contents[-1]).logits[:CHECKED]).double())
        own.append(own_probs[:CHECKED].astype(np.float64))
    return contents, logits, own


def expected(args: argparse.Namespace, logits: list[Any], own: list[Any]) -> Any:
    """Combine the first examples in double precision, as one would write it down."""
    import torch

    total, mass = 0.0, 0.0
    for k in range(args.clients):
        c = torch.from_numpy(own[k % DISTINCT]).clamp(1e-4, 1 - 1e-4)
        odds = (c / (1 - c))[:, None]
        answers = logits[k % DISTINCT]
        total = total + odds * (
            answers if args.combiner == "mean_of_logits" else answers.softmax(-1)
        )
        mass = mass + odds
    mean = total / mass
    return mean.softmax(-1) if args.combiner == "mean_of_logits" else mean


def main() -> None:
    """Print times, bytes, ratios and the peak of resident memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--examples", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--dtype", choices=("float32", "float16", "uint8"), default="float32")
    parser.add_argument("--combiner", default="mean_of_probs")
    parser.add_argument("--threads", type=int, default=1, help="of a worker")
    args = parser.parse_args()

    import torch

    from clients.models.discriminator import DiscriminatorRecipe
    from strategies.aggregation import combiners, scorers
    from strategies.aggregation.ensemble import EnsembleRule
    from strategies.aggregation.streaming import read_part

    torch.set_num_threads(args.threads)
    read = torch.ones(2**26)  # 256 MiB
    reading: list[float] = []
    contents, logits, own = replies(args)
    recipe = DiscriminatorRecipe()
    rule = EnsembleRule(scorers.own_odds, getattr(combiners, args.combiner), recipe)
    reducer = rule.reducer(np.arange(min(PROBE, args.examples)))
    folding = 0.0

    def parts() -> Iterator[Any]:
        nonlocal folding
        cohort = itertools.islice(itertools.cycle(contents), args.clients)
        while group := list(itertools.islice(cohort, GROUP)):
            reading.append(seconds(read.sum, 3))  # beside each group: the machine has other work
            began = time.perf_counter()
            part = reducer.fold(group)
            folding += time.perf_counter() - began
            yield part

    began = time.perf_counter()
    merged = reducer.merge(parts())
    ensemble = rule(read_part(merged), np.arange(0))
    total = time.perf_counter() - began - 3 * sum(reading)
    bandwidth = read.nbytes / statistics.median(reading) / 1e9
    error = (ensemble.targets[:CHECKED] - expected(args, logits, own)).abs().max()

    numbers = args.clients * args.examples * args.classes / 1e9
    size = {"float32": 4, "float16": 2, "uint8": 1}[args.dtype]
    answers, traffic = numbers * size, numbers * (size + 8 * (1 + 1.5 / GROUP))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"K={args.clients} N={args.examples} C={args.classes} {args.dtype} {args.combiner}, "
        f"{args.threads} thread(s)\n"
        f"read bandwidth      {bandwidth:8.1f} GB/s\n"
        f"fold                {folding:8.2f} s   merge {total - folding:.2f} s   "
        f"total {total:.2f} s\n"
        f"answers read once   {answers:8.1f} GB  {answers / total:5.1f} GB/s, bandwidth is "
        f"{bandwidth * total / answers:.1f} times that\n"
        f"with running sums   {traffic:8.1f} GB  {traffic / total:5.1f} GB/s, bandwidth is "
        f"{bandwidth * total / traffic:.1f} times that\n"
        f"resident memory     {peak:8.2f} GiB at its peak, interpreter and libraries included\n"
        f"largest error       {error:8.1e} on {CHECKED} examples, against double precision"
    )


if __name__ == "__main__":
    main()
