"""A GPU computes what the CPU does, up to rounding: clients, groups, peers and student, both pools.

Every test also runs on the CPU, where workers and groups stand for it; those on a GPU are marked
cuda. `benchmarks/gpu_check.sh` runs this where there is one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.work import smooth
from clients.data import blobs
from clients.data.batches_to_device import feed
from clients.execution.batched_loop import train_together
from clients.execution.model_cache import as_tensors
from clients.execution.stack import Stack
from clients.models import lenet5, mlp, resnet8
from clients.models.factory import Parameters, build, parameters_of
from clients.mutual.lockstep import train_peers
from clients.training.loop import train
from clients.training.losses import cross_entropy
from sim.workers.pools import InlinePool, Pool
from tests.federations import (
    SEED,
    close_kept_pool,
    distillation,
    open_pool,
    ray_left_open,
    run_ours,
    simulated,
    student_of,
    tiny_clients,
)
from tests.mutual_learning import mutual

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
IMAGES, _ = blobs(num_examples=256, image_shape=(1, 28, 28), num_classes=4)
NETWORKS: dict[str, Any] = {"mlp": partial(mlp, hidden=(32,)), "lenet5": lenet5, "resnet8": resnet8}
NUMBERS: Any = {
    "epochs": 1,
    "batch_size": 16,
    "optimizer": partial(torch.optim.SGD, lr=0.02, momentum=0.9),
}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each device; convolutions in float32, not in TF32, torch's own choice on a GPU."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield str(request.param)
    torch.backends.cudnn.allow_tf32 = before


@contextmanager
def pool_on(device: str, kind: str, app: Any) -> Iterator[Pool]:
    """Open a pool that computes on a device; two workers over Ray share a quarter of it each."""
    if device == "cpu":
        with open_pool(kind, app) as pool:
            yield pool
        return
    from sim.workers.ray_pool import RayPool

    close_kept_pool()
    with ray_left_open():
        inline = kind == "inline"
        pool = (
            InlinePool(SEED, device=device)
            if inline
            else RayPool(SEED, 2, device=device, gpus_per_worker=0.25)
        )
    try:
        with ray_left_open():
            pool.load(app)
        yield pool
    finally:
        with ray_left_open():
            pool.close()


def apart(found: Parameters, wanted: Parameters, start: Parameters) -> float:
    """Return the distance of parameters, relative to how far those wanted moved."""
    names = [name for name in wanted if wanted[name].dtype.kind == "f"]
    far = [np.linalg.norm(found[n].astype(float) - wanted[n]) for n in names]
    moved = [np.linalg.norm(wanted[n].astype(float) - start[n]) for n in names]
    return float(np.linalg.norm(far) / np.linalg.norm(moved))


def own(k: int) -> tuple[np.ndarray, torch.Tensor]:
    """Return the examples of client k, and their labels."""
    ids = np.arange(48 * k, 48 * (k + 1))
    return ids, torch.tensor(IMAGES.labels[ids])


def network(name: str) -> nn.Module:
    """Build a network without edges: a ReLU that rounding turns would be a hundredth by itself."""
    return smooth(build(NETWORKS[name], IMAGES.task, np.random.default_rng(0)))


def alone(name: str, k: int, device: str = "cpu", **changes: Any) -> Parameters:
    model = network(name).to(device)
    train(model, IMAGES, *own(k), cross_entropy, np.random.default_rng(k), **NUMBERS | changes)
    return parameters_of(model)


def test_batches_arrive_whole_and_in_order(device: str) -> None:
    cut = np.array_split(np.random.default_rng(0).permutation(len(IMAGES)), 12)
    there = list(feed(IMAGES, cut, torch.device(device)))
    for images, ids in zip(there, cut, strict=True):
        assert images.device.type == device
        (wanted,) = feed(IMAGES, [ids], torch.device("cpu"))
        assert torch.equal(images.cpu(), wanted)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_group_learns_what_each_would_alone_on_the_cpu(device: str, name: str) -> None:
    model = network(name).to(device)
    start = parameters_of(model)
    stack = Stack(model, 3, "wide")
    stack.load_all(as_tensors(start, device))
    ids, labels = zip(*(own(k) for k in range(3)), strict=True)
    rngs = [np.random.default_rng(k) for k in range(3)]
    train_together(stack, IMAGES, ids, labels, cross_entropy, rngs, **NUMBERS)
    for k in range(3):
        assert apart(stack.parameters_of(k), alone(name, k), start) < 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_is_near_float32_on_the_cpu(device: str, name: str) -> None:
    start = parameters_of(network(name))
    half = alone(name, 0, device, autocast="bfloat16")
    assert 1e-5 < apart(half, alone(name, 0), start) < 0.2


@pytest.mark.parametrize("kind", ["inline", "ray"])
def test_a_federation_teaches_the_same_student(device: str, kind: str) -> None:
    def taught(device: str, kind: str) -> Parameters:
        clients = tiny_clients()
        strategy = distillation(clients, student=student_of(clients).to(device))
        with pool_on(device, kind, simulated(clients)) as pool:
            return run_ours(pool, clients, strategy, 2).parameters

    start = parameters_of(student_of(tiny_clients()))
    assert apart(taught(device, kind), taught("cpu", "inline"), start) < 5e-2


@pytest.mark.parametrize("kind", ["inline", "ray"])
def test_peers_teach_each_other_the_same(device: str, kind: str) -> None:
    clients = tiny_clients()
    start = parameters_of(student_of(clients))
    with pool_on("cpu", "inline", simulated(clients)) as pool:
        wanted = run_ours(pool, clients, mutual(clients, train_peers), 2).parameters
    with pool_on(device, kind, simulated(clients)) as pool:
        strategy = mutual(clients, pool.train_peers(print))
        found = run_ours(pool, clients, strategy, 2).parameters
    assert apart(found, wanted, start) < 5e-2
