"""The distillation that every system does, so that seconds, CPU and accuracies can be compared.

K clients with 10,000 private images among them, dealt out evenly (IID), and a proxy set of P. A
round: every client trains one local epoch (plain SGD, batches of 32) and answers the whole proxy
set with logits; the mean of the clients' probabilities is what the student imitates (KL, Adam, two
epochs, batches of 64); the student is measured on the whole test set. That is FedDF's exchange,
"one-way". With "digest" each client, before it trains again, imitates the same soft labels (KL,
SGD, two epochs, batches of 64), as in DS-FL without its sharpening.

Data, partition, architectures, initial parameters and orders of examples follow from the seed as in
a run of `run.py`, so that systems differ in how they round, and in nothing else.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from benchmarks.memory import MARK, cpu_seconds
from clients.data import Splits, digits, draw_splits, mnist
from clients.models import cnn, lenet5, mlp
from clients.models.factory import build
from clients.models.layers import MaxPool
from clients.partition import iid
from clients.population.architectures import assign_architectures
from clients.seeding import Purpose, generator

SEED = 0
LOCAL_BATCH, PROXY_BATCH = 32, 64
DISTIL_EPOCHS = 2
LEARNING_RATE, STUDENT_LEARNING_RATE = 0.1, 0.001
MODELS = {
    "student": partial(cnn, channels=(16, 32), hidden=64),  # 114,378 parameters with its biases
    "mlp": mlp,  # 199,210
    "lenet5": lenet5,  # 44,426
}
NETWORKS = {"cnn": ("student",), "mixed": ("student", "mlp", "lenet5")}
PROTOCOLS = ("one-way", "digest")
SOURCES = ("mnist", "digits")
PHASES = ("digest", "train", "answer", "clients", "distil", "evaluate")


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes:
        clients: K, all of whom take part in every round.
        proxy: P.
        networks: "cnn": the student's for everybody; "mixed": that, an MLP and LeNet-5.
        protocol: "one-way" or "digest".
        rounds: R.
        private: Examples of all clients together.
        source: "mnist", or "digits" (8x8, which comes with scikit-learn) to try things.
    """

    clients: int = 20
    proxy: int = 1000
    networks: str = "cnn"
    protocol: str = "one-way"
    rounds: int = 4
    private: int = 10_000
    source: str = "mnist"

    @property
    def digests(self) -> bool:
        """Whether clients imitate the soft labels of the round before."""
        return self.protocol == "digest"


@dataclass(frozen=True, eq=False)
class Federation:
    """What every system begins with; models are built where they are needed.

    Attributes:
        splits: Private, proxy and test set.
        partitions: Which private examples each client has.
        architectures: Name of each client's, one of `MODELS`.
        tuned: Whether networks are those that ours has, not as tutorials write them.
    """

    splits: Splits
    partitions: list[npt.NDArray[np.int64]]
    architectures: list[str]
    tuned: bool = False

    def student(self) -> nn.Module:
        """Build the student as it is before the first round."""
        return self._built("student", generator(SEED, Purpose.STUDENT))

    def network(self, client: int) -> nn.Module:
        """Build a client's network as it is before the first round."""
        rng = generator(SEED, Purpose.INITIALISE, 0, client)
        return self._built(self.architectures[client], rng)

    def _built(self, name: str, rng: np.random.Generator) -> nn.Module:
        network = build(MODELS[name], self.splits.private.task, rng)
        return network if self.tuned else as_tutorials_write(network)


def as_tutorials_write(network: nn.Module) -> nn.Module:
    """Give a network ReLU before torch's own pooling, and torch's own memory layout.

    It answers the same but for rounding. Ours pools first, compares whole maps where no gradient is
    wanted, and keeps channels last, none of which a user of torch has without writing it.
    """
    for parent in list(network.modules()):
        if isinstance(parent, nn.Sequential):
            for place in [k for k, each in enumerate(parent) if isinstance(each, MaxPool)]:
                pool = nn.MaxPool2d(parent[place].kernel_size)  # type: ignore[arg-type]
                if isinstance(parent[place + 1], nn.ReLU):
                    parent[place + 1], parent[place] = pool, parent[place + 1]
                else:  # ReLU is before it where one pixel is left
                    parent[place] = pool
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()
    return network


def data_root() -> str:
    """Return the folder with MNIST's files."""
    if not (root := os.environ.get("STILLHOUSE_DATA")):
        raise SystemExit("STILLHOUSE_DATA is not set: expected the folder with MNIST's files")
    return root


def federation_of(work: Work) -> Federation:
    """Cut the data and draw the architectures, as `run.py` does."""
    source = mnist(data_root()) if work.source == "mnist" else digits()
    limit = work.private + work.proxy
    limits: dict[str, Any] = {"limit": limit, "proxy_limit": None}
    splits = draw_splits(SEED, source, None, None, proxy_share=work.proxy / limit, **limits)
    rng = generator(SEED, Purpose.PARTITION)
    kinds = splits.private.task.strata(splits.private.labels)
    shares = dict.fromkeys(NETWORKS[work.networks], 1.0)
    names = assign_architectures(shares, work.clients, generator(SEED, Purpose.POPULATION))
    return Federation(splits, list(iid(kinds, work.clients, rng)), list(names))


class Watch:
    """Notes what each round took, by the clock and of the CPUs, and where the time went.

    Attributes:
        began: When the first phase began.
        ticks: Of the clock, at the end of each round.
        cpu: CPU seconds so far of all processes of the benchmark, at the same times.
        phases: Of each round the seconds by phase, one of `PHASES`.
    """

    def __init__(self) -> None:
        self.began: float | None = None
        self.ticks: list[float] = []
        self.cpu: list[float] = []
        self.phases: list[dict[str, float]] = [{}]
        self._phase: str | None = None
        self._since = 0.0

    @property
    def running(self) -> bool:
        """Whether a phase is."""
        return self._phase is not None

    def begin(self, phase: str | None) -> None:
        """End the phase that is running, and begin another."""
        now = time.monotonic()
        self.began = now if self.began is None else self.began
        if self._phase is not None:
            current = self.phases[-1]
            current[self._phase] = current.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def end_round(self) -> None:
        """End the phase that is running, and the round."""
        self.begin(None)
        self.phases.append({})
        self.cpu.append(cpu_seconds(os.environ.get(MARK)))
        self.ticks.append(time.monotonic())


# --- how a system is called, and how it says what it found ---


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every system's script takes."""
    usual = Work()
    parser.add_argument("--clients", type=int, default=usual.clients, metavar="K")
    parser.add_argument("--proxy", type=int, default=usual.proxy, metavar="P")
    parser.add_argument("--networks", choices=NETWORKS, default=usual.networks)
    parser.add_argument("--protocol", choices=PROTOCOLS, default=usual.protocol)
    parser.add_argument("--rounds", type=int, default=usual.rounds)
    parser.add_argument("--private", type=int, default=usual.private, help="of all clients")
    parser.add_argument("--source", choices=SOURCES, default=usual.source)
    parser.add_argument("--result", type=Path, help="write what was found here, not to the screen")


def work_of(args: argparse.Namespace) -> Work:
    """Read the work from the command line."""
    for name in ("clients", "proxy", "rounds"):
        if getattr(args, name) < 1:
            raise SystemExit(f"--{name} {getattr(args, name)}: expected at least 1")
    if args.private < 2 * args.clients:
        raise SystemExit(f"--private {args.private}: expected at least two for each client")
    return Work(**{name: getattr(args, name) for name in asdict(Work())})


def command_line(work: Work) -> list[str]:
    """Return the arguments that `work_of` reads."""
    return [word for name, value in asdict(work).items() for word in (f"--{name}", str(value))]


def command(
    doc: str | None, count: str, run: Callable[[Work, Watch, int], tuple[list[float], float | None]]
) -> None:
    """Run a system as the command line says, and say what it took.

    Args:
        doc: Of its script.
        count: The name of its number of workers, or threads; 2 unless told.
        run: (work, watch, number) -> the student's accuracy after each round; bytes a round.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    arguments(parser)
    parser.add_argument(f"--{count}", type=int, default=2)
    args, watch = parser.parse_args(), Watch()
    conclude(args, watch, *run(work_of(args), watch, getattr(args, count)))


def conclude(
    args: argparse.Namespace, watch: Watch, accuracy: list[float], bytes_per_round: float | None
) -> None:
    """Write or print what was found.

    Args:
        args: The command line.
        watch: What noted the rounds.
        accuracy: The student's on the test set, after each round.
        bytes_per_round: Of arrays that were sent, both ways; None = nothing is sent.
    """
    found = {
        "began": watch.began,
        "ticks": watch.ticks,
        "cpu": watch.cpu,
        "phases": watch.phases[: len(watch.ticks)],
        "accuracy": accuracy,
        "bytes_per_round": bytes_per_round,
    }
    text = json.dumps(found)
    print(text) if args.result is None else args.result.write_text(text)
