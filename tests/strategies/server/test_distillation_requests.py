"""What DistillationStrategy asks, of whom, and with which numbers."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord

from clients.messages.arrays import write_arrays
from clients.messages.requests import node_id_of, read_request
from clients.models.discriminator import DiscriminatorRecipe
from clients.models.factory import parameters_of
from clients.training.loop import train
from sim.workers.process_setup import assume_task_identity
from strategies.server.distillation import DistillationStrategy
from tests.distilling import PROXY, asked, bits, distil_round, make, random_logits


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


def test_negatives_and_distilled_ids_cover_the_proxy_set_without_overlap() -> None:
    strategy = make(negative_share=0.2)
    assert (len(strategy.split.negative_ids), len(strategy.split.distilled_ids)) == (36, 144)
    both = np.concatenate([strategy.split.negative_ids, strategy.split.distilled_ids])
    assert sorted(both.tolist()) == list(range(len(PROXY)))
    assert make().split.negative_ids.tolist() == strategy.split.negative_ids.tolist()
    assert make(seed=6).split.negative_ids.tolist() != strategy.split.negative_ids.tolist()


def test_a_request_names_the_distilled_ids_and_hides_negatives_unless_needed() -> None:
    plain = read_request(asked(strategy := make())[0].content)
    assert plain.proxy_ids is not None
    assert plain.proxy_ids.tolist() == strategy.split.distilled_ids.tolist()
    assert plain.num_inputs == len(strategy.split.distilled_ids)
    assert plain.negative_ids is None
    recipe = DiscriminatorRecipe("pixels", balanced=True, l2=0.1)
    full = read_request(asked(make(discriminator=recipe))[0].content)
    assert full.recipe == recipe
    assert full.negative_ids is not None
    assert full.negative_ids.tolist() == strategy.split.negative_ids.tolist()


@pytest.mark.parametrize(
    ("feed_back", "server_round", "fed"), [(True, 1, False), (True, 2, True), (False, 2, False)]
)
def test_the_student_is_fed_back_from_round_two_and_only_when_asked(
    feed_back: bool, server_round: int, fed: bool
) -> None:
    strategy = make(feed_back=feed_back, digest_epochs=4, temperature=2.0)
    request = read_request(asked(strategy, server_round=server_round)[0].content)
    assert (request.student is not None) == fed
    if request.student is not None:
        sent = {name: value.tobytes() for name, value in request.student.items()}
        assert sent == bits(strategy.student)
        assert (request.digest_epochs, request.temperature) == (4, 2.0)


def cohort(strategy: DistillationStrategy, server_round: int, num_clients: int = 20) -> list[int]:
    requests = asked(strategy, num_clients, server_round)
    return [request.metadata.dst_node_id for request in requests]


@pytest.mark.parametrize(("fraction", "size"), [(1.0, 20), (0.5, 10), (0.25, 5), (0.001, 1)])
def test_the_cohort_is_a_fraction_of_the_clients_and_at_least_one(
    fraction: float, size: int
) -> None:
    chosen = cohort(make(fraction=fraction), 1)
    assert len(set(chosen)) == len(chosen) == size
    assert chosen == sorted(chosen)
    assert set(chosen) <= {node_id_of(client) for client in range(20)}


def test_the_cohort_depends_on_seed_and_round_only() -> None:
    rounds = [cohort(make(fraction=0.5), server_round) for server_round in range(1, 6)]
    assert rounds == [cohort(make(fraction=0.5), server_round) for server_round in range(1, 6)]
    assert len({tuple(chosen) for chosen in rounds}) == 5
    assert cohort(make(fraction=0.5, seed=6), 1) != rounds[0]


def test_the_clients_that_taught_are_the_ones_that_are_evaluated() -> None:
    strategy = make()
    grid: Any = SimpleNamespace(get_node_ids=lambda: [node_id_of(c) for c in range(20)])
    arrays = write_arrays(parameters_of(strategy.student))
    assert strategy.configure_evaluate(3, arrays, ConfigRecord(), grid) == []
    distil_round(strategy, random_logits(strategy, 3))  # clients 0, 1 and 2 answer
    requests = strategy.configure_evaluate(3, arrays, ConfigRecord(), grid)
    assert [m.metadata.dst_node_id for m in requests] == [node_id_of(c) for c in range(3)]


def test_a_cohort_of_flowers_own_nodes_has_ids_that_exist() -> None:
    # Flower's ids are random 64-bit integers; float64, to which numpy promotes a list of ints on
    # both sides of 2**63, cannot hold them.
    nodes = [2**53 + 1, 2**62 + 3, 2**63 + 5, 2**64 - 7]
    requests = asked(make(), node_ids=nodes)
    assert [request.metadata.dst_node_id for request in requests] == nodes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature=0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),  # T**2 KL would be inf * 0
        ({"weight_cap": 0.0}, "weight_cap=0"),
        ({"weight_cap": 1.5}, "weight_cap=1.5"),
        ({"fraction": 0.0}, "fraction=0"),
        ({"fraction": 1.1}, "fraction=1.1"),
        ({"negative_share": -0.1}, "negative_share=-0.1"),
        ({"negative_share": 1.0}, "negative_share=1"),
        ({"digest_epochs": -1}, "digest_epochs=-1"),
        ({"discriminator": DiscriminatorRecipe(), "negative_share": 0.0}, "negative_share=0"),
        # 180 * .002 rounds to no negative, 180 * .998 to no example that could be distilled
        ({"discriminator": DiscriminatorRecipe(), "negative_share": 0.002}, "negative_share=0.002"),
        ({"negative_share": 0.998}, "negative_share=0.998"),
        ({"loss": lambda z, y, temperature: z}, r"strategy\.loss gave shape \(24, 4\) for 24 exam"),
    ],
    ids=lambda each: str(each).split(" at 0x")[0],
)
def test_a_number_out_of_range_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_student_that_cannot_be_taught_is_refused() -> None:
    distil = partial(train, epochs=1, batch_size=8, optimizer=torch.optim.LBFGS)
    message = r"strategy\.distil: the student cannot learn from two examples: .*closure"
    with pytest.raises(ValueError, match=message):
        make(distil=distil)
