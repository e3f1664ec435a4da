"""Random streams: every draw is keyed by (run seed, purpose, round, client), never by a worker.

Two streams with different keys are independent (numpy's `SeedSequence` spawn keys), so a task
gives the same bits on any worker, at any time, in any order. Never do arithmetic on seeds.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What a stream is for. Values are part of every result: append, never renumber."""

    SPLIT = 0
    PARTITION = 1
    POPULATION = 2
    INITIALISE = 3
    STUDENT = 4
    COHORT = 5
    LOCAL_TRAINING = 6
    DIGEST = 7
    DISTILLATION = 8
    NEGATIVES = 9
    FLOWER = 10
    TASK = 11
    TEST_LIMIT = 12
    PROBE = 13
    CHUNKS = 14
    PEER_BATCHES = 15
    PEER_NOISE = 16
    HEAD = 17
    PEERS = 18
    TOPOLOGY = 19
    AVAILABILITY = 20
    PROFILES = 21
    ARCHITECTURE = 22
    FIELD = 23
    TEST_SAMPLE = 24
    VIEW = 25
    NETWORK_PROBE = 26
    CONDITION = 27
    SELECTION = 28
    PROXY_CONDITION = 29
    SHAPE = 30
    CODEC = 31
    CODEC_DOWN = 32


def stream(
    seed: int, purpose: Purpose, server_round: int = 0, client_id: int = 0, turn: int = 0
) -> np.random.SeedSequence:
    """Return the seed sequence of one purpose, round and client.

    Args:
        seed: The run's seed, >= 0.
        purpose: What the stream is for.
        server_round: 0 = before training, then 1..R.
        client_id: 0-based; 0 also for what belongs to the server.
        turn: Which of several tasks of one client in one round and purpose, from 0.

    Returns:
        A `SeedSequence`; equal keys give equal streams on every machine.
    """
    return np.random.SeedSequence(
        entropy=seed, spawn_key=(int(purpose), server_round, client_id, turn)
    )


def child_of(stream: np.random.SeedSequence, purpose: Purpose) -> np.random.SeedSequence:
    """Return a stream beside another, for something that is done together with it."""
    return np.random.SeedSequence(stream.entropy, spawn_key=(*stream.spawn_key, int(purpose)))


def generator(
    seed: int, purpose: Purpose, server_round: int = 0, client_id: int = 0
) -> np.random.Generator:
    """Return a numpy generator over `stream(...)`; arguments as there."""
    return np.random.default_rng(stream(seed, purpose, server_round, client_id))


def named_generator(seed: int, purpose: Purpose, name: str) -> np.random.Generator:
    """Return a generator of what has a name in the place of a client id, whatever else there is.

    Args:
        seed: The run's seed, >= 0.
        purpose: What the stream is for.
        name: Of an architecture, say.

    Returns:
        A numpy generator over a stream of its own.
    """
    return generator(seed, purpose, client_id=zlib.crc32(name.encode()))


def torch_seed(rng: np.random.Generator) -> int:
    """Draw a seed for `torch.manual_seed` from `rng`: an integer in [0, 2**63)."""
    return int(rng.integers(2**63, dtype=np.uint64))


@contextmanager
def seeded_torch(rng: np.random.Generator) -> Iterator[None]:
    """Seed torch's global CPU generator from `rng` inside the block, restore it afterwards.

    Layers draw their initial parameters and dropout masks from the global generator; this is
    the only way to give them a stream of their own.

    Args:
        rng: One draw is taken from it.

    Yields:
        Nothing.
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would seed the accelerators too, which are not restored.
        torch.default_generator.manual_seed(torch_seed(rng))
        yield
