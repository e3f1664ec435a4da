"""Labels under a condition are learned: soft ones, none, one by one and together."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from clients.data.label_losses import cross_entropy, cross_entropy_of_labelled
from clients.execution.executor import Trained
from clients.execution.model_cache import as_tensors
from clients.models.factory import Parameters, parameters_of
from clients.mutual import rules
from clients.mutual.messenger import Messenger
from clients.population.clients import SimulatedClients
from clients.population.label_conditions import (
    coarse_labels,
    label_free,
    permuted_labels,
    symmetric_noise,
    taggers,
)
from clients.population.rehearsal import rehearse
from clients.training.objective import not_true, proximal
from strategies.server.averaging import Averaging
from tests.federations import (
    distillation,
    open_pool,
    run_ours,
    simulated,
    student_of,
    tiny_clients,
)

LIKE = {"architectures": ["linear"] * 4}
VOTES = partial(taggers, beta=[6, 2], votes=3)


def learned(condition: Any, **changes: Any) -> tuple[SimulatedClients, list[Trained]]:
    """Train four clients of one architecture from the same start."""
    clients = tiny_clients(4, condition=condition, **{**LIKE, **changes})
    start = as_tensors(parameters_of(student_of(clients)))
    found = list(clients.train(range(4), [start] * 4, 1, "cpu"))
    return clients, [each for each in found if isinstance(each, Trained)]


def assert_close(one: Parameters, other: Parameters, atol: float = 1e-5) -> None:
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], atol=atol)


# --- the loss ---


def test_what_is_not_labelled_costs_nothing_and_has_no_gradient() -> None:
    logits = torch.tensor([[1.0, 2, 3], [4, 0, 1], [0, 0, 5]], requires_grad=True)
    labels = torch.tensor([2, -1, 0])
    found = cross_entropy_of_labelled(logits, labels)
    plain = cross_entropy(logits[[0, 2]], labels[[0, 2]])
    assert found.tolist() == [plain[0].item(), 0.0, plain[1].item()]
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert gradient[1].tolist() == [0.0] * 3
    assert gradient[0].abs().sum() > 0


def test_soft_labels_cost_the_mean_of_what_each_class_costs() -> None:
    logits, soft = torch.tensor([[1.0, 2, 3]]), torch.tensor([[0.25, 0.0, 0.75]])
    each = [float(cross_entropy(logits, torch.tensor([label]))) for label in range(3)]
    found = float(cross_entropy_of_labelled(logits, soft))
    assert found == pytest.approx(0.25 * each[0] + 0.75 * each[2], rel=1e-6)


# --- local training ---


@pytest.mark.parametrize("objective", [None, proximal(0.5)], ids=["labels", "proximal"])
def test_soft_labels_are_learned_together_as_one_by_one(objective: Any) -> None:
    clients, together = learned(VOTES, objective=objective)
    _, alone = learned(VOTES, objective=objective, together=False)
    assert clients.place("cpu")._policies.way("linear") is not None
    assert clients.run_notes() == []
    for one, other in zip(together, alone, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-5)
        assert_close(one.parameters, other.parameters)
    _, plain = learned(None, objective=objective)
    assert max(np.abs(value - plain[0].parameters[name]).max()
               for name, value in together[0].parameters.items()) > 1e-3  # fmt: skip


def test_a_class_alone_in_its_group_is_learned_as_its_label() -> None:
    """Soft labels with one 1 in each row are those labels."""
    _, soft = learned(partial(coarse_labels, groups=[]))
    _, hard = learned(None)
    for one, other in zip(soft, hard, strict=True):
        assert_close(one.parameters, other.parameters, atol=1e-6)


@pytest.mark.parametrize("together", [True, False])
def test_who_has_no_labels_stays_as_it_was_and_others_learn_what_they_did(together: bool) -> None:
    clients, found = learned(partial(label_free, clients=[1, 3]), together=together)
    _, plain = learned(None, together=together)
    start = parameters_of(student_of(clients))
    for client_id, each in enumerate(found):
        expected = start if client_id in (1, 3) else plain[client_id].parameters
        for name, value in expected.items():
            np.testing.assert_array_equal(each.parameters[name], value)
        losses = [0.0, 0.0] if client_id in (1, 3) else plain[client_id].losses
        assert each.losses == losses


def test_labels_that_stay_classes_give_the_bits_of_these_classes() -> None:
    """The loss that leaves out what is not labelled is else the same."""
    _, moved = learned(partial(permuted_labels, clients=[2]))
    clients = tiny_clients(4, **LIKE)
    private = clients.splits.private
    labels, own = private.labels.copy(), clients.partitions[2]
    labels[own] = (labels[own] + 1) % 4
    moved_too = replace(clients.splits, private=replace(private, labels=labels))
    clients = tiny_clients(4, **LIKE | {"splits": moved_too})
    start = as_tensors(parameters_of(student_of(clients)))
    for one, other in zip(moved, clients.train(range(4), [start] * 4, 1, "cpu"), strict=True):
        assert isinstance(other, Trained)
        for name, value in one.parameters.items():
            np.testing.assert_array_equal(value, other.parameters[name])


def test_labels_are_the_same_in_every_round_and_others_for_another_client() -> None:
    clients = tiny_clients(5, [np.arange(60)] * 5, condition=partial(symmetric_noise, share=0.5))
    first = clients.labels(0, 1)
    assert (first != clients.splits.private.labels[:60]).any()
    np.testing.assert_array_equal(first, clients.labels(0, 9))
    assert (first != clients.labels(1, 1)).any()


# --- methods that want classes ---


def some(labels: Any, num_classes: int, client_id: int, server_round: int) -> Any:
    return np.where(np.arange(len(labels)) % 2, labels, -1)


@pytest.mark.parametrize("condition", [VOTES, some, partial(label_free, clients=[0])],
                         ids=["soft", "some", "none"])  # fmt: skip
def test_a_method_that_takes_classes_refuses_labels_that_are_none(condition: Any) -> None:
    clients = tiny_clients(4, condition=condition)
    with pytest.raises(ValueError, match=r"clients\.condition: its labels are soft or not there"):
        clients.classes(0, 1)
    noisy = tiny_clients(4, condition=partial(symmetric_noise, share=0.5))
    np.testing.assert_array_equal(noisy.classes(0, 1), noisy.labels(0, 1))


def test_an_objective_that_takes_classes_is_refused_before_anybody_trains() -> None:
    with pytest.raises(ValueError, match="cannot learn from two .* not_true: labels are soft"):
        rehearse(tiny_clients(4, condition=VOTES, objective=not_true()))
    rehearse(tiny_clients(4, condition=VOTES))
    rehearse(tiny_clients(4, condition=partial(label_free, clients=[0, 1])))


def none(labels: Any, num_classes: int, client_id: int, server_round: int) -> Any:
    return np.full_like(labels, -1)


def later(labels: Any, num_classes: int, client_id: int, server_round: int) -> Any:
    return np.where(server_round > 5, labels, -1)


def test_a_condition_that_leaves_nobody_a_label_is_refused() -> None:
    """All were at chance after a whole run."""
    for condition in (none, partial(label_free, clients=[0, 1, 2, 3])):
        with pytest.raises(
            ValueError, match="gives each of 4 clients -1, no label, for all of its"
        ):
            rehearse(tiny_clients(4, condition=condition))
    rehearse(tiny_clients(4, condition=later))
    untaught = tiny_clients(4, condition=none)
    rehearse(untaught, local_training=False)
    rehearse(tiny_clients(4, condition=none, train=partial(unlabelled, epochs=1)))


def unlabelled(*what: Any, **numbers: Any) -> list[float]:
    """Train without a look at labels."""
    return [0.0]


def odd(labels: Any, num_classes: int, client_id: int, server_round: int) -> Any:
    return labels + 2


def test_a_condition_is_tried_before_anybody_trains() -> None:
    with pytest.raises(ValueError, match=r"clients\.condition: labels lie in 2\.\.5, expected 0"):
        rehearse(tiny_clients(condition=odd))


# --- other ways to learn ---


def drifted(clients: SimulatedClients, kind: str) -> str:
    strategy = distillation(clients)
    with open_pool(kind, simulated(clients, strategy)) as pool:
        return run_ours(pool, clients, strategy, rounds=2).sha256


def test_both_pools_learn_the_same_labels() -> None:
    clients = tiny_clients(condition=VOTES)
    inline = drifted(clients, "inline")
    assert inline == drifted(clients, "ray")
    assert inline != drifted(tiny_clients(), "inline")


def test_a_messenger_learns_what_the_condition_says() -> None:
    how = Messenger(rules.dml, partial(torch.optim.SGD, lr=0.1), epochs=1, batch_size=16)

    def sent(condition: Callable[..., Any] | None) -> Any:
        clients = tiny_clients(4, condition=condition, messenger=how)
        with open_pool("inline", simulated(clients)) as pool:
            return run_ours(pool, clients, Averaging(seed=7), rounds=1).parameters

    plain, soft = sent(None), sent(VOTES)
    assert any((plain[name] != soft[name]).any() for name in plain)
    assert_close(plain, sent(partial(coarse_labels, groups=[])), atol=0)
