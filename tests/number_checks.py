"""Independent numerics: what the product computes, computed once more in another way."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from safetensors.torch import load_file
from torch import nn

from clients import data, models
from clients.messages.answers import Answers
from clients.messages.arrays import write_arrays
from clients.messages.sizes import size_bytes
from clients.training.loop import train
from clients.training.losses import cross_entropy
from strategies.aggregation import scorers
from strategies.aggregation.combiners import mean_of_logits, mean_of_probs
from strategies.aggregation.normalisation import normalise
from tests.answers_in_parts import contents, folded, rule_of
from tests.quick_runs import federated

Floats = Any


def capped_weights_are_water_filling(tmp: Path) -> None:
    """w = min(limit, level * score), the level found by bisection."""
    rng = np.random.default_rng(1)
    for _ in range(300):
        number = rng.integers(1, 9)
        scores = np.where(rng.random(number) < 0.25, 0, 10 ** rng.uniform(-4, 4, number))
        mask = rng.random(number) < 0.85
        cap = float(rng.choice([1.0, 0.9, 0.5, 0.34, 0.2, 0.05]))
        trusted = np.where(mask, scores, 0.0)
        wanted = np.zeros(number)
        if present := (trusted > 0).sum():
            low, high, limit = 0.0, 1e12, max(cap, 1 / present)
            for _ in range(200):
                middle = (low + high) / 2
                above = np.minimum(limit, middle * trusted).sum() < 1 - 1e-15
                low, high = (middle, high) if above else (low, middle)
            wanted = np.minimum(limit, high * trusted)
        column = torch.tensor(scores[:, None])
        found = normalise(column, torch.tensor(mask[:, None]), cap)[:, 0].numpy()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def odds(own: Floats) -> Floats:
    clamped = np.clip(own, 1e-4, 1 - 1e-4)
    return clamped / (1 - clamped)


SCORES: dict[Any, Any] = {
    scorers.uniform: lambda z, own: np.ones(z.shape[:2]),
    scorers.max_prob: lambda z, own: softmax(z).max(-1),
    scorers.entropy: lambda z, own: np.exp((softmax(z) * np.log(softmax(z))).sum(-1)),
    scorers.margin: lambda z, own: np.diff(np.sort(softmax(z), -1)[..., -2:], axis=-1)[..., 0],
    scorers.own_odds: lambda z, own: odds(own),
    scorers.own_probability: lambda z, own: np.clip(own, 1e-4, 1 - 1e-4),
}


def targets_are_those_of_plain_numpy(tmp: Path) -> None:
    """Answers -> weights -> targets in float64, of the whole and folded in parts."""
    rng = np.random.default_rng(2)
    for temperature, combiner in (
        (1.0, mean_of_probs),
        (3.0, mean_of_probs),
        (3.0, mean_of_logits),
    ):
        z = rng.normal(size=(4, 9, 5)).astype("f4") * 3
        own, mask = rng.random((4, 9)).astype("f4"), rng.random((4, 9)) < 0.8
        number = torch.tensor([5.0, 7.0, 1.0, 3.0])
        told = Answers((0, 1, 2, 3), *map(torch.from_numpy, (z, mask, own)), number)
        for scorer, wanted_of in SCORES.items():
            scores = wanted_of(z.astype("d"), own.astype("d")) * mask
            total = scores.sum(0)
            weights = np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)
            of_each = softmax(z / temperature) if combiner is mean_of_probs else z / temperature
            mean = np.einsum("kn,knc->nc", weights, of_each)
            wanted = mean if combiner is mean_of_probs else softmax(mean)
            rule = rule_of(scorer, combiner, temperature=temperature)
            parts = folded(rule, contents(told), [1, 3], [0])
            for found in (rule(told, np.arange(9)), parts):
                assert found.covered.tolist() == (total > 0).tolist()
                ours = found.targets.numpy()[total > 0]
                np.testing.assert_allclose(ours, wanted[total > 0], rtol=0, atol=2e-6)


def local_training_is_torchs_own_loop(tmp: Path) -> None:
    """Order of batches, the remainder of one, dropout, clipping, and the losses told."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(65, 1, 6, 6)).astype("f4"), rng.integers(0, 5, 65)
    task = data.classification((1, 6, 6), 5)
    private = data.Dataset("own", inputs, labels, task, 1.0, (0.1,), (0.7,))
    x, y = torch.from_numpy((inputs - np.float32(0.1)) / np.float32(0.7)), torch.from_numpy(labels)
    own = np.random.default_rng(9).choice(65, 33, replace=False)  # 33 = 16 + 17
    for optimizer in (partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-2),
                      partial(torch.optim.AdamW, lr=1e-2)):  # fmt: skip
        for clip in (None, 0.5):
            ours, theirs = (dropping() for _ in range(2))
            numbers: dict[str, Any] = {"epochs": 3, "batch_size": 16, "max_grad_norm": clip}
            losses = train(ours, private, own, y[own], cross_entropy, np.random.default_rng(5),
                           optimizer=optimizer, **numbers)  # fmt: skip
            draws = np.random.default_rng(5)
            torch.manual_seed(int(draws.integers(2**63, dtype=np.uint64)))
            stepper, told = optimizer(theirs.parameters()), []
            for _ in range(3):
                order, total = draws.permutation(33), 0.0
                for batch in (own[order[:16]], own[order[16:]]):
                    stepper.zero_grad()
                    loss = nn.functional.cross_entropy(theirs(x[batch]), y[batch])
                    loss.backward()
                    if clip:
                        nn.utils.clip_grad_norm_(theirs.parameters(), clip)
                    stepper.step()
                    total += loss.item() * len(batch)
                told.append(total / 33)
            np.testing.assert_allclose(losses, told, atol=1e-5)
            for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(mine, its, rtol=0, atol=1e-5)


def dropping() -> nn.Module:
    torch.manual_seed(3)
    layers = nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 5)
    return nn.Sequential(*layers)


def bytes_are_nearly_what_flower_serialises(tmp: Path) -> None:
    """Within a percent of a real message, and never more than that has."""
    rng = np.random.default_rng(0)
    weights = {f"layer{i}.weight": rng.normal(size=(64, 64)).astype("f4") for i in range(5)}
    metrics = MetricRecord({"num-examples": 3, "train-loss": 0.5})
    config = ConfigRecord({"server-round": 3, "push": True})
    content = RecordDict({"arrays": write_arrays(weights), "metrics": metrics, "config": config})
    real = len(recorddict_to_proto(content).SerializeToString())
    assert 0.99 * real < size_bytes(content) <= real


def no_image_of_digits_is_in_two_sets(tmp: Path) -> None:
    numbers: dict[str, Any] = {"proxy_source": None, "limit": None, "proxy_limit": None}
    rng = np.random.default_rng(0)
    splits = data.split(*data.digits(), proxy_share=0.2, rng=rng, **numbers)
    sets = [{each.tobytes() for each in part.inputs}
            for part in (splits.private, splits.proxy, splits.test)]  # fmt: skip
    assert sum(map(len, sets)) == len(set().union(*sets))


VIEW = """
import numpy as np

def noted(view, folder):
    teachers = view.teachers
    np.savez(f"{folder}/{view.server_round}.npz", logits=teachers.logits, own=teachers.own_probs,
             mask=teachers.mask, weights=view.weights, targets=view.targets)
    return {}
"""


def a_run_is_what_its_parts_say(tmp: Path) -> None:
    """DLAD over two rounds: weights and targets from answers, accuracy from the student's file."""
    (tmp / "case_probe.py").write_text(VIEW)
    probe = f"+probes.noted={{_target_: case_probe.noted, _partial_: true, folder: '{tmp}'}}"
    words = ["--config-dir", str(tmp), "rounds=2", "clients.num_clients=5", probe, "student=mlp"]
    words += ["clients.training.epochs=2", "strategy.distil.epochs=2", "student.hidden=[8]"]
    words += ["strategy.ensemble.temperature=2", "strategy.proxy_split.probe_examples=9999"]
    result = federated(tmp / "run", *words)
    for server_round in (1, 2):
        seen = np.load(tmp / f"{server_round}.npz")
        trust = odds(seen["own"].astype("d"))
        trust[:, seen["own"].max(0) < 1e-3] = 1
        weights = trust / trust.sum(0)
        targets = np.einsum("kn,knc->nc", weights, softmax(seen["logits"].astype("d") / 2))
        np.testing.assert_allclose(seen["weights"], weights, rtol=0, atol=1e-5)
        np.testing.assert_allclose(seen["targets"], targets, rtol=0, atol=1e-5)
    digits = data.digits()[1]
    student = models.mlp((1, 8, 8), 10, hidden=[8])
    student.load_state_dict(load_file(tmp / "run/student.safetensors"))
    answers = student(torch.from_numpy(data.normalised(digits, np.arange(len(digits)))))
    right = (answers.argmax(1).numpy() == digits.labels).mean()
    assert abs(right - result["student_accuracy"]) < 1e-9
    table = pq.read_table(tmp / "run/clients.parquet")
    lines = [json.loads(line) for line in (tmp / "run/metrics.jsonl").read_text().splitlines()]
    for way in ("request", "reply"):
        sent = sum(table[f"{way}_bytes"].to_pylist())
        assert sent == result[f"{way}_bytes"] == sum(line["bytes"][way] for line in lines)
    last = [row["accuracy"] for row in table.to_pylist() if row["round"] == 2]
    assert result["clients_accuracy"]["mean"] == np.mean(last)
