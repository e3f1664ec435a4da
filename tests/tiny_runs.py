"""Tiny runs of the whole program in this process, and what can be seen of each."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf, open_dict

import run
from clients.models.factory import parameters_of
from clients.population.drawing import draw_student
from conf.building import instantiate
from conf.errors import Stopped
from stillhouse import wiring
from tests import composing
from tests.tracked_runs import curves_of

FEW = (
    *("clients.num_clients=4", "clients.training.epochs=1", "clients.training.batch_size=8"),
    *("data=blobs", "data.source.num_examples=120", "partition=iid", "sim=inline"),
    *("probes=none", "tracking.figures_every=0", "student=mlp", "student.hidden=[4]"),
)
MIXED = (*FEW, "~clients.architectures.lenet5", "clients.architectures.mlp.model.hidden=[4]")
TAUGHT = (*MIXED, "strategy.distil.epochs=1", "strategy.distil.batch_size=16")
GROUP = (*MIXED, "strategy.teaching.epochs=1", "strategy.teaching.batch_size=16")
SAME = (*FEW, "clients=same")
GOSSIP = (*TAUGHT, "topology=ring", "rounds=2")
BASES: dict[str, tuple[str, ...]] = {
    "uniform": ("strategy=distillation", *TAUGHT),
    "own": ("strategy=dlad", "strategy/scorer=own_probability", *TAUGHT),
    "fed back": ("strategy=distillation", "strategy.feed_back=true", "rounds=2", *TAUGHT),
    "feddf": ("strategy=feddf", "strategy/distil=adam", *TAUGHT),
    "early": ("strategy=distillation", "strategy/distil=best_on_validation", *MIXED,
              "strategy.proxy_split.calibration_share=0.3", "strategy.distil.steps=12",
              "strategy.distil.optimizer.lr=0.05",
              "strategy.distil.every=1", "strategy.distil.batch_size=8",
              "clients.training.epochs=5"),
    "mutual": ("strategy=dml", *GROUP),
    "codistillation": ("strategy=codistillation", *GROUP, "strategy.teaching.epochs=3"),
    "one": ("strategy=one", *GROUP),
    "ffl": ("strategy=ffl", *GROUP),
    "okddip": ("strategy=okddip", *GROUP),
    "gossip": ("strategy=gossip", *GOSSIP),
    "averaging": ("strategy=averaging", *SAME),
    "partial": ("strategy=fedper", *SAME),
    "ditto": ("strategy=ditto", *SAME),
    "fd": ("strategy=fd", "rounds=2", *MIXED),
    "fd plus": ("strategy=feddistill_plus", "rounds=2", *SAME),
    "ktpfl": ("strategy=ktpfl", *MIXED, "rounds=3"),
    "scarlet": ("strategy=scarlet", *TAUGHT, "rounds=3"),
    **{name: (f"strategy={name}", *MIXED, "strategy.epochs=2", "strategy.synthesis.steps=2",
              "strategy.synthesis.batch_size=8", "strategy.synthesis.generator.width=2")
       for name in ("dense", "coboosting")},
    "fedgkt": ("strategy=fedgkt", "clients=same", "rounds=2", "student=cnn", "student.hidden=4",
               "student.channels=[4]", *(word for word in FEW if not word.startswith("student"))),
    "peers": ("strategy=adapt_then_combine", *SAME, "topology=ring", "rounds=3"),
    "cpfl": ("strategy=cpfl", *SAME, "topology=ring", "rounds=3", "strategy.first_rounds=1",
             "strategy.second.distil.epochs=1"),
    "push": ("strategy=push_sum", *SAME, "topology=static_exponential",
             "topology/mixing=push_sum", "rounds=3"),
    "defkt": ("strategy=defkt", *SAME, "topology=random_matchings", "strategy.how.epochs=1",
              "strategy.how.batch_size=8", "rounds=2"),
    "fml": ("strategy=averaging", "clients/messenger=fml", *MIXED, "clients.messenger.epochs=1",
            "clients.messenger.batch_size=8"),
    "fedkd": ("strategy=averaging", "clients/messenger=fedkd", *MIXED,
              "clients.messenger.epochs=1", "clients.messenger.batch_size=8"),
    "built": FEW,
    "bare": FEW[:-2],
    "mnist": (*(word for word in FEW if not word.startswith("data")), "data=mnist"),
    "npz": (*(word for word in FEW if not word.startswith("data")), "data=npz"),
    "owned": (*(word for word in FEW if not word.startswith(("data", "partition"))), "data=npz",
              "data.source.path={tmp}/a.npz", "partition=natural", "strategy=distillation",
              "strategy.distil.epochs=1", "clients=same", "student.hidden=[4]"),
    "any data": tuple(word for word in FEW if not word.startswith("data")),
    "proxy": (*FEW, "proxy=npz"),
}  # fmt: skip
"""Overrides that make a run of each kind tiny."""


@dataclass
class Seen:
    """What there is to look at of one config: a run, or only what is built for it."""

    config: DictConfig
    folder: Path
    error: str = ""
    result: dict[str, Any] = field(default_factory=dict)


def composed(words: tuple[str, ...], key: str = "", value: Any = None) -> DictConfig:
    """Compose a config from choices and values, then set one of its keys."""
    config = composing.composed(*words)
    if key:
        with open_dict(config):
            OmegaConf.update(config, key, value, merge=False)
    return config


def played(config: DictConfig, folder: Path) -> Seen:
    """Run a config from beginning to end; an error that the user would be told is what is seen."""
    folder.mkdir(parents=True)
    try:
        return Seen(config, folder, result=run.federate(config, folder))
    except Stopped as stopped:
        return Seen(config, folder, str(stopped))


def observed(seen: Seen, what: str) -> Any:
    """Look at one thing; `line student.loss` is that of the last round."""
    if what == "error":
        return seen.error
    assert not seen.error, seen.error
    name, _, path = what.partition(" ")
    return WAYS_TO_LOOK[name](seen, *([path] if path else []))


# --- of a run ---


def _line(seen: Seen, path: str = "") -> Any:
    line = json.loads((seen.folder / "metrics.jsonl").read_text().splitlines()[-1])
    for name in path.split(".") if path else ():
        line = line[name]
    return line


def _lines(seen: Seen) -> str:
    return (seen.folder / "metrics.jsonl").read_text()


def _column(seen: Seen, name: str) -> list[Any]:
    values = pq.read_table(seen.folder / "clients.parquet").column(name).to_pylist()
    assert any(value is not None and value == value for value in values), f"no {name}"
    return [str(value) for value in values]


def _student(seen: Seen) -> str:
    return str(seen.result["student_sha256"])


def _files(seen: Seen, pattern: str = "*") -> list[str]:
    return sorted(str(path.relative_to(seen.folder)) for path in seen.folder.rglob(pattern))


def _tags(seen: Seen) -> list[str]:
    return sorted({str(tag) for events in curves_of(seen.folder).values()
                   for tags in events.Tags().values() if tags is not True and tags
                   for tag in tags})  # fmt: skip


# --- of what is built ---


def _splits(seen: Seen) -> Any:
    try:
        splits = wiring.load_splits(seen.config)
    except InstantiationException as error:
        return str(error)
    sets = (splits.private, splits.proxy, splits.test)
    return [(each.name, len(each), each.inputs.tobytes(), each.labels.tobytes()) for each in sets]


def _sizes(seen: Seen) -> list[int]:
    splits = wiring.load_splits(seen.config)
    return [len(splits.private), len(splits.proxy), len(splits.test)]


def _partition(seen: Seen) -> list[list[int]]:
    clients = wiring.populate(seen.config, wiring.load_splits(seen.config))
    return [own.tolist() for own in clients.partitions]


def _population(seen: Seen) -> list[str]:
    clients = wiring.populate(seen.config, wiring.load_splits(seen.config))
    return list(clients.architectures)


def _profiles(seen: Seen) -> str:
    return str(wiring.populate(seen.config, wiring.load_splits(seen.config)).profiles)


def _start(seen: Seen) -> dict[str, bytes]:
    clients = wiring.populate(seen.config, wiring.load_splits(seen.config))
    student = draw_student(clients, seen.config.student_device)
    return {name: value.tobytes() for name, value in parameters_of(student).items()}


def _graph(seen: Seen) -> Any:
    try:
        topology = instantiate(seen.config.topology)(num_peers=8, seed=0)
        graphs = [topology.graph(server_round) for server_round in (1, 2, 3)]
    except ValueError as error:
        return str(error)
    return [(graph.is_directed(), sorted(graph.edges)) for graph in graphs]


def _strategy(seen: Seen, name: str) -> Any:
    return vars(instantiate(seen.config.strategy))[name]


def _pool(seen: Seen, name: str) -> Any:
    pool = instantiate(seen.config.sim)(seed=0)
    try:
        return vars(pool)[name]
    finally:
        pool.close()


WAYS_TO_LOOK: dict[str, Callable[..., Any]] = {
    "line": _line, "lines": _lines, "column": _column, "student": _student, "files": _files,
    "tags": _tags, "splits": _splits, "sizes": _sizes, "partition": _partition,
    "population": _population,
    "profiles": _profiles, "start": _start, "graph": _graph, "strategy": _strategy, "pool": _pool,
}  # fmt: skip
OF_A_RUN = ("error", "line", "lines", "column", "student", "files", "tags")
