"""Data sets: what they are, where they are read from, how they are cut."""

from clients.data.built_in_sets import blobs, digits
from clients.data.colour_sets import cifar10, cifar100, cinic10, stl10, svhn
from clients.data.data_summary import (
    described,
    natural_clients,
    owners_by_client,
    renumbered,
    without_examples,
)
from clients.data.dataset import Dataset, normalised, subset, viewed
from clients.data.hugging_face import from_datasets, saved_dataset
from clients.data.idx_sets import emnist, fashion_mnist, kmnist, mnist
from clients.data.image_folder import image_folder
from clients.data.leaf import femnist
from clients.data.splits import Splits, draw_splits, split
from clients.data.table_sets import diabetes
from clients.data.task import Task, classification, dense_labelling, regression, several_heads
from clients.data.texts import shakespeare
from clients.data.user_file import npz
from clients.data.user_table import table

__all__ = [
    "Dataset",
    "Splits",
    "Task",
    "blobs",
    "cifar10",
    "cifar100",
    "cinic10",
    "classification",
    "dense_labelling",
    "described",
    "diabetes",
    "digits",
    "draw_splits",
    "emnist",
    "fashion_mnist",
    "femnist",
    "from_datasets",
    "image_folder",
    "kmnist",
    "mnist",
    "natural_clients",
    "normalised",
    "npz",
    "owners_by_client",
    "regression",
    "renumbered",
    "saved_dataset",
    "several_heads",
    "shakespeare",
    "split",
    "stl10",
    "subset",
    "svhn",
    "table",
    "viewed",
    "without_examples",
]
