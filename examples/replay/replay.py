"""Replay: a client that meets its classes one after another remembers examples of those before.

Chaudhry et al., "On Tiny Episodic Memories in Continual Learning" (arXiv:1902.10486), with a
reservoir (Vitter, "Random sampling with a reservoir", 1985): each example met so far is in the
memory with the same probability. `size: 0` forgets.

    python run.py --config-dir examples/replay strategy=fedavg clients=same \
        clients/training=replay partition=iid rounds=5
"""

import numpy as np
import torch

from clients.training.loop import train


def replay(
    model, dataset, indices, targets, loss, rng, *, local, size, classes_per_round, **numbers
):
    """Train on the classes of this round and on what is remembered; note how much that is."""
    if local.phase == "digest":  # of what was sent, not of the client's own stream
        return train(model, dataset, indices, targets, loss, rng, **numbers)
    first = classes_per_round * (local.server_round - 1) % dataset.task.num_classes
    window = (first + np.arange(classes_per_round)) % dataset.task.num_classes
    new = np.flatnonzero(np.isin(targets.numpy(), window))
    memory = local.state.get("memory", np.empty(0, np.int64))  # places among the client's examples
    places = np.concatenate([new, memory])
    local.note(remembered=len(memory), met=len(new))
    met = int(local.state.get("met", 0))
    local.state["memory"] = reservoir(memory, new, met, size, rng)
    local.state["met"] = np.array(met + len(new))
    if not len(places):
        return []
    rows = torch.from_numpy(places)
    return train(model, dataset, indices[places], targets[rows], loss, rng, **numbers)


def reservoir(memory, new, met, size, rng):
    """Let each new example take a random place in the memory, or none, as Vitter's algorithm R."""
    memory = memory.copy()
    for number, example in enumerate(new, start=met):
        if len(memory) < size:
            memory = np.append(memory, example)
        elif (place := rng.integers(number + 1)) < size:
            memory[place] = example
    return memory
