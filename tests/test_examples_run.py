"""Each example runs, tiny and in one process, and one of its numbers changes what comes out.

What each is worth, on both pools and after a resume, is a slow test: `make test-slow`.
"""

from pathlib import Path
from typing import Any

import pytest

from clients.population import clients as population
from tests.places import ROOT
from tests.quick_runs import federated

TINY = ["data.limit=120", "data.test_limit=40", "clients.num_clients=3", "partition=iid",
        "clients.training.epochs=1", "probes=none", "rounds=2"]  # fmt: skip
TAUGHT = [*TINY, "strategy=distillation", "strategy.distil.epochs=1"]
SAME = ["clients=same", "student=mlp", "student.hidden=[6]"]
BROAD = [*TAUGHT, *SAME]
EXAMPLES: dict[str, tuple[list[str], str]] = {
    "adaboost": (
        [*TAUGHT, "strategy/scorer=samme", "strategy/combiner=votes",
         "strategy.proxy_split.calibration_share=0.2"],
        "strategy/scorer=uniform",
    ),
    "attacked": ([*TAUGHT, "probes=attacked"], "probes.attacked.of.epsilon=0"),
    "compressed": (
        [*TINY, *SAME, "strategy=averaging", "clients/codec=low_rank"], "clients/codec=none"
    ),
    "fedgen": ([*TINY, *SAME, "strategy=fedgen", "clients.training.optimizer.momentum=0"],
               "strategy.alpha=5"),
    "fedmd": ([*TINY, "strategy=fedmd", "strategy.public_epochs=1"], "strategy.digest_epochs=0"),
    "fedproto": ([*TINY, "strategy=fedproto", "clients=same_width"], "strategy.weight=0"),
    "growing": ([*BROAD, "clients/shape=growing", "rounds=3"], "clients/shape=none"),
    "heads": ([*TAUGHT, "data=turned_digits"], "strategy/scorer=margin"),
    "heterofl": ([*TINY, "strategy=heterofl", "clients=slices", "student=sliced"],
                 "strategy.window=rolling"),
    "ickd": ([*TINY, "strategy=ickd", "strategy.distil.epochs=1", "clients=same_channels",
              "student=hinted"], "strategy.loss.weight=0"),
    "mc_dropout": ([*TAUGHT, "strategy=dlad", "strategy/scorer=own_probability",
                    "clients=dropping", "strategy/discriminator=unsure"],
                   "strategy.discriminator.draws=2"),
    "moon": ([*TINY, *SAME, "strategy=moon"], "strategy.mu=0"),
    "noised_counts": ([*TINY, "strategy=noised_counts", "strategy.distil.epochs=1"],
                      "strategy.ask.class_counts.codec.epsilon=0.1"),
    "occlusion": ([*BROAD, "clients/view=dirt"], "clients/view=none"),
    "replay": ([*BROAD, "clients/training=replay"], "clients.training.size=0"),
    "scaffold": ([*TINY, *SAME, "strategy=scaffold", "clients.training.optimizer.momentum=0"],
                 "strategy.rate=0.5"),
    "segmentation": (
        [*TAUGHT, "data=scenes", "clients=hourglasses", "student=fcn"], "strategy/scorer=margin"
    ),
    "similarity": ([*TAUGHT, "strategy/ask=[features]", "strategy/distil=similarity"],
                   "strategy.distil.pull=0"),
    "taggers": ([*BROAD, "clients/condition=tagged"], "clients.condition.learn=one"),
    "tiers": ([*TAUGHT, "clients=tiers"], "clients=by_speed"),
}  # fmt: skip
"""What each needs, in its own folder's words, and what changes a number of it."""


def test_every_example_is_here() -> None:
    folders = {path.parent.name for path in (ROOT / "examples").glob("*/*.py")}
    assert folders == {*EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_its_number_matters(name: str, tmp_path: Path) -> None:
    words, other = EXAMPLES[name]
    found = [
        federated(tmp_path / kind, *words, *more) for kind, more in (("a", []), ("b", [other]))
    ]
    assert [each["failures"] for each in found] == [0, 0]
    assert found[0]["metrics_sha256"] != found[1]["metrics_sha256"]


SEEN = {
    "fedgen": {"train"}, "fedmd": {"train", "answer", "test"},
    "fedproto": {"train", "answer", "test"}, "heterofl": {"train"},
    "ickd": {"train", "answer", "test"}, "moon": {"train"},
    "noised_counts": {"train", "answer", "test"}, "scaffold": {"train"},
}  # fmt: skip
"""In which phases the clients of each method see something."""


def test_every_method_is_looked_at_through_a_view() -> None:
    folders = {path.parts[-3] for path in (ROOT / "examples").glob("*/strategy/*.yaml")}
    assert folders == {*SEEN}


@pytest.mark.parametrize("name", SEEN)
def test_clients_of_a_method_see_through_their_view_whatever_they_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FedProto's measured features of what its networks had never seen: 0.37 for 0.82."""
    told = set()

    def spied(look: Any) -> Any:
        def look_too(view: Any, dataset: Any, client_id: int, phase: str, key: Any) -> Any:
            told.add(phase)
            return look(view, dataset, client_id, phase, key)

        return look_too

    for look in ("seen_by", "eyes_of"):
        monkeypatch.setattr(population, look, spied(getattr(population, look)))
    federated(tmp_path / "a", *EXAMPLES[name][0], "clients/view=rotated")
    assert told == SEEN[name]
