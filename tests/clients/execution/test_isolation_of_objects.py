"""Objects that keep something between clients are named and put back."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from torch import Tensor, nn

from clients.data import classification
from clients.execution.executor import Place
from clients.execution.isolation import keeps_nothing
from clients.messages.arrays import write_arrays
from clients.messages.requests import (
    PredictionRequest,
    node_id_of,
    write_request,
)
from clients.models import logistic_regression, mlp
from clients.models.factory import parameters_of
from clients.mutual import rules
from clients.mutual.messenger import Messenger
from clients.population.clients import SimulatedClients
from clients.training import loop as training
from clients.training.losses import cross_entropy
from sim.engine.grid import PoolGrid
from sim.workers.pools import Pool
from tests.federations import (
    distillation,
    inline,
    open_pool,
    run_ours,
    simulated,
    student_of,
    tiny_clients,
    trainer,
)
from tests.meddling import CLASSES, SHAPE, assert_same, exchanging, fit, place_of, plain


@pytest.fixture(scope="module")
def pool(pool_kind: str) -> Iterator[Pool]:
    with open_pool(pool_kind, None) as opened:
        yield opened


class Hoarder:
    """Any plug-in that is an object; each call counts, if it is told to."""

    def __init__(self, call: Callable[..., Any], counts: bool) -> None:
        self.call, self.counts = call, counts
        self.kept: dict[str, list[int]] = {"calls": []}
        self.note: Any = lambda: "cannot be pickled"

    def __call__(self, *given: Any, **named: Any) -> Any:
        if self.counts:
            self.kept["calls"].append(len(self.kept["calls"]))
        return self.call(*given, **named)


def growing(hoarder: Hoarder) -> Any:
    """A trainer that trains an epoch longer each time, as an object's method."""
    return partial(hoarder, **trainer().keywords)


def test_an_object_that_keeps_something_is_named_and_put_back() -> None:
    hoarder = Hoarder(training.train, counts=True)
    for _ in range(2):
        said = pytest.raises(ValueError, match="clients.training: Hoarder changed its 'kept' as")
        with said, keeps_nothing(**{"clients.training": growing(hoarder)}):
            hoarder(*_nothing_to_do(), **trainer().keywords)
        assert hoarder.kept == {"calls": []}


@pytest.mark.parametrize(
    "memory",
    [[], {}, np.zeros(1), torch.zeros(1), np.random.default_rng(0)],
    ids=["list", "dict", "array", "tensor", "generator"],
)
def test_what_a_partial_binds_keeps_nothing_either(memory: Any) -> None:
    def remembering(*given: Any, memory: Any, **numbers: Any) -> list[float]:
        if isinstance(memory, list):
            memory.append(1)
        elif isinstance(memory, dict):
            memory[len(memory)] = 1
        elif isinstance(memory, np.random.Generator):
            memory.random()
        else:
            memory += 1
        return training.train(*given, **numbers)

    for each in fit(place_of(partial(remembering, memory=memory)), 2):
        assert "clients.training: remembering changed its 'memory'" in str(each)


@pytest.mark.parametrize("together", [False, True])
def test_a_loss_keeps_nothing_either(together: bool) -> None:
    place = place_of(training.train, together=together)
    assert not together or place._policies.way("own") is not None
    for each in fit(place, 2, loss=Hoarder(cross_entropy, counts=True)):
        assert "loss: Hoarder changed its 'kept'" in str(each)


class Assigning(torch.optim.Optimizer):
    """Plain descent that gives parameters new memory."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data - group["lr"] * parameter.grad


def test_an_optimizer_may_give_parameters_new_memory() -> None:
    numbers = trainer().keywords
    mine = partial(training.train, **(numbers | {"optimizer": partial(Assigning, lr=0.1)}))
    place = Place({"own": logistic_regression}, classification(SHAPE, CLASSES), "cpu", mine, True)
    for found, expected in zip(fit(place, 3), fit(place_of(plain), 3), strict=True):
        assert found.losses == pytest.approx(expected.losses, rel=1e-5)
        for name, value in found.parameters.items():
            np.testing.assert_allclose(value, expected.parameters[name], rtol=1e-4, atol=1e-6)


def turned(model: Any, *given: Any, **numbers: Any) -> list[float]:
    losses = training.train(model, *given, **numbers)
    model.hidden.weight.data = model.hidden.weight.data.t()
    return losses


def shortened(model: Any, *given: Any, **numbers: Any) -> list[float]:
    losses = training.train(model, *given, **numbers)
    model.hidden.weight.data = model.hidden.weight.data[:5]
    return losses


class Square(nn.Module):
    """With a weight that fits its place when it is turned."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.classifier = nn.Linear(16, 16), nn.Linear(16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.classifier(self.hidden(images.flatten(1)).relu())
        return answers


@pytest.mark.parametrize("meddle", [turned, shortened])
def test_another_view_of_the_same_memory_is_not_left_to_the_next(meddle: Any) -> None:
    def one_meddles(model: Any, dataset: Any, indices: Any, *given: Any, **numbers: Any) -> Any:
        train = meddle if indices[0] == 0 else plain
        return train(model, dataset, indices, *given, **numbers)

    _, second = fit(place_of(one_meddles, Square), 2)
    assert_same(second, fit(place_of(plain, Square), 2)[1])


def _nothing_to_do() -> Any:
    clients = tiny_clients()
    private = clients.splits.private
    labels = torch.tensor(private.labels[:8])
    rng = np.random.default_rng(0)
    return logistic_regression(SHAPE, CLASSES), private, np.arange(8), labels, cross_entropy, rng


def test_what_the_block_raises_is_not_hidden_and_the_object_is_put_back_all_the_same() -> None:
    hoarder = Hoarder(len, counts=True)
    with pytest.raises(TypeError), keeps_nothing(loss=hoarder.__call__):
        hoarder(3)
    assert hoarder.kept == {"calls": []}


def labels_of(labels: Any, num_classes: int, client_id: int, server_round: int) -> Any:
    return labels


def small(image_shape: Any, num_classes: int) -> nn.Module:
    return mlp(image_shape, num_classes, hidden=(8,))


PLUGINS: dict[str, tuple[Any, Callable[[Hoarder], dict[str, Any]]]] = {
    "clients.training": (training.train, lambda h: {"train": growing(h)}),
    "clients.condition": (labels_of, lambda h: {"condition": h}),
    "clients.architectures.mlp": (small, lambda h: {"models": {"linear": small, "mlp": h}}),
    "private": (
        torch.optim.SGD,
        lambda h: {"messenger": Messenger(rules.dml, **(pair_numbers() | {"optimizer": sgd(h)}))},
    ),
    "rule": (rules.dml, lambda h: {"messenger": Messenger(h, **pair_numbers())}),
}


def sgd(call: Any) -> Any:
    return partial(call, lr=0.1)


def pair_numbers() -> dict[str, Any]:
    return {"optimizer": partial(torch.optim.SGD, lr=0.1), "epochs": 1, "batch_size": 16}


def request_of(clients: SimulatedClients, averaged: bool) -> tuple[RecordDict, str]:
    """Ask for parameters, or for answers to ten proxy examples."""
    if not averaged:
        return write_request(PredictionRequest(1, 10, CLASSES, np.arange(10))), "train.predictions"
    arrays = write_arrays(parameters_of(student_of(clients)))
    config = ConfigRecord({"server-round": 1})
    return RecordDict({"arrays": arrays, "config": config}), "train"


@pytest.mark.parametrize("key", PLUGINS)
def test_no_client_answers_with_an_object_that_keeps_something(pool: Pool, key: str) -> None:
    call, changes = PLUGINS[key]
    for counts in (False, True):
        clients = tiny_clients(4, **changes(Hoarder(call, counts)))
        pool.load(simulated(clients))
        grid = PoolGrid(pool, clients.architectures, group_size=2)
        grid.begin_round(1)
        content, kind = request_of(clients, averaged=key in ("rule", "private"))
        sent = [Message(content, node_id_of(k), kind) for k in range(4)]
        list(grid.send_and_receive(sent))
        failures = {e.client_id: e.failure for e in grid.exchanges if e.failure}
        if not counts:
            assert failures == {}
            continue
        assert failures.keys() == ({1, 3} if key.endswith("mlp") else {0, 1, 2, 3})
        for failure in failures.values():
            assert f"{key}: Hoarder changed its 'kept'" in failure


def test_a_student_whose_trainer_exchanges_modules_ends_the_run_by_name() -> None:
    clients = tiny_clients()
    strategy = distillation(clients, distil=partial(exchanging, **trainer().keywords))
    said = "strategy.distil: the student's module 'classifier' was Linear and is another"
    with pytest.raises(ValueError, match=said):
        run_ours(inline(simulated(clients)), clients, strategy)
