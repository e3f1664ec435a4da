"""Short runs, from the command line and in this process, and the hashes that they end with."""

import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

import run
from conf.resume import resumed_config
from conf.schema import search_word
from sim.workers import ray_pool
from tests.commands import run_py
from tests.composing import composed
from tests.federations import SEED, open_pool

QUICK = ["clients.num_clients=5", "clients.training.epochs=2", "strategy.distil.epochs=3"]


NO_FIGURES = "tracking.figures_every=0"
"""They change no number, and take a second of a run's three."""


def result_of(folder: Path, *args: str, **env: str) -> dict:
    """Run without figures, unless the words want some; return what the run says of itself."""
    drawn = any(word.startswith("tracking.figures_every=") for word in args)
    done = run_py(*args, *([] if drawn else [NO_FIGURES]), f"hydra.run.dir={folder}", **env)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads((folder / "result.json").read_text())


def federated(
    folder: Path, *args: str, sim: str = "inline", resumed: Sequence[str] | None = None
) -> dict:
    """Do what `result_of` does in this process, where Ray, if wanted, is that of all tests.

    It takes half a second less, and over Ray ten; there the seed must be that of its workers. With
    words for a resumed run, `rounds=3` and more, the one in the folder goes on.
    """
    words, mine, resume = [*args, f"sim={sim}", NO_FIGURES], "", resumed is not None
    if args[:1] == ("--config-dir",):
        mine = words[1]
        words[:2] = [search_word(Path(mine))]
    if not resume:
        folder.mkdir(parents=True)
    with modules_of(mine), nullcontext() if sim == "inline" else lent_ray():
        if resumed is not None:
            words = [*words[:-2], f"resume={folder}", *resumed]
            config = resumed_config(composed(*words), words)
        else:
            config = composed(*words)
        return run.federate(config, folder, resume)


@contextmanager
def modules_of(folder: str) -> Iterator[None]:
    """Let a folder's modules be imported; they are forgotten, as another's may have their names."""
    before = {*sys.modules}
    with pytest.MonkeyPatch.context() as patch:
        if folder:
            patch.syspath_prepend(folder)
        yield
    for name in {*sys.modules} - before:
        if folder and str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
            del sys.modules[name]


class Lent:
    """A pool that its user does not close."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def close(self) -> None: ...


@contextmanager
def lent_ray() -> Iterator[None]:
    """Whoever makes a pool over Ray is lent the one that tests share, with two workers."""

    def lend(seed: int, **numbers: Any) -> Lent:
        assert seed == SEED  # which the workers have
        return Lent(pool)

    lend.__signature__ = inspect.signature(ray_pool.RayPool)  # type: ignore[attr-defined]
    with open_pool("ray", None) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_pool, "RayPool", lend)
        yield


def hashes(result: dict) -> tuple[str, ...]:
    return tuple(result[f"{what}_sha256"] for what in ("student", "metrics", "clients"))
