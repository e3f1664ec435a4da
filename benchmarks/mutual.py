"""Mutual learning with labels, on real data: does it beat learning alone?

    python -m benchmarks.mutual --data mnist --root PATH --seeds 0,1,2

Two or three unlike architectures learn the same examples in lock-step, with the same initial
parameters and batches under every rule: alone, deep mutual learning, ONE and feature fusion. On the
test set: every peer, the mean of their probabilities, the mean of their logits, the fused
classifier. Then the paired differences to the same measure of learning alone, mean over seeds with
a 95 % interval (Student's t; with three seeds it is 4.3 standard errors wide each way).
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from clients.data import Dataset, fashion_mnist, mnist, subset
from clients.data.measures import class_measures
from clients.models import cnn, lenet5, mlp
from clients.models.factory import ModelFunction, build, load_parameters, parameters_of
from clients.mutual import group_heads, rules
from clients.mutual.ensemble_classifier import fused_classifier
from clients.mutual.group import GroupLesson, GroupState, Head, Peer, Snapshot
from clients.mutual.group_process import any_network
from clients.mutual.lockstep import train_peers
from clients.training.evaluation import predict
from sim.workers.process_setup import keep_memory, pin_threads

ADAM = partial(torch.optim.Adam, lr=1e-3)
SETS = {"mnist": mnist, "fashion_mnist": fashion_mnist}
GROUPS: dict[str, dict[str, ModelFunction]] = {
    "two": {"lenet5": lenet5, "mlp": partial(mlp, hidden=(200,))},
    "three": {
        "lenet5": lenet5,
        "mlp": partial(mlp, hidden=(200,)),
        "cnn": partial(cnn, channels=(8, 16), hidden=32),
    },
}
TAPS = {"lenet5": "features.3", "cnn": "features.3"}
"""The second convolution's maps; the MLP has none and is tapped at its hidden layer."""


def methods(epochs: int) -> dict[str, tuple[Any, Any]]:
    """Rules with their heads; ramps end half way."""
    ramp = epochs // 2
    return {
        "alone": (rules.alone, None),
        "dml": (rules.dml, None),
        "one": (partial(rules.one, ramp_epochs=ramp), group_heads.Gate),
        "ffl": (partial(rules.ffl, ramp_epochs=ramp), group_heads.Fusion),
    }


def run(
    models: Mapping[str, ModelFunction],
    method: tuple[Any, Any],
    train: Dataset,
    test: Dataset,
    epochs: int,
    seed: int,
) -> dict[str, float]:
    """Train a group; return accuracies by measure."""
    rule, head = method
    lesson = GroupLesson(
        peers=tuple(Peer(name, model, ADAM, TAPS.get(name)) for name, model in models.items()),
        rule=rule,
        head=None if head is None else Head(head, ADAM),
        ids=np.arange(len(train)),
        targets=torch.nn.functional.one_hot(torch.tensor(train.labels)).float(),
        epochs=epochs,
        batch_size=64,
        seed=seed,
    )
    begun = GroupState(
        tuple(
            Snapshot(parameters_of(build(p.model, train.task, np.random.default_rng([seed, k]))))
            for k, p in enumerate(lesson.peers)
        )
    )
    state = train_peers(lesson, begun, train)
    everything, logits = np.arange(len(test)), []
    found = {}
    for peer, snapshot in zip(lesson.peers, state.peers, strict=True):
        network = any_network(peer, test)
        load_parameters(network, snapshot.parameters)
        logits.append(predict(network, test, everything))
        found[peer.name] = class_measures(logits[-1], test.labels)["accuracy"]
    stacked = torch.stack(logits)
    probs = stacked.softmax(-1).mean(0).clamp_min(1e-12).log()
    found["mean of probs"] = class_measures(probs, test.labels)["accuracy"]
    found["mean of logits"] = class_measures(stacked.mean(0), test.labels)["accuracy"]
    if (fused := fused_classifier(lesson, state, test)) is not None:
        found["fused"] = class_measures(predict(fused, test, everything), test.labels)["accuracy"]
    return found


def interval(differences: list[float]) -> str:
    """Say a mean in points, and half the width of its 95 % interval."""
    values = 100 * np.array(differences)
    if len(values) < 2:
        return f"{values.mean():+.2f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    verdict = "" if abs(values.mean()) > half else ", no difference"
    return f"{values.mean():+.2f} ± {half:.2f}{verdict}"


def main() -> None:
    """Print one table per group of architectures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=SETS, default="mnist")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", default="0,1,2")
    args = parser.parse_args()
    pin_threads(1)
    keep_memory()
    train, test = SETS[args.data](str(args.root))
    seeds = [int(seed) for seed in args.seeds.split(",")]
    for group, models in GROUPS.items():
        found: dict[tuple[str, int], dict[str, float]] = {}
        for seed in seeds:
            order = np.random.default_rng(seed).permutation(len(train))[: args.examples]
            own = subset(train, order)
            for name, method in methods(args.epochs).items():
                found[name, seed] = run(models, method, own, test, args.epochs, seed)
        print(
            f"\n{args.data}, {group} ({', '.join(models)}), {args.examples} labelled examples, "
            f"{args.epochs} epochs, seeds {args.seeds}\n"
        )
        print(
            "| measure | " + " | ".join(methods(1)) + " | dml - alone | one - alone | ffl - alone |"
        )
        print("|---" * 8 + "|")
        for measure in [*models, "mean of probs", "mean of logits", "fused"]:
            cells = []
            for name in methods(1):
                values = [found[name, s][measure] for s in seeds if measure in found[name, s]]
                cells.append(f"{100 * np.mean(values):.2f}" if values else "")
            for name in ("dml", "one", "ffl"):
                # Alone has no fused classifier: there it is compared with the mean of logits.
                base = "mean of logits" if measure == "fused" else measure
                pairs = [
                    found[name, s][measure] - found["alone", s][base]
                    for s in seeds
                    if measure in found[name, s]
                ]
                cells.append(interval(pairs) if pairs else "")
            print(f"| {measure} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
