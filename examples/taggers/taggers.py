"""Labels by taggers of unlike quality: what a client learns of what several people say.

Each client has taggers of its own; one names the true class with a probability of its own, and else
any other alike. What is learned is what they come to, which nobody tells the client: by their
votes, or by how sure each turns out to be (Dawid, Skene, "Maximum Likelihood Estimation of Observer
Error-Rates Using the EM Algorithm", Applied Statistics 28, 1979, with one number for each tagger).

    python run.py --config-dir examples/taggers clients/condition=tagged partition=iid
"""

import numpy as np

LEARN = ("posterior", "votes", "majority", "one")


def tagged(
    labels, num_classes, client_id, server_round, *, rng, taggers=5, worst=0.2, best=0.9,
    learn="posterior", iterations=10,
):  # fmt: skip
    """Return soft labels [n, C], by "posterior" or "votes"; or classes [n], by "majority" or "one".

    `rng` gives the same numbers in every round: what was said stays said.
    """
    if learn not in LEARN:
        raise ValueError(f"learn={learn}: expected one of {', '.join(LEARN)}")
    said = tags(labels, num_classes, rng, rng.uniform(worst, best, taggers))
    if learn == "one":  # whoever came by
        return said[np.arange(len(said)), rng.integers(taggers, size=len(said))]
    votes = np.eye(num_classes)[said]
    if learn == "posterior":
        return posterior(votes, iterations)
    return votes.mean(1) if learn == "votes" else votes.mean(1).argmax(1)


def tags(labels, num_classes, rng, quality):
    """Let each tagger look at each example [n, T]; `quality` is how often it is right [T]."""
    size = len(labels), len(quality)
    steps = (rng.random(size) >= quality) * rng.integers(1, num_classes, size)
    return (labels[:, None] + steps) % num_classes


def posterior(votes, iterations):
    """Estimate true classes [n, C] and each tagger's quality from votes [n, T, C], by turns."""
    truth, others = votes.mean(1), votes.shape[2] - 1
    for _ in range(iterations):
        quality = (votes * truth[:, None]).sum(2).mean(0).clip(0.01, 0.99)[:, None]
        logs = np.where(votes > 0, np.log(quality), np.log((1 - quality) / others)).sum(1)
        truth = np.exp(logs - logs.max(1, keepdims=True))
        truth /= truth.sum(1, keepdims=True)
    return truth
