"""What an audit changed in the code without a test that noticed: the right numbers, by hand."""

from functools import partial
from math import log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord
from safetensors.numpy import load_file
from torch import Tensor, nn

import run
from clients.app import SimulatedApp
from clients.data import normalised
from clients.execution.executor import Lesson, Place
from clients.execution.model_cache import as_tensors
from clients.messages.answers import RoundView
from clients.messages.arrays import write_arrays
from clients.messages.requests import node_id_of, read_request
from clients.models.discriminator import DiscriminatorRecipe, fit_discriminator, own_probability
from clients.models.factory import build, parameters_of
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, generator
from clients.training.evaluation import predict, predict_with_features
from clients.training.losses import cross_entropy
from strategies.aggregation.scorers import max_prob, own_odds
from tests.clients.handlers.test_answering import fed_back, two_clients
from tests.federations import SEED, distillation, inline, run_ours, tiny_clients, trainer
from tests.strategies.server.test_distillation import TEST, distil_round, make, reduced, reply_to
from tests.tiny_runs import BASES, composed, played


@pytest.mark.parametrize("inputs", ["pixels", "features"])
def test_discriminators_are_fitted_against_the_negatives_and_not_what_is_distilled(
    inputs: str,
) -> None:
    # docs/dlad.md: who is fitted against the examples that it weighs has learnt them by heart.
    clients, views = tiny_clients(2, train=partial(trainer(), epochs=0)), list[RoundView]()
    recipe = DiscriminatorRecipe(inputs, l2=0.01)
    strategy = distillation(clients, scorer=own_odds, discriminator=recipe, report=views.append)
    run_ours(inline(SimulatedApp(clients)), clients, strategy)
    private, proxy = clients.splits.private, clients.splits.proxy
    ids, network = strategy.distilled_ids, networks_of(clients)

    def seen(client: int, dataset: Any, which: Any) -> Any:
        if inputs == "pixels":
            return normalised(dataset, which).reshape(len(which), -1)
        return predict_with_features(network[client], dataset, which)[1].numpy()

    for client, own in enumerate(clients.partitions):
        probs = []
        for against in (strategy.negative_ids, ids):
            told = seen(client, private, own), seen(client, proxy, against)
            fitted = fit_discriminator(*told, balanced=False, l2=0.01)
            probs.append(own_probability(fitted, seen(client, proxy, ids)))
        found = views[0].teachers.own_probs
        assert found is not None
        np.testing.assert_allclose(found[client].numpy(), probs[0], rtol=0, atol=1e-6)
        assert np.abs(probs[1] - probs[0]).max() > 0.1


def networks_of(clients: SimulatedClients) -> list[nn.Module]:
    """Build each client's network as it is before it trains."""
    return [
        build(clients.models[name], (1, 4, 4), 4, generator(SEED, Purpose.INITIALISE, 0, client))
        for client, name in enumerate(clients.architectures)
    ]


def test_a_cap_that_binds_gives_the_others_what_it_takes() -> None:
    # One is sure, two know nothing: scores 1, 1/4, 1/4 are weights 2/3, 1/6, 1/6. At most .4, the
    # others share .6 evenly; the target is .4 of the sure answer and .6 of 1/4 for each class.
    for cap, weights, first in ((1.0, (2 / 3, 1 / 6, 1 / 6), 0.75), (0.4, (0.4, 0.3, 0.3), 0.55)):
        views: list[RoundView] = []
        strategy = make(scorer=max_prob, weight_cap=cap, report=views.append)
        logits = torch.zeros(3, len(strategy.distilled_ids), 4)
        logits[0, :, 0] = 40.0
        distil_round(strategy, logits)
        for column in views[0].weights.T:
            assert column.tolist() == pytest.approx(weights, abs=1e-6)
        rest = (1 - first) / 3
        for row in views[0].targets:
            assert row.tolist() == pytest.approx([first, rest, rest, rest], abs=1e-6)


def test_a_digest_has_its_temperature_in_the_targets_and_in_the_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The student says (2 ln 3, 0, 0, 0). At T = 2 that is (3, 1, 1, 1) / 6, at T = 1 it would be
    # (9, 1, 1, 1) / 12. A client that knows nothing loses T**2 (ln(2) / 2 + ln(2/3) / 2), and one
    # that says what the student says loses nothing.
    told: list[tuple[Lesson, Any]] = []
    fit = SimulatedClients.fit

    def listening(self: Any, ids: Any, starts: Any, lesson: Any, *rest: Any, **changes: Any) -> Any:
        told.append((lesson(ids[0], starts[0]), rest[1]))
        return fit(self, ids, starts, lesson, *rest, **changes)

    clients = two_clients()
    strategy = distillation(clients, feed_back=True, temperature=2.0)
    said = torch.tensor([[2 * log(3), 0.0, 0.0, 0.0]])
    with torch.no_grad():
        for parameter in strategy.student.parameters():
            parameter.zero_()
        bias = next(p for p in strategy.student.parameters() if p.ndim == 1)
        bias.copy_(said[0] / 5)  # `fed_back` sends five times as much
    monkeypatch.setattr(SimulatedClients, "fit", listening)
    fed_back(clients, strategy)
    lesson, loss = next((lesson, loss) for lesson, loss in told if lesson.targets.ndim == 2)
    assert lesson.targets[0].tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=1e-6)
    target = lesson.targets[:1]
    expected = 4 * (log(2) / 2 + log(2 / 3) / 2)
    assert loss(torch.zeros(1, 4), target).item() == pytest.approx(expected, abs=1e-6)
    assert loss(said, target).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("summed", [False, True], ids=["answers", "sums"])
def test_a_test_example_that_nobody_covers_is_answered_wrong_and_not_in_the_loss(
    summed: bool,
) -> None:
    # 30 of 120 are not covered and all others are right: 3/4; ln((e + 3) / e) on each of those.
    strategy = make()
    grid: Any = SimpleNamespace(get_node_ids=lambda: [node_id_of(k) for k in range(3)])
    distil_round(strategy, torch.zeros(3, len(strategy.distilled_ids), 4))
    requests = list(strategy.configure_evaluate(1, write_arrays({}), ConfigRecord(), grid))
    assert read_request(requests[0].content).num_inputs == len(TEST) == 120
    truth = nn.functional.one_hot(torch.from_numpy(TEST.labels), 4).float()
    mask = torch.arange(120) >= 30
    replies = [reply_to(request, truth, mask) for request in requests]
    metrics = strategy.aggregate_evaluate(
        1, reduced(strategy, "evaluate", replies) if summed else replies
    )
    assert metrics is not None
    assert metrics["ensemble-accuracy"] == pytest.approx(0.75, abs=1e-9)
    assert metrics["ensemble-loss"] == pytest.approx(log(np.e + 3) - 1, abs=1e-6)


def test_the_second_stage_begins_with_the_student_and_not_with_the_clusters_mean(
    tmp_path: Path,
) -> None:
    # Whoever is taught nothing is still what it was before round 1.
    config = composed(BASES["cpfl"], "strategy.second.distil.epochs", 0)
    seen = played(config, tmp_path / "run")
    assert not seen.error
    student = load_file(seen.folder / "student.safetensors")
    start = run.begin_student(config, run.populate(config, run.load_splits(config)))
    for name, value in parameters_of(start).items():
        np.testing.assert_array_equal(student[name], value)


class Normed(nn.Module):
    """A network of which several are run at once, and that answers otherwise in train mode."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(int(np.prod(image_shape)), 8)
        self.norm = nn.BatchNorm1d(8)
        self.classifier = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.norm(self.hidden(images.flatten(1))).relu())
        return logits


class Dropping(Normed):
    """One of which each is run by itself."""

    def forward(self, images: Tensor) -> Tensor:
        dropped = nn.functional.dropout(images, 0.5, self.training)
        return super().forward(dropped)


@pytest.mark.parametrize("kind", [Normed, Dropping])
@pytest.mark.parametrize("features", [False, True])
def test_several_answer_as_each_does_in_eval_mode(kind: Any, features: bool) -> None:
    splits = tiny_clients().splits
    place = Place({"net": kind}, (1, 4, 4), 4, "cpu", trainer(), together=True)
    own, labels = np.arange(16), torch.from_numpy(splits.private.labels[:16])
    starts = []
    for seed in range(3):
        start = dict(place.networks.fresh("net", np.random.default_rng(seed)).state_dict())
        lesson = Lesson(as_tensors(arrays(start)), own, labels, np.random.SeedSequence(seed))
        (trained,) = place.fit("net", splits.private, [lesson], cross_entropy, epochs=3)
        starts.append(as_tensors(trained.parameters))  # type: ignore[union-attr]
    several = list(place.answers("net", starts, splits.proxy, np.arange(20), features))
    for start, answered in zip(starts, several, strict=True):
        network = kind((1, 4, 4), 4)
        network.load_state_dict(start)
        alone = predict(network.eval(), splits.proxy, np.arange(20))
        torch.testing.assert_close(answered.logits, alone, rtol=1e-5, atol=1e-6)  # type: ignore[union-attr]
        with torch.no_grad():
            train = network.train()(torch.from_numpy(normalised(splits.proxy, np.arange(20))))
        assert (train - alone).abs().max() > 0.1


def arrays(state: dict[str, Tensor]) -> dict[str, Any]:
    return {name: tensor.numpy().copy() for name, tensor in state.items()}


def test_that_network_is_run_several_at_once() -> None:
    """Or the test above compares the same thing twice."""
    place = Place({"net": Normed}, (1, 4, 4), 4, "cpu", trainer(), together=True)
    assert place._way("net") is not None
    place = Place({"net": Dropping}, (1, 4, 4), 4, "cpu", trainer(), together=True)
    assert place._way("net") is None
