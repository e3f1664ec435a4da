"""Rules that look at labels of what is distilled: the oracle's trust, and the labels themselves."""

from pathlib import Path

import pytest
import torch

from clients.messages.answers import Answers
from strategies.aggregation.combiners import mean_of_probs, true_labels
from strategies.aggregation.scorers import oracle, uniform
from tests.federations import SEED
from tests.quick_runs import federated, hashes

LOGITS = torch.log(torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]],
                                 [[0.2, 0.2, 0.6], [0.6, 0.2, 0.2]]]))  # fmt: skip
TWO = Answers((0, 1), LOGITS, torch.ones(2, 2, dtype=torch.bool), None, torch.ones(2))


def test_the_oracle_trusts_by_the_probability_of_the_true_class() -> None:
    labels = torch.tensor([0, 2])
    torch.testing.assert_close(oracle(TWO, labels=labels), torch.tensor([[0.5, 0.8], [0.2, 0.2]]))
    unknown = oracle(TWO, labels=torch.tensor([0, -1]))
    torch.testing.assert_close(unknown, torch.tensor([[0.5, 1.0], [0.2, 1.0]]))
    assert torch.equal(oracle(TWO, labels=None), uniform(TWO))


def test_true_labels_are_the_targets_where_there_are_any() -> None:
    weights = torch.full((2, 2), 0.5)
    means = mean_of_probs(LOGITS, weights, 1.0)
    got = true_labels(LOGITS, weights, 1.0, labels=torch.tensor([2, -1]))
    assert got[0].tolist() == [0, 0, 1]
    assert torch.equal(got[1], means[1])
    assert torch.equal(true_labels(LOGITS, weights, 1.0, labels=None), means)


LABELLED = ["data=blobs", "student=mlp", "partition=iid", "clients.num_clients=4", f"seed={SEED}",
            "strategy.proxy_split.labelled=true"]  # fmt: skip
IGNORANT = ["strategy/combiner=true_labels", "clients.training.epochs=0"]


@pytest.mark.parametrize(
    "words",
    [
        ["strategy=distillation", "strategy/selection=random", "strategy.distil.epochs=150"],
        pytest.param(
            [
                "strategy=dml",
                "~clients.architectures.lenet5",
                "strategy/scorer=uniform",
                "strategy/discriminator=none",
                "strategy.teaching.epochs=20",
                "strategy.teaching.optimizer.lr=0.005",
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["distillation", "dml"],
)
def test_who_knows_the_labels_needs_no_teachers(words: list[str], tmp_path: Path) -> None:
    """Clients that learned nothing: what is learned is learned of labels, each with its example."""
    here = federated(tmp_path / "here", *words, *LABELLED, *IGNORANT)
    assert here["student_accuracy"] > 0.85
    there = federated(tmp_path / "there", *words, *LABELLED, *IGNORANT, sim="ray")
    assert hashes(here) == hashes(there)
    blind = federated(tmp_path / "blind", *words, *LABELLED, IGNORANT[1])
    assert blind["student_accuracy"] < 0.8


def test_the_oracle_is_no_worse_than_equal_trust(tmp_path: Path) -> None:
    words = ["strategy=distillation", "data=blobs", "clients.training.epochs=3", f"seed={SEED}"]
    few = ["partition=classes_per_client", "partition.classes=1", "clients.num_clients=4"]
    equal = federated(tmp_path / "equal", *words, *few)
    told = ["strategy/scorer=oracle", "strategy.proxy_split.labelled=true"]
    knows = federated(tmp_path / "knows", *words, *few, *told)
    assert knows["student_accuracy"] > equal["student_accuracy"] + 0.1


def test_labels_are_not_looked_at_unless_they_are_declared_to_be_known(tmp_path: Path) -> None:
    words = ["strategy=distillation", "data=blobs", "strategy/scorer=oracle"]
    with pytest.raises(Exception, match=r"labelled=true, if the server is to know them"):
        federated(tmp_path / "refused", *words)
    more = ["strategy=gossip", "topology=ring", "data=blobs", "strategy/scorer=oracle"]
    with pytest.raises(Exception, match=r"asks for 'labels': it is given by a server"):
        federated(tmp_path / "peers", *more)
