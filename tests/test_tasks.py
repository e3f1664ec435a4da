"""Tasks beside classification: each learns something, with the same bits on both pools."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.population.architectures import assign_architectures
from conf.errors import Stopped
from sim.report.command import main as write_report
from tests.commands import run_py
from tests.composing import composed
from tests.example_runs import EXAMPLES, both_pools
from tests.places import ROOT
from tests.quick_runs import federated, result_of

BOTH = "python", "yaml"
DATA = Path(os.environ.get("STILLHOUSE_DATA") or ROOT.parent / "shared" / "data")

FEW = ["clients.num_clients=4", "partition=iid", "strategy.proxy_split.probe_examples=16"]
SCENES = [
    "--config-dir", str(EXAMPLES / "segmentation"), "data=scenes", "clients=hourglasses",
    "student=fcn", "data.source.num_examples=160", "data.source.classes=2", "data.proxy_share=0.4",
    *FEW, "rounds=1", "clients.training.epochs=12", "strategy.distil.optimizer.lr=0.003",
    "strategy.distil.epochs=40", "strategy.distil.batch_size=4",
]  # fmt: skip
HEADS = [
    "--config-dir", str(EXAMPLES / "heads"), "data=turned_digits", "student=mlp", *FEW,
    "clients.training.epochs=8", "strategy.distil.epochs=20", "rounds=1",
]  # fmt: skip
NUMBERS = [
    "data=diabetes", "clients=mixed_tabular", "student=mlp", "strategy/combiner=mean_of_outputs",
    "strategy/loss=mse", "rounds=2", *FEW,
]  # fmt: skip
TEXT = [
    "data=shakespeare", f"data.root={DATA}", "clients=mixed_text", "student=bag_of_embeddings",
    "data.source.num_speakers=2", "data.proxy_share=0.4", "strategy.distil.optimizer.lr=0.01",
    "strategy.distil.epochs=20", "rounds=1", *FEW,
]  # fmt: skip


BRIEFLY = ["clients.training.epochs=1", "strategy.distil.epochs=2"]
"""For what does not depend on how much is learned."""


def of_ensemble(run: dict[str, Any], measure: str) -> tuple[float, float]:
    """Return what the student and the ensemble came to."""
    assert run["failures"] == 0
    return run[f"student_{measure}"], run[f"ensemble_{measure}"]


@pytest.mark.slow
def test_a_segmentation_federation_with_networks_of_ones_own(tmp_path: Path) -> None:
    """A guess of nothing everywhere has 1/3 x share of background, .28: mIoU of three classes."""
    learned = federated(tmp_path / "learned", *SCENES)
    student, ensemble = of_ensemble(learned, "miou")
    assert student > 0.45
    assert ensemble > 0.45
    assert learned["measure"] == "miou"
    rough = "strategy.proxy_split.chunks=2 strategy.ensemble.answers=uint8"
    runs = both_pools(tmp_path, [*SCENES, *BRIEFLY, "data.source.num_examples=60"], rough=rough)
    assert runs["rough"]["reply_bytes"] < 0.95 * runs["inline"]["reply_bytes"]


def test_several_heads_learn_and_each_is_measured(tmp_path: Path) -> None:
    both_pools(tmp_path, [*HEADS, *BRIEFLY, "data.limit=200"], odd="strategy/scorer=margin")
    learned = federated(tmp_path / "learned", *HEADS)
    assert of_ensemble(learned, "accuracy")[0] > 0.6
    (line,) = map(json.loads, (tmp_path / "learned" / "metrics.jsonl").read_text().splitlines())
    digit, turn = (line["student"][f"accuracy_{head}"] for head in ("digit", "turn"))
    assert digit > 0.5
    assert turn > 0.5
    assert line["student"]["accuracy"] == pytest.approx((digit + turn) / 2)
    assert {"ensemble_accuracy_digit", "ensemble_accuracy_turn"} <= line["strategy"].keys()


def test_numbers_are_distilled_by_trust_and_their_drift_is_a_distance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    equal = "strategy/scorer=uniform strategy/discriminator=none"
    briefly = [*NUMBERS, *BRIEFLY]
    runs = both_pools(tmp_path, briefly, fed="strategy.feed_back=true", equal=equal)
    learned = federated(tmp_path / "learned", *NUMBERS)
    assert min(of_ensemble(learned, "r2")) > 0.35
    line = json.loads((tmp_path / "learned" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["probes"]["output_deviation"] > 0
    assert "output_js" not in line["probes"]
    page = tmp_path / "report.html"
    assert write_report([str(tmp_path / "inline"), "--out", str(page)]) == 0
    report = page.with_suffix(".md").read_text()
    assert "## Final r2" in report
    assert "distance from the mean answer, in units of the labels" in report
    kept = tmp_path / "equal" / "result.json"
    kept.write_text(json.dumps({**runs["equal"], "measure": "miou"}))
    assert write_report([str(tmp_path / "inline"), str(kept.parent), "--out", str(page)]) == 1
    assert "of unlike tasks, " in capsys.readouterr().err


@pytest.mark.skipif(not (DATA / "tinyshakespeare").is_dir(), reason="no tinyshakespeare there")
def test_texts_are_told_apart(tmp_path: Path) -> None:
    """Of two speakers one says 54 % of the test set's passages."""
    both_pools(tmp_path, [*TEXT, *BRIEFLY], one_by_one="clients.together=false")
    learned = federated(tmp_path / "learned", *TEXT)
    assert min(of_ensemble(learned, "accuracy")) > 0.6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strategy=dlad"], "strategy.combiner: of two answers that are the same it makes another"),
        (["strategy/combiner=mean_of_outputs"], "strategy.loss: it is not least where"),
        (
            ["strategy/scorer=entropy", "strategy/discriminator=none"],
            "strategy.scorer: it looks at probabilities of classes",
        ),
        (["strategy=ffl"], "MutualStrategy learns one class of each input, and that of diabetes"),
        (
            ["strategy=defkt", "topology=random_matchings", "clients=same"],
            "MutualTransfer learns one class of each input",
        ),
        (
            ["experiment=fml", "clients.architectures.linear.share=1"],
            "clients.messenger: its rules learn one class of each input",
        ),
        (
            ["clients=mixed_text"],
            "; of columns can learn clients=mixed_tabular student=mlp",
        ),
        (["clients/objective=not_true"], "clients.training: architecture 'linear'"),
        (
            ["clients/condition=permuted_labels", "clients.condition.clients=[0]"],
            "clients.condition: permuted_labels takes classes for others",
        ),
    ],
)
def test_what_does_not_fit_numbers_is_refused_in_a_line(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Stopped) as stopped:
        federated(tmp_path / "run", *NUMBERS[:3], *words)
    assert stopped.value.exit_code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("text", "bag_of_embeddings"),
        ("text", "transformer"),
        ("dense", "narrow"),
        ("dense", "wide"),
    ],
)
def test_shares_say_who_has_which_network(kind: str, name: str) -> None:
    config = composed(f"clients=mixed_{kind}")
    shares = {key: own.share for key, own in config.clients.architectures.items()}
    rng = np.random.default_rng
    before = assign_architectures(shares, 10, rng(0)).count(name)
    after = assign_architectures({**shares, name: 2.0}, 10, rng(0)).count(name)
    assert (before, after) == (5, 8)


def test_what_is_resumed_has_the_same_bits(tmp_path: Path) -> None:
    words = [*NUMBERS, *BRIEFLY, "checkpoint_every=1"]
    whole = federated(tmp_path / "whole", *words)
    half = tmp_path / "half"
    federated(half, *words, "rounds=1")
    again = run_py(f"resume={half}", "rounds=2")
    assert again.returncode == 0, again.stderr
    found = json.loads((half / "result.json").read_text())
    assert found["student_sha256"] == whole["student_sha256"]
    assert found["metrics_sha256"] == whole["metrics_sha256"]


def test_the_code_of_the_page_on_tasks_runs_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tasks.md").read_text()
    (code,), (config,) = (re.findall(f"```{kind}\n(.*?)```", page, re.S) for kind in BOTH)
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "houses.py").write_text(code)
    (tmp_path / "mine" / "data" / "houses.yaml").write_text(config)
    words = ["--config-dir", str(tmp_path / "mine"), "data=houses", *NUMBERS[1:5], *FEW, "rounds=1"]
    result = result_of(tmp_path / "run", *words, "sim=inline", "clients.training.epochs=40")
    assert min(of_ensemble(result, "r2")) > 0.5


@pytest.mark.parametrize(
    ("words", "chance"),
    [(NUMBERS[:5], 0.0), (HEADS[:4], (1 / 10 + 1 / 4) / 2), (SCENES[:7], 0.3)],
    ids=["r2", "heads", "miou"],
)
def test_peers_without_a_server_learn_any_task(
    tmp_path: Path, words: list[str], chance: float
) -> None:
    more = [*words, "strategy=gossip", "topology=ring", *FEW, "rounds=1"]
    result = federated(tmp_path / "run", *more, "clients.training.epochs=8")
    measure = result.get("measure", "accuracy")
    assert result["failures"] == 0
    assert result[f"clients_{measure}"]["mean"] > chance + 0.1
