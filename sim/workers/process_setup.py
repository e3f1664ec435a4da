"""What a process of ours is set to: threads, the C allocator, Flower's identity, global seeds."""

import ctypes
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity
from threadpoolctl import threadpool_limits

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Names of glibc's `mallopt`, from malloc.h."""


def pin_threads(threads: int) -> None:
    """Fix the number of threads of torch and of the BLAS behind numpy in this process.

    The order in which a sum is split over threads is part of a result's bits, and both libraries
    otherwise take the number of cores they find.

    Args:
        threads: >= 1.
    """
    torch.set_num_threads(threads)
    threadpool_limits(limits=threads)


def require_device(key: str, device: str) -> None:
    """Refuse a device that torch does not know, and a GPU where it sees none.

    Args:
        key: Of the config, for the message.
        device: "cpu", or one that torch knows.

    Raises:
        ValueError: There is no such device here.
    """
    try:
        torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"{key}={device}: expected cpu or cuda") from error
    if torch.device(device).type not in ("cpu", "cuda"):
        raise ValueError(f"{key}={device}: expected cpu or cuda")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"{key}={device}: torch sees no GPU here")


def keep_memory() -> None:
    """Let glibc keep freed memory for the next local step instead of giving it back.

    By default each step takes its activations from the kernel anew, 1,500 page faults a client;
    kept, about 5, and a small network's round takes two thirds of the time. Elsewhere: no effect.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 64 << 20)


def assume_task_identity(run_id: int) -> None:
    """Let this process build Flower messages outside a Flower run.

    flwr 1.41 refuses a `Message` in a process without a task identity. Flower's own legacy
    simulation sets these three attributes likewise; `tests/sim/engine/test_grid.py` fails if that
    changes.

    Args:
        run_id: Put into every message's metadata.
    """
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID


@contextmanager
def seeded_globals(key: np.random.SeedSequence) -> Iterator[None]:
    """Seed Python's, numpy's and torch's global generators inside the block, then restore them.

    Args:
        key: The stream to seed them from.

    Yields:
        Nothing.
    """
    python, legacy = random.getstate(), np.random.get_state()
    words = key.generate_state(3, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(words[1:2].view(np.uint32))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(words[2] >> np.uint64(1)))
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
