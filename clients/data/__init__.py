"""Data sets: what they are, where they are read from, how they are cut."""

from clients.data.dataset import Dataset, normalised, renumbered, subset
from clients.data.readers import blobs, cifar10, cinic10, digits, fashion_mnist, mnist
from clients.data.splits import Splits, draw_splits, split
from clients.data.user_file import npz

__all__ = [
    "Dataset",
    "Splits",
    "blobs",
    "cifar10",
    "cinic10",
    "digits",
    "draw_splits",
    "fashion_mnist",
    "mnist",
    "normalised",
    "npz",
    "renumbered",
    "split",
    "subset",
]
