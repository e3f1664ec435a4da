"""One test per shipped option in which the named number changes: none whose value does nothing."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conf.building import instantiate
from sim.workers import ray_pool
from tests import averaging_table, client_option_table, method_table, option_table, strategy_table
from tests.option_table import Differs
from tests.places import ROOT
from tests.shipped_options import shipped_keys
from tests.tiny_runs import BASES, OF_A_RUN, Seen, composed, observed, played

TABLES = (
    *(option_table.RUN, option_table.DATA, option_table.TOPOLOGY),
    *(client_option_table.MESSENGER, client_option_table.CLIENTS, client_option_table.NETWORKS),
    *(strategy_table.ENSEMBLE, strategy_table.MUTUAL, strategy_table.PEERS),
    *(averaging_table.AVERAGES, averaging_table.CODECS, method_table.METHODS),
)
TABLE = {key: row for table in TABLES for key, row in table.items()}
NAMED = {key: row for key, row in TABLE.items() if isinstance(row, str)}
PAIRS = {key: row for key, row in TABLE.items() if isinstance(row, Differs)}
Look = Callable[[str, Differs, Any], Any]


def test_every_option_has_a_test_and_only_those() -> None:
    assert sum(map(len, TABLES)) == len(TABLE)
    assert set(TABLE) == shipped_keys()


@pytest.mark.parametrize("test", sorted(set(NAMED.values())))
def test_a_test_that_is_named_exists(test: str) -> None:
    module, name = test.split(".")
    text = (ROOT / "tests" / f"{module}.py").read_text()
    assert re.search(rf"^def {name}\(", text, re.MULTILINE)


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Look]:
    """Look at what comes of a value; runs with equal words are run once."""
    tmp = tmp_path_factory.mktemp("options")
    write_files(tmp)
    known: dict[str, Seen] = {}
    number = itertools.count()
    threads = torch.get_num_threads()

    def at(key: str, row: Differs, value: Any) -> Any:
        name = max((name for name in BASES if f"{row.base} ".startswith(f"{name} ")), key=len)
        words = (*BASES[name], *row.base.removeprefix(name).split())
        words = tuple(word.replace("{tmp}", str(tmp)) for word in words)
        if isinstance(value, tuple):
            config = composed((*words, *value))
        else:
            value = value.replace("{tmp}", str(tmp)) if isinstance(value, str) else value
            config = composed(words, key.split(" of ")[0], value)
        if row.what.split()[0] not in OF_A_RUN:
            return observed(Seen(config, tmp), row.what)
        text = str(config)
        if text not in known:
            known[text] = played(config, tmp / f"run-{next(number)}")
        return observed(known[text], row.what)

    yield at
    torch.set_num_threads(threads)


def write_files(folder: Path) -> None:
    """Write two of each kind of file that an option may name."""
    for number, name in enumerate("ab", start=1):
        rng = np.random.default_rng(number)
        images = rng.integers(0, 256, (60, 4, 4), dtype=np.uint8)
        owners = np.arange(60) % 5
        np.savez(folder / f"{name}.npz", images=images, labels=np.arange(60) % 4, owners=owners)
        cut = np.array_split(np.arange(72), 4)
        parts = {str(k): cut[(k + number) % 4].tolist() for k in range(4)}
        (folder / f"{name}.json").write_text(json.dumps(parts))
        edges = [f"{peer} {(peer + number) % 8}" for peer in range(8)] + ["0 7", "0 1"]
        (folder / f"{name}.csv").write_text("\n".join(dict.fromkeys(edges)))


OFTEN = (
    "uniform",
    "built",
    "averaging",
    "own",
    "bare",
    "gossip",
    "mutual",
    "mnist",
    "npz",
    "owned",
    "proxy",
)
"""Options of these bases are tried by `make test`, those of other methods by `make test-slow`."""


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(key, marks=() if row.base.split()[0] in OFTEN else pytest.mark.slow)
        for key, row in PAIRS.items()
    ],
)
def test_another_value_changes_what_is_named(key: str, look: Look) -> None:
    row = PAIRS[key]
    assert look(key, row, row.one) != look(key, row, row.other)


# --- options that no tiny run shows ---


def test_threads_are_the_configs() -> None:
    before, two = torch.get_num_threads(), 2 if torch.get_num_threads() == 1 else 1
    try:
        instantiate(composed(BASES["built"], "sim.threads", two).sim)(seed=0).close()
        assert torch.get_num_threads() == two
    finally:
        torch.set_num_threads(before)


def test_states_spill_where_the_config_says(tmp_path: Path) -> None:
    for room, spills in ((1 << 20, False), (0, True)):
        pool = instantiate(composed(BASES["built"], "sim.state_memory_bytes", room).sim)(seed=0)
        pool.states(tmp_path / str(room)).update({0: b"a state", 1: b"another"})
        assert bool(list(tmp_path.glob(f"{room}/*"))) == spills
        pool.close()


def test_ray_is_started_as_the_config_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """No option is left out on the way to Ray; that Ray is there is tested elsewhere."""
    told: dict[str, Any] = {}

    def note(name: str) -> Callable[..., Any]:
        return lambda *args: told.update({name: args}) or {"num_cpus": 1}

    monkeypatch.setattr(ray_pool.ray, "is_initialized", lambda: False)
    for name in ("start_ray", "worker_options", "require_answer"):
        monkeypatch.setattr(ray_pool, name, note(name))
    monkeypatch.setattr(ray_pool, "room_for", lambda *args, free: note("room")(*args) and 0)
    values = ("sim=ray", "sim.workers=3", "sim.threads=1", "sim.device=cuda", "sim.address=host:1")
    values += ("sim.gpus_per_worker=0.25", "sim.object_store_bytes=80000000", "sim.peer_workers=2")
    values += ("sim.peer_timeout_s=7.0", "sim.client_timeout_s=9.0")
    pool = instantiate(composed(values).sim)(seed=4)
    monkeypatch.setattr(pool, "_stop_ray", lambda: None)
    with pytest.raises(ValueError, match="sim.workers=3: Ray has room for 0 on cuda"):
        pool.load(None)
    assert told["require_answer"] == ("host:1",)
    assert told["start_ray"] == (3, 80000000, "host:1", 1)
    assert told["worker_options"] == (1, "cuda", 0.25, False)
    assert told["room"] == ("cuda", 0.25)
    assert (pool._peer_workers, pool._peer_timeout_s, pool._client_timeout_s) == (2, 7.0, 9.0)
