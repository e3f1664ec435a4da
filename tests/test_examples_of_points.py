"""Examples of points where an idea goes in: each moves a number, on both pools, and resumes."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from clients.messages.answers import Answers
from strategies.aggregation.rule_arguments import Calibration
from tests.commands import run_py
from tests.example_runs import EXAMPLES, both_pools, imported
from tests.quick_runs import hashes, result_of

REPLAY = ["--config-dir", str(EXAMPLES / "replay"), "clients/training=replay", "partition=iid",
         "strategy=distillation", "clients=same", "clients.num_clients=4",
         "strategy.distil.epochs=15"]  # fmt: skip


def test_a_reservoir_keeps_every_example_as_often() -> None:
    """Of 20 that came in two parts each is among the 5 kept in a quarter of 4,000 draws."""
    reservoir, rng = imported("replay").reservoir, np.random.default_rng(0)
    kept: Counter[int] = Counter()
    for _ in range(4000):
        memory = reservoir(np.empty(0, np.int64), np.arange(8), 0, 5, rng)
        assert len(memory) == 5
        kept.update(reservoir(memory, np.arange(8, 20), 8, 5, rng).tolist())
    assert len(kept) == 20
    assert all(abs(count - 1000) < 5 * np.sqrt(750) for count in kept.values())
    assert len(reservoir(np.empty(0, np.int64), np.arange(8), 0, 0, rng)) == 0


@pytest.mark.slow
def test_a_memory_keeps_clients_from_forgetting_on_both_pools_and_after_a_resume(
    tmp_path: Path,
) -> None:
    words = [*REPLAY, "rounds=3"]
    runs = both_pools(tmp_path, words, "replay.replay", without="clients.training.size=0")
    remembers, forgets = (runs[name]["student_accuracy"] for name in ("inline", "without"))
    assert remembers > 0.35  # of six of ten classes
    assert forgets < 0.2  # the last two
    table = pq.read_table(tmp_path / "ray" / "clients.parquet").to_pandas()
    assert table.groupby("round")["remembered"].max().tolist()[0] == 0
    assert (table[table["round"] == 3]["remembered"] == 50).all()
    assert (table["met"] > 0).all()


DIRT = ["--config-dir", str(EXAMPLES / "occlusion"), "clients/view=dirt", "partition=iid",
        "clients=same", "strategy=distillation", "clients.num_clients=5",
        "clients.training.epochs=5", "strategy.distil.epochs=15"]  # fmt: skip


def test_a_side_is_hidden_from_each_client() -> None:
    images = np.ones((2, 1, 4, 4), np.float32)
    hidden = {
        k: imported("occlusion").dirt(images.copy(), client_id=k, phase="test")[0, 0] == 0
        for k in range(6)
    }
    assert [int(each.sum()) for each in hidden.values()] == [8, 8, 8, 8, 0, 8]
    assert (hidden[0][:, :2].all(), hidden[1][:, 2:].all()) == (True, True)
    assert (hidden[2][:2].all(), hidden[3][2:].all(), hidden[5][:, :2].all()) == (True, True, True)
    clean = imported("occlusion").dirt(images.copy(), client_id=0, phase="test", trains_only=True)
    assert (clean == 1).all()


@pytest.mark.slow
def test_dirty_cameras_see_less_and_all_together_more(tmp_path: Path) -> None:
    words = [*DIRT, "rounds=3"]
    others = {"clean": "clients/view=none", "wiped": "clients.view.trains_only=true"}
    runs = both_pools(tmp_path, words, "occlusion.dirt", **others)
    dirty, clean = runs["inline"], runs["clean"]
    mean = {name: run["clients_accuracy"]["mean"] for name, run in runs.items()}
    assert mean["inline"] < mean["clean"] - 0.03
    assert dirty["clients_accuracy"]["max"] > mean["inline"] + 0.03  # who sees everything
    assert dirty["ensemble_accuracy"] > mean["inline"]  # they see other sides
    assert dirty["student_accuracy"] < clean["student_accuracy"]


def test_adaboost_by_hand() -> None:
    """SAMME on four examples of three classes: error 1/4, then 1/2 of what weighs 1, 1, 1, 6."""
    labels = torch.tensor([0, 1, 2, 0])
    said = torch.tensor([[0, 1, 2, 1], [1, 1, 1, 0]])
    logits = torch.nn.functional.one_hot(said, 3).float()
    answers = Answers((0, 1), logits, torch.ones(2, 4, dtype=torch.bool), None, torch.ones(2))
    scores = imported("adaboost").samme(answers, calibration=Calibration(answers, labels))
    first = np.log(3) + np.log(2)  # error 1/4
    wrong = 2 / (3 + np.exp(first))  # of 1 + 1 + 1 + 6, two are wrong
    second = np.log((1 - wrong) / wrong) + np.log(2)
    np.testing.assert_allclose(scores[:, 0], [first, second], rtol=1e-5)
    votes = imported("adaboost").votes(logits, torch.tensor([[0.75] * 4, [0.25] * 4]), 1.0)
    assert votes.tolist() == [[0.75, 0.25, 0], [0, 1, 0], [0, 0.25, 0.75], [0.25, 0.75, 0]]


BOOSTED = ["--config-dir", str(EXAMPLES / "adaboost"), "strategy=distillation",
           "strategy/scorer=samme", "strategy/combiner=votes", "partition=quantity_skew",
           "clients.num_clients=5",
           "strategy.proxy_split.calibration_share=0.2", "clients.training.epochs=10",
           "strategy.distil.epochs=5"]  # fmt: skip


@pytest.mark.slow
def test_boosted_teachers_beat_a_plain_vote_on_both_pools_and_after_a_resume(
    tmp_path: Path,
) -> None:
    words, target = [*BOOSTED, "rounds=3"], "adaboost.samme,adaboost.votes"
    runs = both_pools(tmp_path, words, target, vote="strategy/scorer=uniform")
    assert runs["inline"]["ensemble_accuracy"] > runs["vote"]["ensemble_accuracy"] + 0.02


SMALL = ["--config-dir", str(EXAMPLES / "compressed"), "clients/codec=low_rank", "partition=iid",
         "strategy=averaging", "clients=same", "clients.num_clients=5",
         "clients.training.epochs=8"]  # fmt: skip


def test_a_change_of_low_rank_is_sent_as_two_thin_matrices() -> None:
    codec, rng = imported("compressed").LowRank(0.999), np.random.default_rng(0)
    before = {"w": rng.standard_normal((8, 3, 4)).astype(np.float32), "b": np.ones(8, np.float32)}
    one = np.outer(np.arange(1, 9), np.ones(12)).reshape(8, 3, 4).astype(np.float32)
    after = {"w": before["w"] + one, "b": before["b"] * 2}
    notes: dict[str, int] = {}
    sent = codec.encode(after, received=before, note=notes.update)
    assert {name: part.size for name, part in sent.items()} == {"w:left": 8, "w:right": 12, "b": 8}
    assert notes == {"largest_rank": 1}
    back = codec.decode(sent, received=before)
    for name, array in after.items():
        np.testing.assert_allclose(back[name], array, atol=1e-5)
    full = codec.encode({**after, "w": rng.random((8, 3, 4)) * 9}, received=before, note=dict)
    assert set(full) == {"w", "b"}  # two matrices would be no smaller


@pytest.mark.slow
def test_low_ranks_are_as_good_for_half_the_megabytes(tmp_path: Path) -> None:
    words = [*SMALL, "rounds=3"]
    others = {"whole": "clients/codec=none", "less": "clients.codec.energy=0.5"}
    runs = both_pools(tmp_path, words, "compressed.LowRank", **others)
    sent = {name: megabytes_up(tmp_path / name) for name in ("inline", *others)}
    assert sent["less"] < sent["inline"] / 2 < sent["whole"] / 4
    accuracy = {name: runs[name]["student_accuracy"] for name in sent}
    assert accuracy["inline"] > accuracy["whole"] - 0.02
    assert accuracy["inline"] / sent["inline"] > 2 * accuracy["whole"] / sent["whole"]


@pytest.mark.slow
def test_what_top_k_leaves_out_is_there_after_a_resume(tmp_path: Path) -> None:
    words = [*SMALL[2:], "clients/codec=top_k", "clients.codec.share=0.05"]
    runs = {
        name: result_of(tmp_path / name, *words, "rounds=3", "sim=inline", *more)
        for name, more in {"whole": [], "forgets": ["clients.codec.memory=false"]}.items()
    }
    result_of(tmp_path / "half", *words, "rounds=2", "checkpoint_every=1", "sim=inline")
    again = run_py(f"resume={tmp_path / 'half'}", "rounds=3")
    assert again.returncode == 0, again.stderr
    gone = json.loads((tmp_path / "half" / "result.json").read_text())
    assert hashes(gone) == hashes(runs["whole"]) != hashes(runs["forgets"])


def megabytes_up(folder: Path) -> float:
    return float(pq.read_table(folder / "clients.parquet")["reply_bytes"].to_numpy().sum() / 1e6)


ALIKE = ["--config-dir", str(EXAMPLES / "similarity"), "strategy=distillation", "partition=iid",
         "strategy/ask=[features]", "strategy/distil=similarity", "clients.num_clients=4",
         "clients.training.epochs=3", "strategy.distil.epochs=5"]  # fmt: skip


def test_similarities_by_hand() -> None:
    """Two inputs at right angles are unlike; of one that is twice as long nothing changes."""
    alike = imported("similarity").alike
    assert alike(torch.tensor([[1.0, 0.0], [0.0, 3.0]])).tolist() == [[1, 0], [0, 1]]
    near = alike(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    torch.testing.assert_close(near, torch.tensor([[1, 2], [1, 2]]) / np.sqrt(5).astype("f"))


@pytest.mark.slow
def test_a_student_comes_nearer_to_what_unlike_teachers_find_alike(tmp_path: Path) -> None:
    words = [*ALIKE, "rounds=3"]
    runs = both_pools(tmp_path, words, "similarity.similarity", free="strategy.distil.pull=0")
    gaps = {}
    for name in runs:
        last = (tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1]
        gaps[name] = json.loads(last)["strategy"]["similarity_gap"]
    assert gaps["ray"] < 0.9 * gaps["free"]


UNSURE = ["--config-dir", str(EXAMPLES / "mc_dropout"), "clients=dropping",
          "strategy/discriminator=unsure", "clients.num_clients=5",
          "clients.training.epochs=8", "strategy.distil.epochs=8"]  # fmt: skip


class Alternating(torch.nn.Module):
    """Sure of the first class at one time, of the second at the next, where an input is not 0."""

    def __init__(self) -> None:
        super().__init__()
        self.sign = 1.0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.sign = -self.sign
        return inputs * torch.tensor([self.sign, -self.sign]) * 99


def test_mutual_information_is_0_where_draws_agree_and_log_2_where_they_do_not() -> None:
    unsure, inputs = imported("mc_dropout").unsure, torch.tensor([[0.0], [1.0]])
    found = unsure(Alternating(), inputs, rng=np.random.default_rng(0))
    np.testing.assert_allclose(found, [1, 0], atol=1e-6)


@pytest.mark.slow
def test_what_hangs_on_dropped_units_is_trusted_less_on_both_pools(tmp_path: Path) -> None:
    others = {"alike": "strategy/scorer=uniform", "few": "strategy.discriminator.draws=2"}
    target = "mc_dropout.unsure,mc_dropout.dropping"
    runs = both_pools(tmp_path, [*UNSURE, "rounds=3"], target, **others)
    trusted, alike = (runs[name]["student_accuracy"] for name in ("inline", "alike"))
    assert trusted > alike + 0.1
