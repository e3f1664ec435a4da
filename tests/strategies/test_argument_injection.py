"""What there is goes to whoever names it; a name alone makes nobody offer a protocol."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from clients.duck_typing import offers
from strategies.argument_injection import completed, wants
from strategies.decentralised.gossip_distillation import Gossip
from strategies.server.averaging import Averaging
from strategies.server.distillation import DistillationStrategy
from strategies.server.requirements import require_distil, require_topology
from strategies.server.sequence import Stages
from tests.commands import run_py
from tests.parts import loose


class Open:
    """Takes what comes, and wants nothing of it but the proxy set."""

    def __init__(self, proxy: Any = None, **others: Any) -> None:
        self.proxy, self.others = proxy, others

    def configure_train(self) -> None: ...


class OpenGossip(Gossip):
    """Hands on what it does not want itself."""

    def __init__(self, mine: int, **others: Any) -> None:
        super().__init__(**others)


class OpenAveraging(Averaging):
    def __init__(self, **others: Any) -> None:
        super().__init__(**others)


def unlike(**others: Any) -> dict[str, Any]:
    return others


def never() -> Any:
    raise AssertionError("made what nobody wants")


PEERS = loose(Gossip)


def stages(first: Any, second: Any) -> partial[Any]:
    return partial(Stages, first=partial(first), second=partial(second), first_rounds=1)


@pytest.mark.parametrize(
    ("strategy", "serverless"),
    [
        (partial(Open), False), (partial(unlike), False), (partial(OpenAveraging), False),
        (partial(DistillationStrategy), False), (stages(Open, DistillationStrategy), False),
        (partial(Gossip, **PEERS), True), (partial(OpenGossip, mine=1, **PEERS), True),
        (stages(partial(Gossip, **PEERS), Open), True),
        (stages(Open, partial(OpenGossip, **PEERS)), True),
        (stages(DistillationStrategy, stages(partial(Gossip, **PEERS), Open)), True),
    ],
)  # fmt: skip
def test_who_takes_anything_wants_what_it_hands_on_and_no_more(
    strategy: partial[Any], serverless: bool
) -> None:
    assert wants(strategy, "mixing") == wants(strategy, "availability") == serverless
    if serverless:
        require_topology(strategy, True, {"drop_probability": 0.5})
        with pytest.raises(ValueError, match="topology=none: peers without a server need one"):
            require_topology(strategy, False, {})
        return
    require_topology(strategy, False, {"drop_probability": 0.0})
    with pytest.raises(ValueError, match="topology: this strategy has a server"):
        require_topology(strategy, True, {})
    with pytest.raises(ValueError, match=r"availability\.drop_probability: this strategy has a s"):
        require_topology(strategy, False, {"drop_probability": 0.5})


def test_a_messenger_is_refused_by_who_takes_anything_and_names_none() -> None:
    with pytest.raises(ValueError, match=r"clients\.messenger: needs a strategy that averages"):
        require_distil(partial(Open), 1, messenger=True)


def test_who_takes_anything_gets_what_there_is_and_nothing_that_is_made() -> None:
    known = {"proxy": 1, "seed": 2, "student": 3}
    made = {"mixing": never, "train_peers": never}
    whole = completed(partial(Open), known, made)
    assert (whole.proxy, whole.others) == (1, {"seed": 2, "student": 3})
    assert completed(partial(unlike), known, made) == known
    assert completed(partial(Open), {}, {"proxy": lambda: 5}).proxy == 5
    assert completed(whole, known, made) is whole


def test_what_a_base_class_does_not_take_is_not_handed_on_to_it() -> None:
    """Given all there is, `Averaging.__init__` raised TypeError over `student`."""
    known = {"seed": 7, "student": 1, "proxy": 2, "rounds": 3}
    assert completed(partial(OpenAveraging), known, {"mixing": never}).seed == 7


@dataclass
class Inner:
    first: int
    second: int = 2


@dataclass
class Outer:
    inner: Inner
    more: int


class Composed:
    """Has a part with a part of its own, and makes something itself."""

    def __init__(self, outer: Outer, make: Callable[..., Inner], seed: int) -> None:
        self.outer, self.make, self.seed = outer, make, seed


def parted(**bound: Any) -> partial[Any]:
    given = {"outer": partial(Outer), "inner": partial(Inner), "make": partial(Inner)}
    return partial(Composed, **(given | bound))


def test_parts_get_what_stands_beside_them_and_what_there_is() -> None:
    strategy = parted(first=1)
    assert wants(strategy, "more")
    assert wants(strategy, "second")
    assert not wants(strategy, "third")
    whole = completed(strategy, {"seed": 7, "third": 3}, {"more": lambda: 5, "mixing": never})
    assert (whole.outer, whole.seed) == (Outer(Inner(1, 2), 5), 7)
    assert type(whole.make) is partial  # a way to make one is what was asked for


def test_what_is_bound_in_a_part_stays() -> None:
    bound = parted(inner=partial(Inner, second=9), first=1)
    assert completed(bound, {"seed": 0, "more": 0, "second": 8}).outer.inner == Inner(1, 9)
    assert not wants(parted(outer=Outer(Inner(0), 1)), "first")  # there is one already
    strategy = partial(bound, second=8, more=0)
    with pytest.raises(TypeError, match="Composed takes no second"):
        completed(strategy, {"seed": 0})


def test_an_open_strategy_hands_parts_on_to_its_base() -> None:
    class Opened(Composed):
        def __init__(self, **others: Any) -> None:
            super().__init__(**others)

    strategy = partial(Opened, *(), **parted(first=1).keywords)
    assert wants(strategy, "more")
    assert completed(strategy, {"more": 4, "seed": 7}).outer == Outer(Inner(1), 4)


class Asked(Protocol):
    def models(self, server_round: int) -> Any: ...
    def end(self) -> None: ...
    def _own(self, one: int, two: int) -> None: ...


class Offering:
    def models(self, server_round: int) -> Any: ...
    def end(self, why: str = "") -> None: ...


@pytest.mark.parametrize(
    ("changes", "whole"),
    [
        ({}, True),
        ({"models": {}}, False),  # its own, and called it would raise
        ({"models": None}, False),
        ({"models": lambda: None}, False),
        ({"models": lambda one, two: None}, False),
        ({"models": lambda *any_number: None}, True),
        ({"models": lambda server_round, more=1: None}, True),
        ({"models": lambda *, server_round: None}, False),  # not by place
        ({"end": lambda why: None}, False),
        ({"models": dict}, True),  # nobody can tell what a builtin takes
    ],
)
def test_what_has_the_name_of_a_method_must_be_callable_as_one(
    changes: dict[str, Any], whole: bool
) -> None:
    thing = Offering()
    vars(thing).update(changes)
    assert offers(thing, Asked) is whole


def test_who_lacks_a_method_does_not_offer_it() -> None:
    assert not offers(object(), Asked)


MINE = '''
"""Strategies of a user's own."""
from flwr.serverapp.strategy import FedAvg

class Keeper(FedAvg):
    """Calls something its own what a strategy of ours has as a method."""
    def __init__(self, **others):
        super().__init__(fraction_evaluate=0.0)
        self.others, self.models = sorted(others), {"best": None}

class Dying(FedAvg):
    """Dies as it is asked for what it leaves."""
    def models(self):
        raise ArithmeticError("nothing to leave")
'''
WORDS = ["sim=inline", "clients=same", "student=mlp", "clients.num_clients=2", "data.limit=60",
         "partition=iid", "rounds=1", "clients.training.epochs=1", "probes=none"]  # fmt: skip


@pytest.mark.parametrize("name", ["Keeper", "Dying"])
def test_results_are_written_whatever_a_strategy_keeps_beside_them(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "strategy").mkdir()
    about = f"_target_: my_strategies.{name}\n_partial_: {str(name == 'Keeper').lower()}\n"
    (tmp_path / "strategy" / "own.yaml").write_text(about)
    (tmp_path / "my_strategies.py").write_text(MINE)
    run = tmp_path / "run"
    words = [*WORDS, "strategy=own", f"hydra.run.dir={run}"]
    ended = run_py("--config-dir", str(tmp_path), *words)
    assert json.loads((run / "result.json").read_text())["rounds"] == 1
    assert (run / "student.safetensors").exists()
    assert "Traceback" not in ended.stderr
    if name == "Keeper":
        assert ended.returncode == 0, ended.stderr
        return
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: Dying.models(): ArithmeticError: nothing to leave; all other results are in "
        f"{run}\n"
    )


def test_a_part_may_be_wanted_or_none_and_a_way_to_make_something_is_no_part() -> None:
    class Part:
        def __init__(self, number: int, seed: int) -> None:
            self.sum = number + seed

    class Whole:
        def __init__(
            self, seed: int, part: Part | None = None, make: Callable[[], Part] | None = None
        ) -> None:
            self.part, self.make = part, make

    strategy = partial(Whole, part=partial(Part, number=3), make=partial(Part, number=4))
    made = completed(strategy, {"seed": 2})
    assert made.part.sum == 5
    assert isinstance(made.make, partial)
