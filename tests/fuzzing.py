"""One-round federations in which one client's answer is changed by a rule of `tests/mutations.py`.

`python -m tests.fuzzing 10000` tries so many, through every strategy that ships and Flower's own,
and prints what became of them.
"""

import logging
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.serverapp import strategy as flower

from clients.app import SimulatedApp
from clients.messages.arrays import read_arrays, write_arrays
from clients.models.factory import load_parameters, parameters_of
from clients.population.drawing import draw_student
from clients.training.evaluation import evaluate
from sim.engine.grid import PoolGrid
from sim.engine.rounds import RoundReport, run_rounds
from sim.tracking.clients_table import ClientsTable, client_rows
from sim.workers.pools import InlinePool
from stillhouse.wiring import build_strategy, complete_strategy, load_splits, populate
from tests.composing import composed
from tests.federations import ALONE, simulated
from tests.mutations import change

FLOWER: dict[str, dict[str, Any]] = {
    "FedAvg": {}, "FedProx": {"proximal_mu": 0.0}, "FedAvgM": {"server_momentum": 0.9},
    "FedAdagrad": {}, "FedAdam": {}, "FedYogi": {}, "FedMedian": {}, "FedTrimmedAvg": {},
    "Krum": {}, "MultiKrum": {"num_nodes_to_select": 3}, "Bulyan": {},
    "QFedAvg": {"train_loss_key": "train-loss", "client_learning_rate": 0.1},
}  # fmt: skip
FEW = ("student=mlp", "student.hidden=[4]", "clients.num_clients=6", "partition=iid",
       "data=blobs", "data.source.num_examples=160", "sim=inline", "clients.training.epochs=1",
       "clients.training.batch_size=32")  # fmt: skip
SAME = (*FEW, "clients=same")
MIXED = (*FEW, "~clients.architectures.lenet5", "clients.architectures.mlp.model.hidden=[4]",
         "clients.group_size=2")  # fmt: skip
TEACH = ("strategy.distil.epochs=1",)
PEERS = ("strategy.teaching.epochs=1",)
SCORER = "strategies.aggregation.scorers.num_examples_own_odds"
SWEEPS = ("strategy.sweeps=2", f"strategy.scorer._target_={SCORER}",
          "strategy.discriminator.balanced=true")  # fmt: skip
OURS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("averaging", "fedrep", "ditto", "fednova", "feddyn"), SAME),
    "distillation": (*MIXED, *TEACH),
    "distillation median": (*MIXED, *TEACH, "strategy.ensemble.weight_cap=0.4",
                            "strategy.ensemble.answers=uint8"),
    "distillation chunks": (*MIXED, *TEACH, "strategy.proxy_split.chunks=3",
                            "strategy.ensemble.answers=float16"),
    "distillation logits": (*MIXED, *TEACH, "strategy/combiner=mean_of_logits"),
    "distillation num_examples": (*MIXED, *TEACH, "strategy/scorer=num_examples"),
    "dlad": (*MIXED, *TEACH),
    "ktpfl": MIXED,
    "scarlet": (*MIXED, *TEACH),
    "coboosting": (*MIXED, "strategy.epochs=1", "strategy.synthesis.steps=1"),
    "fedgkt": (*SAME, "strategy.server._target_=clients.models.mlp", "~strategy.server.norm"),
    **dict.fromkeys(("mutual", "dml", "one", "ffl", "okddip"), (*MIXED, *PEERS)),
    "codistillation": (*MIXED, *PEERS),
    "dml clients": (*MIXED, *PEERS, "strategy.peers=clients"),
    "gossip": (*MIXED, *TEACH, "topology=ring"),
    "gossip sweeps": (*MIXED, *TEACH, "topology=ring", *SWEEPS),
    "dpsgd": (*SAME, "topology=ring"),
    "adapt_then_combine": (*SAME, "topology=ring"),
    "push_sum": (*SAME, "topology=static_exponential", "topology/mixing=push_sum"),
    "defkt": (*SAME, "topology=random_matchings", "strategy.how.epochs=1"),
    "cpfl": (*SAME, "topology=ring", "strategy.first_rounds=1", "rounds=2",
             "strategy.second.distil.epochs=1"),
}  # fmt: skip
"""Options of each of ours; the first word is its file in conf/strategy."""

NAMES = (*OURS, *FLOWER)
ROUNDS = {"cpfl": 2}


class Odd:
    """The ClientApp, of which one client answers one message oddly."""

    def __init__(self, app: SimulatedApp) -> None:
        self.app = app
        self.multiplications = app.multiplications
        self.victim, self.turn, self.draw = -1, 0, Random(0)
        self.seen, self.rules = 0, list[str]()

    def serve(self, requests: Sequence[Message], contexts: Sequence[Context], device: str) -> Any:
        answers = self.app.serve(requests, contexts, device)
        for request, context, answer in zip(requests, contexts, answers, strict=True):
            item: Any = answer
            if context.node_config["partition-id"] == self.victim:
                self.seen += 1
                if self.seen == self.turn + 1 and isinstance(answer, Message):
                    answer.content = deepcopy(answer.content)  # some of it may be the request's
                    rule, item = change(answer, request, context, Random(self.draw.random()))
                    self.rules.append(rule)
                    if rule == "exception":
                        self.seen -= 1  # whoever is served again does it again
                        raise item
            yield item


@dataclass
class Federation:
    """A strategy as it is before its first round, its clients, and where they run."""

    name: str
    strategy: Any
    start: Any
    student: Any
    clients: Any
    app: Odd
    pool: InlinePool
    turns: int = 1

    def run(self) -> tuple[Any, list[RoundReport], PoolGrid]:
        """Run it anew."""
        grid = PoolGrid(self.pool, self.clients.architectures, group_size=2)
        reports: list[RoundReport] = []

        def measure(arrays: Any) -> dict[str, float]:
            load_parameters(self.student, read_arrays(arrays))
            return evaluate(self.student, self.clients.splits.test)

        strategy = deepcopy(self.strategy)
        arrays = run_rounds(
            strategy, grid, self.start, rounds=ROUNDS.get(self.name, 1), seed=1, quorum=0.1,
            evaluate=measure, report=reports.append,
        )  # fmt: skip
        return arrays, reports, grid


class Nobody:
    """Watches nothing."""

    def view(self, view: Any) -> None: ...

    def graph(self, view: Any) -> None: ...

    def warn(self, text: str) -> None: ...

    def topology(self, topology: Any) -> Any:
        return topology


@cache
def federation(name: str) -> Federation:
    """Build a strategy of ours by its config, or one of Flower's; count a client's messages."""
    which = () if name in FLOWER else (f"strategy={name.split()[0]}",)
    config = composed(*which, *OURS.get(name, SAME))
    clients = populate(config, load_splits(config))
    student, pool = draw_student(clients, "cpu"), InlinePool(config.seed)
    start = write_arrays(parameters_of(student))
    if name in FLOWER:
        strategy = getattr(flower, name)(**ALONE, **FLOWER[name])
    else:
        nobody: Any = Nobody()
        begun = build_strategy(config, clients)
        strategy = complete_strategy(config, begun, pool, clients, student, nobody)
    app = Odd(simulated(clients, strategy))
    pool.load(app, app.app.handlers.values())  # type: ignore[arg-type]
    found = Federation(name, strategy, start, student, clients, app, pool)
    app.victim, app.turn = 0, 10**9
    found.run()
    found.turns = app.seen
    return found


@dataclass
class Verdict:
    """What became of one run; `wrong` is what must not be."""

    outcome: str
    rule: str
    reason: str = ""
    wrong: str = ""


def attempt(name: str, seed: int) -> Verdict:
    """Let one client, drawn, answer one of its messages oddly; see what becomes of the run."""
    these, draw = federation(name), Random(seed)
    app = these.app
    app.victim = draw.randrange(len(these.clients.architectures))
    app.turn = draw.randrange(these.turns) if draw.random() < 0.5 else 0
    app.seen, app.rules, app.draw = 0, [], draw
    app.draw = _Same(draw.random())
    try:
        arrays, reports, grid = these.run()
    except BaseException as error:
        text = "".join(traceback.format_exception(error))
        return Verdict("ended", "".join(app.rules[:1]), wrong=text[-3000:])
    rule = app.rules[0] if app.rules else "not reached"
    exchanges = [each for report in reports for each in report.exchanges]
    failed = {each.client_id: each.failure for each in exchanges if each.failure}
    wrong = "; ".join(_wrong(these, arrays, reports, grid, failed))
    outcome = "refused" if app.victim in failed else "accepted"
    return Verdict(outcome, rule, failed.get(app.victim, ""), wrong)


class _Same(Random):
    """Draws the same, however often it is asked: a message that is served again gets it again."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value


def _wrong(
    these: Federation,
    arrays: Any,
    reports: list[RoundReport],
    grid: PoolGrid,
    failed: dict[int, str],
) -> Iterator[str]:
    for name, array in read_arrays(arrays).items():
        wanted = these.start[name]
        if array.shape != tuple(wanted.shape) or not np.isfinite(array.astype(float)).all():
            yield f"global model: {name} is {array.dtype} {array.shape}, or not finite"
    for client_id in range(len(these.clients.architectures)):
        for record in grid.states.of(client_id).array_records.values():
            if client_id != these.app.victim:
                values = read_arrays(record).values()
                if not all(np.isfinite(value.astype(float)).all() for value in values):
                    yield f"client {client_id}: its state is not finite"
    for client_id, reason in failed.items():
        if not (0 < len(reason) <= 600 and reason.isprintable()):
            yield f"client {client_id}: its reason is {reason[:700]!r}"
        # Who learns from a neighbour's huge numbers may diverge, by name; else nobody else fails.
        if client_id != these.app.victim and these.app.rules != ["other_values"]:
            yield f"client {client_id}, which is innocent: {reason}"
    for report in reports:
        ClientsTable().add(client_rows(report.exchanges))
        numbers = [*report.train.values(), *report.evaluated.values(), *report.student.values()]
        if not np.isfinite(numbers).all():
            yield f"metrics: {report.train} {report.evaluated} {report.student}"


@dataclass
class Tally:
    """Counts by strategy, and what must not be."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: list[tuple[str, int, Verdict]] = field(default_factory=list)

    def add(self, name: str, seed: int, verdict: Verdict) -> None:
        self.counts.setdefault(name, Counter())[verdict.outcome] += 1
        if verdict.wrong:
            self.wrong.append((name, seed, verdict))


def tried(number: int, first_seed: int = 0) -> Tally:
    """Try so many answers, shared out over all strategies in turn."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    tally = Tally()
    for each in range(number):
        name = NAMES[each % len(NAMES)]
        tally.add(name, first_seed + each, attempt(name, first_seed + each))
    return tally


if __name__ == "__main__":
    warnings.simplefilter("error")
    result = tried(*map(int, sys.argv[1:]))
    print(f"{'strategy':28s}{'refused':>9s}{'accepted':>9s}{'ended':>9s}")
    for key, counts in result.counts.items():
        print(f"{key:28s}" + "".join(f"{counts[o]:9d}" for o in ("refused", "accepted", "ended")))
    for key, seed, verdict in result.wrong:
        print(f"--- {key}, seed {seed}, {verdict.rule}: {verdict.wrong}")
    print(f"{len(result.wrong)} of {sum(map(Counter.total, result.counts.values()))} went wrong")
    sys.exit(bool(result.wrong))
