"""Distillation on BlazeFL's thread pool, run by the interpreter of its own environment.

    make .venv-blazefl PYTHON314=/path/to/python3.14
    .venv-blazefl/bin/python -m benchmarks.blazefl --threads 2 --clients 20 --proxy 1000

Its server handler and its `ThreadPoolClientTrainer` with a DS-FL as its own example writes it, but
for the work's mean of probabilities instead of sharpened ones, its averaging of the answers example
by example in a Python loop, and its evaluation of every client. Examples are tensors, clients'
networks stay in the process. Each client's thread has one thread of torch's, the server all.
"""

import threading
from dataclasses import dataclass

import torch
from blazefl.core import BaseServerHandler, ThreadPoolClientTrainer
from torch import Tensor, nn

from benchmarks.distil_plain import Tensors, accuracy, answer, digest, distil, train
from benchmarks.distil_work import Federation, Watch, Work, command, federation_of


@dataclass
class Uplink:
    """What a client sends."""

    client: int
    soft_labels: Tensor


@dataclass
class Downlink:
    """What the server sends: the soft labels of the round before, if clients are to digest them."""

    server_round: int
    soft_labels: Tensor | None


class Server(BaseServerHandler[Uplink, Downlink]):
    """Averages the soft labels and lets the student imitate them."""

    def __init__(self, work: Work, federation: Federation, data: Tensors) -> None:
        self.student, self.data, self.work = federation.student(), data, work
        self.server_round = 1
        self.buffer: list[Uplink] = []
        self.soft_labels: Tensor | None = None

    def sample_clients(self) -> list[int]:
        """Take all."""
        return list(range(self.work.clients))

    def is_stopped(self) -> bool:
        """Tell whether all rounds are done."""
        return self.server_round > self.work.rounds

    def load(self, payload: Uplink) -> bool:
        """Take in what a client sent; after the last one update."""
        self.buffer.append(payload)
        if len(self.buffer) < self.work.clients:
            return False
        self.global_update(self.buffer)
        self.buffer = []
        self.server_round += 1
        return True

    def global_update(self, buffer: list[Uplink]) -> None:
        """Average and distil."""
        buffer.sort(key=lambda package: package.client)
        self.soft_labels = torch.stack([package.soft_labels for package in buffer]).mean(0)
        distil(self.student, self.data, self.soft_labels, self.server_round)

    def downlink_package(self) -> Downlink:
        """Say what the clients are to digest."""
        return Downlink(self.server_round, self.soft_labels if self.work.digests else None)


class Clients(ThreadPoolClientTrainer[Uplink, Downlink]):
    """Digest, train, answer."""

    def __init__(self, federation: Federation, data: Tensors, num_parallels: int) -> None:
        self.num_parallels, self.device, self.device_count = num_parallels, "cpu", 0
        self.cache: list[Uplink] = []
        self.stop_event = threading.Event()
        self.data = data
        self.networks: list[nn.Module] = [
            federation.network(client) for client in range(len(federation.partitions))
        ]

    def worker(
        self, cid: int, device: str, payload: Downlink, stop_event: threading.Event
    ) -> Uplink:
        """Do one client's part of a round."""
        network = self.networks[cid]
        if payload.soft_labels is not None:
            digest(network, self.data, payload.soft_labels, payload.server_round, cid)
        train(network, self.data, payload.server_round, cid)
        return Uplink(cid, answer(network, self.data.proxy).softmax(1))

    def uplink_package(self) -> list[Uplink]:
        """Hand over what the clients sent."""
        package, self.cache = self.cache, []
        return package


def run(work: Work, watch: Watch, threads: int) -> tuple[list[float], float]:
    """Run BlazeFL's pipeline; return the accuracy after each round and bytes a round."""
    federation = federation_of(work)
    data = Tensors(federation)
    server, clients = Server(work, federation, data), Clients(federation, data, threads)
    found, sent = [], 0
    while not server.is_stopped():
        watch.begin("clients")
        torch.set_num_threads(1)
        down = server.downlink_package()
        clients.local_process(down, server.sample_clients())
        watch.begin("distil")
        torch.set_num_threads(threads)
        for package in clients.uplink_package():
            sent += package.soft_labels.nbytes
            sent += 0 if down.soft_labels is None else down.soft_labels.nbytes
            server.load(package)
        watch.begin("evaluate")
        found.append(accuracy(server.student, data))
        watch.end_round()
    return found, sent / work.rounds


if __name__ == "__main__":
    command(__doc__, "threads", run)
