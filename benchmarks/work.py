"""The work that every system does, so that their seconds can be compared.

N clients with 50 to 100 examples of 28x28 each (noise with a bright row that tells the class), C of
them a round, one local epoch of plain SGD in batches of 32, averaged by number of examples
(FedAvg), nothing evaluated. Cohorts, sizes, initial parameters and the order of every client's
examples follow from seeds alone, so every system must end in the same parameters.

The images lie in one file that every process maps: nobody pays for making or copying them.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.data import Dataset, classification, normalised
from clients.models import cnn, logistic_regression, mlp
from clients.models.factory import build
from clients.seeding import Purpose, generator, torch_seed
from clients.training.batches import batches

MODELS = {
    "cnn": partial(cnn, channels=(16, 32), hidden=64),  # 114,314 parameters
    "mlp": partial(mlp, hidden=(200,)),  # 159,010
    "lr": logistic_regression,  # 7,850
}
SEED = 0
BATCH_SIZE = 32
LEARNING_RATE = 0.2
SIZES = [n for n in range(50, 101) if n % BATCH_SIZE != 1]
"""Examples of a client. Ours never trains on a batch of one, others do: no client has one."""

Parameters = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes:
        model: Name of one of `MODELS`.
        clients: N.
        cohort: C, clients of a round.
        rounds: R.
        smooth: Put smooth functions in the place of ReLU and max-pool, see `smoothed`.
    """

    model: str
    clients: int
    cohort: int
    rounds: int
    smooth: bool = False


@dataclass(frozen=True, eq=False)
class Federation:
    """The examples, and which of them each client has."""

    dataset: Dataset
    partitions: list[npt.NDArray[np.int64]]


def write_data(work: Work, folder: Path) -> None:
    """Draw every client's number of examples, the images and the labels."""
    rng = np.random.default_rng(SEED)
    sizes = rng.choice(SIZES, work.clients)
    total = int(sizes.sum())
    np.save(folder / "sizes.npy", sizes)
    labels = rng.integers(0, 10, total)
    images = rng.integers(0, 256, (total, 1, 28, 28), dtype=np.uint8)
    images[np.arange(total), 0, 2 * labels + 4] = 255
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)


def read_data(folder: Path) -> Federation:
    """Map the images; client k has the next `sizes[k]` of them."""
    images = np.asarray(np.load(folder / "images.npy", mmap_mode="r"))
    labels, sizes = np.load(folder / "labels.npy"), np.load(folder / "sizes.npy")
    dataset = Dataset(
        "noise", images, labels, classification(images.shape[1:], 10), 1 / 255, (0.5,), (0.3,)
    )
    return Federation(dataset, np.split(np.arange(len(labels)), np.cumsum(sizes)[:-1]))


def cohort_of(work: Work, server_round: int) -> list[int]:
    """Draw the clients of a round, 1..R."""
    rng = np.random.default_rng((SEED, server_round))
    return sorted(int(k) for k in rng.choice(work.clients, work.cohort, replace=False))


def batches_of(
    federation: Federation, server_round: int, client: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Cut a client's examples into the batches of its local epoch.

    The order is that of `clients.training.loop.train` as `SimulatedClients` calls it, which draws
    torch's seed first.
    """
    rng = generator(SEED, Purpose.LOCAL_TRAINING, server_round, client)
    torch_seed(rng)
    indices = federation.partitions[client]
    for positions in batches(len(indices), BATCH_SIZE, rng):
        yield indices[positions]


def tensors_of(dataset: Dataset, indices: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return inputs [B, 1, 28, 28] and labels [B]."""
    return torch.from_numpy(normalised(dataset, indices)), torch.tensor(dataset.labels[indices])


def smoothed(image_shape: tuple[int, int, int], num_classes: int, *, model: str) -> nn.Module:
    """Build a model with softplus and mean-pooling instead of ReLU and max-pool.

    In float32 the sums of two systems round apart by 1e-6, and for one client of thirty that turns
    a ReLU or a max-pool of the CNN to its other side, which moves a first layer's gradient by up to
    2 %: of two right systems one is then 1e-3 of the distance moved apart from the other. Without
    such edges right systems agree within 1e-5, so it is with this model that they are compared.
    """
    return smooth(MODELS[model](image_shape, num_classes))


def smooth(network: nn.Module) -> nn.Module:
    """Put softplus and mean-pooling in the place of ReLU and max-pool, see `smoothed`."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU | nn.ReLU6):
                setattr(parent, name, nn.Softplus())
            elif isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    return network


def model_function(work: Work) -> Callable[..., nn.Module]:
    """Return what builds the work's model."""
    return partial(smoothed, model=work.model) if work.smooth else MODELS[work.model]


def initial_model(work: Work, *, channels_last: bool) -> nn.Module:
    """Build the model that every system starts from."""
    model = build(
        model_function(work), classification((1, 28, 28), 10), generator(SEED, Purpose.STUDENT)
    )
    return model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def parameters_of(model: nn.Module) -> Parameters:
    """Copy a model's parameters."""
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def shares(work: Work, federation: Federation, workers: int, server_round: int) -> list[list[int]]:
    """Split a cohort: longest first, each onto the least loaded worker."""
    loads, found = [0] * workers, [list[int]() for _ in range(workers)]
    cohort = cohort_of(work, server_round)
    for client in sorted(cohort, key=lambda k: -len(federation.partitions[k])):
        worker = loads.index(min(loads))
        loads[worker] += len(federation.partitions[client])
        found[worker].append(client)
    return found


# --- how a system is called, and how it says what it found ---


class Clock:
    """Notes the time when a round begins, and when the last one ends."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def __call__(self) -> None:
        """Note the time."""
        self.ticks.append(time.monotonic())


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every system's script takes."""
    parser.add_argument("--model", choices=MODELS, default="cnn")
    parser.add_argument("--clients", type=int, default=100, metavar="N")
    parser.add_argument("--cohort", type=int, default=10, metavar="C")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--smooth", action="store_true", help="no ReLU, no max-pool, to compare")
    parser.add_argument("--data", type=Path, help="folder of `write_data`; made if not given")
    parser.add_argument("--result", type=Path, help="write what was found here, not to the screen")


def work_of(args: argparse.Namespace) -> Work:
    """Read the work from the command line."""
    if not 1 <= args.cohort <= args.clients:
        raise SystemExit(f"--cohort {args.cohort}: expected 1..{args.clients}, the clients")
    if args.rounds < 1:
        raise SystemExit(f"--rounds {args.rounds}: expected at least 1")
    return Work(args.model, args.clients, args.cohort, args.rounds, args.smooth)


def command_line(work: Work) -> list[str]:
    """Return the arguments that `work_of` reads."""
    values = {name: value for name, value in asdict(work).items() if name != "smooth"}
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    return [*words, "--smooth"] if work.smooth else words


@contextmanager
def data_folder(args: argparse.Namespace) -> Iterator[Path]:
    """Yield the folder with the data; make it, for as long as it is needed, if none was given."""
    if args.data is not None:
        yield args.data
        return
    with tempfile.TemporaryDirectory() as name:
        write_data(work_of(args), Path(name))
        yield Path(name)


def conclude(
    args: argparse.Namespace,
    clock: Clock,
    parameters: Parameters,
    seconds: Sequence[float] | None = None,
) -> None:
    """Write or print the seconds of each round, and write the parameters.

    Args:
        args: The command line.
        clock: Ticks at the start of every round and at the end of the last one.
        parameters: The global model's after the last round.
        seconds: Of each round, if it is not the time between two ticks.
    """
    seconds = np.diff(clock.ticks).tolist() if seconds is None else list(seconds)
    if args.result is None:
        print(json.dumps({"seconds": seconds}))
        return
    flat = np.concatenate([parameters[name].ravel() for name in sorted(parameters)])
    np.savez(args.result, ticks=clock.ticks, seconds=seconds, flat=flat)


@cache
def lean_environment() -> dict[str, str]:
    """Return settings of the C allocator under which local steps take no memory from the kernel.

    By default glibc gives memory back after each step and takes it again, about 1,500 page faults a
    client. Read by glibc when a process starts.
    """
    tunables: dict[str, Any] = {
        "hugetlb": 1,
        "mmap_threshold": 2**30,
        "trim_threshold": 2**30,
        "top_pad": 2**26,
    }
    return {"GLIBC_TUNABLES": ":".join(f"glibc.malloc.{k}={v}" for k, v in tunables.items())}
