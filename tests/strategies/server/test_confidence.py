"""A function in the place of a discriminator: what it gets, what becomes of it, what is refused."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clients.data import normalised, subset
from clients.handlers.state import MODEL
from clients.messages.arrays import read_arrays
from clients.messages.field import Field
from clients.messages.field_source import Asked
from clients.messages.round_views import RoundView
from clients.models import mlp
from clients.models.confidence import energy, mc_dropout, nearest_own
from clients.models.discriminator import DiscriminatorRecipe
from clients.population.profiles import alike
from clients.training.taps import evaluating
from sim.engine.grid import PoolGrid
from sim.topology import graphs
from strategies.aggregation import scorers
from strategies.server.distillation import DistillationStrategy
from strategies.server.requirements import require_fitting
from tests.asking import run
from tests.federations import Run, distillation, inline, run_ours, simulated, student_of
from tests.federations import tiny_clients as clients_of
from tests.mutual_learning import mutual
from tests.peers import gossip, topology

SHIPPED = {"mc_dropout": mc_dropout, "energy": energy, "nearest_own": nearest_own}
OWN = {"scorer": scorers.own_probability}


def seen(
    make: Any = distillation, kind: str = "inline", rounds: int = 1, **changes: Any
) -> tuple[Run, RoundView]:
    clients, views = clients_of(), list[RoundView]()
    strategy = make(clients, report=views.append, **{**OWN, **changes})
    found = run(strategy, clients, kind, rounds=rounds)
    assert not [e.failure for report in found.reports for e in report.exchanges if e.failure]
    return found, views[-1]


def of_peers(clients: Any, **changes: Any) -> Any:
    return gossip(clients, topology(graphs.complete), **changes)


def by_distance(
    network: Any, inputs: Any, *, own: Any, negatives: Any, rng: np.random.Generator
) -> Any:
    """Tell by means, with some noise: what a discriminator might do."""
    near, far = ((inputs - each.mean(0)).flatten(1).norm(dim=1) for each in (own, negatives))
    noise = torch.from_numpy(rng.random(len(inputs))) * 0.1
    return (0.9 * far / (near + far) + noise).clamp(0, 1)


# --- what it says ---


@pytest.mark.parametrize("make", [distillation, of_peers, mutual])
@pytest.mark.parametrize("name", SHIPPED)
def test_weights_are_of_what_it_says(make: Any, name: str) -> None:
    found, view = seen(make, discriminator=SHIPPED[name])
    own = view.teachers.own_probs
    assert own is not None
    assert ((own > 0) & (own <= 1)).all()
    scores = scorers.own_probability(view.teachers)
    torch.testing.assert_close(view.weights, scores / scores.sum(0))
    assert len(view.weights.unique()) > 10
    assert found.sha256 != seen(make, discriminator=by_distance)[0].sha256 or make is of_peers


@pytest.mark.parametrize("make", [distillation, of_peers])
def test_bits_are_the_same_on_both_pools(make: Any) -> None:
    runs = [seen(make, kind, 2, discriminator=by_distance) for kind in ("inline", "ray")]
    assert runs[0][0].sha256 == runs[1][0].sha256
    one, other = (view.teachers.own_probs for _, view in runs)
    assert torch.equal(one, other)  # type: ignore[arg-type]


def test_it_gets_the_clients_trained_network_and_inputs_as_it_sees_them() -> None:
    told: list[dict[str, Any]] = []

    def watching(network: Any, inputs: Any, *, own: Any, negatives: Any) -> Any:
        state = {name: value.clone() for name, value in network.state_dict().items()}
        told.append({"training": network.training, "state": state, "inputs": inputs, "own": own,
                     "negatives": negatives})  # fmt: skip
        return torch.full((len(inputs),), 0.5)

    def shifted(inputs: Any, *, phase: str) -> Any:
        return inputs + (0 if phase == "train" else 1)

    clients = clients_of(2, view=shifted)
    strategy = distillation(clients, discriminator=watching, **OWN)
    found = run_ours(inline(simulated(clients, strategy)), clients, strategy)
    split, splits = strategy.split, clients.splits
    assert len(told) == 4  # two clients, proxy examples and test set
    for k, each in enumerate(told[:2]):
        kept = read_arrays(found.grid.states.of(k).array_records[MODEL])
        assert not each["training"]
        for name, value in each["state"].items():
            np.testing.assert_allclose(value.numpy(), kept[name])
        for what, dataset, ids in (
            ("inputs", splits.proxy, split.distilled_ids),
            ("own", splits.private, clients.partitions[k]),
            ("negatives", splits.proxy, split.negative_ids),
        ):
            np.testing.assert_allclose(each[what].numpy(), normalised(dataset, ids) + 1, 1e-6)


def test_it_judges_the_pixels_that_were_answered_of_a_view_that_draws() -> None:
    """Whoever looks, in as many batches: the view's generator begins anew each time."""
    judged: list[Any] = []
    gaps: list[float] = []

    def noised(inputs: Any, *, rng: np.random.Generator) -> Any:
        return inputs + rng.random(dtype=np.float32)  # one number for each batch

    def judging(network: Any, inputs: Any) -> Any:
        judged.append(network(inputs).detach())
        return torch.full((len(inputs),), 0.5)

    def pixels(asked: Asked) -> Any:
        with evaluating(network := asked.network()):
            for _ in range(2):
                said = network(torch.tensor(asked.inputs)).detach()
                gaps.append(float((said - asked.logits).abs().max()))
        return np.zeros(len(asked.ids))

    clients = clients_of(2, view=noised)
    proxy = subset(clients.splits.proxy, np.arange(360) % 30)  # more than one batch of 256
    clients = clients_of(2, view=noised, splits=replace(clients.splits, proxy=proxy))
    views: list[RoundView] = []
    asks = {"discriminator": judging, "ask": {"zero": Field(pixels)}, **OWN}
    strategy = distillation(clients, report=views.append, probe_examples=360, **asks)
    run_ours(inline(simulated(clients, strategy)), clients, strategy)
    answered = views[-1].teachers.logits
    assert answered.shape[1] > 256
    torch.testing.assert_close(torch.stack(judged[:2]), answered)
    assert max(gaps) < 1e-4


def test_chunks_and_the_test_set_are_asked_anew_and_summed_in_workers() -> None:
    asked: list[int] = []

    def counting(network: Any, inputs: Any, *, negatives: Any) -> Any:
        asked.append(len(inputs))
        assert len(negatives) == 6
        return torch.linspace(0.1, 0.9, len(inputs))

    clients = clients_of(2)
    strategy = distillation(clients, discriminator=counting, chunks=3, **OWN)
    assert strategy.intake(1, "train") is not None
    run_ours(inline(simulated(clients, strategy)), clients, strategy)
    assert sorted(asked) == [8] * 6 + [50] * 2


def test_scorers_take_odds_of_it_whatever_they_want_of_discriminators() -> None:
    for scorer in (scorers.own_odds, scorers.num_examples_own_odds, scorers.own_selection):
        seen(discriminator=nearest_own, scorer=scorer)
    recipe = DiscriminatorRecipe()
    with pytest.raises(ValueError, match="goes with strategy.discriminator.balanced=true"):
        distillation(clients_of(), discriminator=recipe, scorer=scorers.own_selection)
    _, everybody = seen(discriminator=nearest_own, scorer=scorers.own_odds, fallback_below=1.0)
    own = everybody.teachers.own_probs
    assert own is not None
    unsure = own.amax(0) < 1
    assert 0 < unsure.sum() < len(unsure)
    assert bool((everybody.weights[:, unsure] == 1 / 5).all())


def test_networks_without_local_training_may_be_asked() -> None:
    seen(discriminator=energy, local_training=False)
    with pytest.raises(ValueError, match=r"local_training=false: expected strategy/discriminator"):
        distillation(clients_of(), discriminator=DiscriminatorRecipe(), local_training=False, **OWN)


def test_the_clock_counts_the_examples_that_it_names() -> None:
    def seconds(function: Any) -> float:
        slow = partial(alike, multiplications_per_s=1.0, download_bytes_per_s=1e18,
                       upload_bytes_per_s=1e18, latency_s=0.0)  # fmt: skip
        clients = clients_of(2, profile=slow)
        strategy = distillation(clients, discriminator=function, **OWN)
        pool = inline(simulated(clients, strategy))
        grid = PoolGrid(pool, clients.architectures, profiles=clients.profiles)
        found = run_ours(pool, clients, strategy, grid=grid)
        return float(found.reports[0].exchanges[0].simulated_time_s or 0)

    none = seconds(lambda network, inputs: torch.ones(len(inputs)))
    forward = clients_of().forward["linear"]
    assert seconds(lambda network, inputs, *, own: torch.ones(len(inputs))) - none == 60 * forward
    both = seconds(lambda network, inputs, *, own, negatives: torch.ones(len(inputs)))
    assert both - none == 66 * forward


# --- what is undone, and refused ---


def test_what_it_does_to_the_network_is_undone() -> None:
    def meddling(network: Any, inputs: Any) -> Any:
        network.train()
        for parameter in network.parameters():
            parameter.data.zero_()
            parameter.requires_grad_(False)
        network.extra = 3
        return torch.full((len(inputs),), 0.5)

    def honest(network: Any, inputs: Any) -> Any:
        return torch.full((len(inputs),), 0.5)

    odd, good = (seen(discriminator=each, rounds=2)[0] for each in (meddling, honest))
    assert odd.sha256 == good.sha256


class Hoarding:
    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, network: Any, inputs: Any) -> Any:
        self.seen += 1
        return torch.ones(len(inputs))


def exchanging(network: Any, inputs: Any) -> Any:
    network.more = nn.Linear(1, 1)
    return torch.ones(len(inputs))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda network, inputs: torch.full((len(inputs),), 1.5),
            "gave values from 1.5 to 1.5: ex",
        ),
        (
            lambda network, inputs: -torch.ones(len(inputs)),
            "gave values from -1 to -1: expected in",
        ),
        (lambda network, inputs: torch.full((len(inputs),), torch.nan), "gave values from nan to"),
        (lambda network, inputs: torch.ones(len(inputs), 2), r"is of shape \(24, 2\), expected"),
        (lambda network, inputs: inputs.no, "AttributeError"),
        (Hoarding(), "Hoarding changed its 'seen'"),
        (exchanging, "a field's function changed its network: module 'more' is new"),
    ],
)
def test_what_it_must_not_do_is_the_clients_failure(function: Any, message: str) -> None:
    clients = clients_of()
    strategy = distillation(clients, discriminator=function, **OWN)
    with pytest.raises(Exception, match=message):
        run(strategy, clients)


def test_a_share_of_negatives_is_wanted_only_by_who_names_them() -> None:
    none = {"negative_share": 0.0, **OWN}
    distillation(clients_of(), discriminator=energy, **none)
    with pytest.raises(ValueError, match=r"negative_share=0\.0.*leaves no negatives"):
        distillation(clients_of(), discriminator=by_distance, **none)


def test_it_is_tried_with_every_architecture_before_anybody_trains() -> None:
    class Bare(nn.Module):
        """A network that calls no linear layer."""

        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(num_classes))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.flatten(1).sum(1, keepdim=True) * self.table

    clients = clients_of(models={"linear": Bare, "mlp": partial(mlp, hidden=(8,))})
    strategy = partial(DistillationStrategy, discriminator=nearest_own)
    about = {"student_workers": 1, "topology": False, "availability": {}}
    with pytest.raises(
        ValueError, match=r"strategy\.discriminator: architecture 'linear': .*Bare c"
    ):
        require_fitting(strategy, clients, **about)
    with pytest.raises(ValueError, match=r"strategy\.discriminator\.epsilon is not set"):
        require_fitting(
            partial(DistillationStrategy, discriminator=lambda network, inputs, epsilon: 0),
            clients,
            **about,
        )
    assert student_of(clients) is not None
