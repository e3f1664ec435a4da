"""Several questions about each input: which digit is it, and by how many quarters is it turned?

Answers have a row for each question, so that a client can be trusted with one and not the other.
"""

import numpy as np

from clients.data import Dataset, digits, several_heads


def turned_digits(seed=0):
    """Turn scikit-learn's digits by 0 to 3 quarters, at random."""
    rng = np.random.default_rng(seed)
    return tuple(_turned(each, rng) for each in digits())


def _turned(source, rng):
    quarters = rng.integers(4, size=len(source))
    inputs = np.stack([
        np.rot90(image, turn, axes=(1, 2))
        for image, turn in zip(source.inputs, quarters, strict=True)
    ])  # fmt: skip
    task = several_heads(source.task.input_shape, {"digit": 10, "turn": 4})
    labels = np.stack([source.labels, quarters], axis=1)
    return Dataset("turned digits", inputs, labels, task, source.scale, source.mean, source.std)
