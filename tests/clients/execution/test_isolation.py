"""Nothing that a client does to what it shares with others reaches them, or is kept quiet."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from torch import Tensor, nn

from clients.app import SimulatedApp
from clients.execution.executor import Lesson, Place, Trained
from clients.execution.isolation import Original, foreign, keeps_nothing
from clients.execution.model_cache import as_tensors
from clients.handlers.screening import fault_of
from clients.messages.arrays import write_arrays
from clients.messages.requests import (
    TRAIN_PREDICTIONS,
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
    student_of,
    tiny_clients,
    trainer,
)

SHAPE, CLASSES = (1, 4, 4), 4


@pytest.fixture(scope="module")
def pool(pool_kind: str) -> Iterator[Pool]:
    with open_pool(pool_kind, None) as opened:
        yield opened


# --- what a trainer does to a network ---


def plain(model: nn.Module, *given: Any, **numbers: Any) -> list[float]:
    return training.train(model, *given, **numbers)


def exchanging(model: Any, *given: Any, **numbers: Any) -> list[float]:
    """Put a copy of a layer where the layer was."""
    model.classifier = copy.deepcopy(model.classifier)
    return training.train(model, *given, **numbers)


def adding(model: Any, *given: Any, **numbers: Any) -> list[float]:
    losses = training.train(model, *given, **numbers)
    model.extra = nn.Linear(2, 2)
    return losses


def removing(model: Any, *given: Any, **numbers: Any) -> list[float]:
    losses = training.train(model, *given, **numbers)
    del model.classifier
    return losses


def hooked(model: Any, *given: Any, **numbers: Any) -> list[float]:
    """Leave hooks behind that double every later answer."""
    losses = training.train(model, *given, **numbers)
    model.register_forward_hook(lambda module, inputs, output: 2 * output)
    model.classifier.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
    return losses


def patched(model: Any, *given: Any, **numbers: Any) -> list[float]:
    losses = training.train(model, *given, **numbers)
    model.forward = lambda images: torch.zeros(len(images), CLASSES)
    return losses


def reassigned(model: Any, *given: Any, **numbers: Any) -> list[float]:
    """Give parameters other memory, and put others in their place."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    losses = training.train(model, *given, **numbers)
    last = list(model.modules())[-1]
    last.bias = nn.Parameter(last.bias.detach().clone())
    return losses


def frozen(model: Any, *given: Any, **numbers: Any) -> list[float]:
    losses = training.train(model, *given, **numbers)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.eval().double()
    return losses


def fit(
    place: Place,
    lessons: int = 1,
    only: int | None = None,
    loss: Any = cross_entropy,
    **changes: Any,
) -> list[Any]:
    """Train so many clients of an architecture, or only one, all from the same start."""
    name = "own"
    clients = tiny_clients()
    start = dict(place.networks.fresh(name, np.random.default_rng(3)).state_dict())
    private = clients.splits.private
    each = [
        Lesson(
            start,
            np.arange(20 * k, 20 * k + 20),
            torch.from_numpy(private.labels[20 * k : 20 * k + 20]),
            np.random.SeedSequence(k),
        )
        for k in range(lessons)
        if only in (None, k)
    ]
    return list(place.fit(name, private, each, loss, **changes))


def place_of(train: Any, model: Any = logistic_regression, together: bool = False) -> Place:
    numbers = trainer().keywords
    bound = partial(train, **numbers) if callable(train) else train
    return Place({"own": model}, SHAPE, CLASSES, "cpu", bound, together)


@pytest.mark.parametrize(
    ("meddle", "said"),
    [
        (exchanging, "'own': module 'classifier' was Linear and is another Linear"),
        (adding, "'own': module 'extra' is new"),
        (removing, "'own': module 'classifier' is gone"),
    ],
)
def test_a_trainer_that_exchanges_modules_is_named_and_the_next_client_is_as_alone(
    meddle: Any, said: str
) -> None:
    def one_meddles(model: Any, dataset: Any, indices: Any, *given: Any, **numbers: Any) -> Any:
        train = meddle if indices[0] == 20 else plain
        return train(model, dataset, indices, *given, **numbers)

    first, second, third = fit(place_of(one_meddles), 3)
    expected = fit(place_of(plain), 3)
    assert str(second).startswith(said)
    for mine, alone in ((first, expected[0]), (third, expected[2])):
        assert_same(mine, alone)


@pytest.mark.parametrize("meddle", [hooked, patched, reassigned, frozen])
def test_what_else_a_trainer_does_to_a_network_is_undone(meddle: Any) -> None:
    place = place_of(meddle)
    found, expected = fit(place, 3), fit(place_of(plain), 3)
    for mine, alone in zip(found, expected, strict=True):
        assert_same(mine, alone)
    network, start = place.networks, as_tensors(expected[0].parameters)
    assert all(parameter.requires_grad for parameter in network.of("own").parameters())
    images = torch.randn(3, *SHAPE)
    answers = [net.loaded("own", start)(images) for net in (network, place_of(plain).networks)]
    assert torch.equal(*answers)


def assert_same(mine: Any, other: Any) -> None:
    assert isinstance(mine, Trained), mine
    assert mine.losses == other.losses
    assert mine.parameters.keys() == other.parameters.keys()
    for name, value in mine.parameters.items():
        np.testing.assert_array_equal(value, other.parameters[name], err_msg=name)


def test_a_layer_of_another_shape_is_named() -> None:
    def wider(model: Any, *given: Any, **numbers: Any) -> list[float]:
        model.classifier.weight = nn.Parameter(torch.zeros(CLASSES, 17))
        return []

    (found,) = fit(place_of(wider))
    assert "'own' was trained to another shape: 'classifier.weight' is" in str(found)


# --- networks that keep something ---


LATE = 12
"""Calls: a group of three is trained in four, and tried in a few before."""


class Counting(nn.Module):
    """Answers larger with every call, by what it keeps in an attribute of some kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = nn.Linear(16, CLASSES)
        self.kind, self.calls, self.seen = kind, 0, [self.layer]
        self.later: nn.Module | None = None
        self.memory = torch.zeros(1)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        if self.kind == "lazy":
            if self.later is None:
                self.later = nn.Linear(CLASSES, CLASSES)
            answers: Tensor = self.later(self.layer(flat))
            return answers
        self.calls += 1
        self.seen.append(self.layer)
        if self.kind == "late":
            late: Tensor = self.layer(flat)
            return 2 * late if self.calls > LATE else late
        self.memory += 1
        kept = {"number": self.calls, "list": len(self.seen), "tensor": self.memory}
        first: Tensor = self.seen[0](flat)
        return kept[self.kind] * first


@pytest.mark.parametrize("kind", ["number", "list", "tensor"])
def test_what_a_network_keeps_in_attributes_is_forgotten_with_the_client(kind: str) -> None:
    model = partial(Counting, kind)
    together = fit(place_of(training.train, model), 3)
    for k, mine in enumerate(together):
        alone = fit(place_of(training.train, model), 3, only=k)
        assert_same(mine, alone[0])


def test_what_a_stacked_network_keeps_is_forgotten_with_the_group() -> None:
    place = place_of(training.train, partial(Counting, "late"), together=True)
    assert place._way("own") is not None
    first, *others = (fit(place, 3) for _ in range(5))
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            assert_same(mine, theirs)


class Growing(nn.Module):
    """Makes a module in a call that comes late."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(16, CLASSES), 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == LATE:
            self.extra = nn.Identity()
        answers: Tensor = self.layer(images.flatten(1))
        return answers


def test_a_network_that_makes_a_module_in_a_stack_is_named() -> None:
    place = place_of(training.train, Growing, together=True)
    assert place._way("own") is not None
    for each in fit(place, 3, epochs=8):
        assert "'own': module 'extra' is new" in str(each)


def test_a_network_that_makes_a_layer_as_it_answers_is_named() -> None:
    place = place_of(training.train, partial(Counting, "lazy"))
    (found,) = fit(place)
    assert "'own': module 'later' is new" in str(found)
    start = dict(place.networks.fresh("own", np.random.default_rng(3)).state_dict())
    for features in (False, True):
        proxy = tiny_clients().splits.proxy
        (answer,) = place.answers("own", [start], proxy, np.arange(5), features=features)
        assert "'own': module 'later' is new" in str(answer)


def test_only_networks_with_code_of_others_are_watched() -> None:
    assert not foreign(mlp((1, 8, 8), 10))
    assert foreign(Counting("number"))
    hooks = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    assert not foreign(hooks)
    hooks[1].register_forward_hook(lambda *given: None)
    assert foreign(hooks)


def test_buffers_and_shared_tensors_are_put_back() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    network[2].weight = network[0].weight
    original = Original(network)
    before = {name: id(tensor) for name, tensor in network.state_dict(keep_vars=True).items()}
    network[1].running_mean = torch.ones(2)
    network[2].weight = nn.Parameter(torch.ones(2, 2))
    assert original.exchanged() is None
    original.put_back()
    assert before == {n: id(t) for n, t in network.state_dict(keep_vars=True).items()}
    assert network[2].weight is network[0].weight


# --- objects that keep something ---


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
    assert not together or place._way("own") is not None
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
    place = Place({"own": logistic_regression}, SHAPE, CLASSES, "cpu", mine, True)
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
    labels = torch.from_numpy(private.labels[:8])
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
    "clients.corruption": (labels_of, lambda h: {"corrupt": h}),
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
        return write_request(PredictionRequest(1, 10, CLASSES, np.arange(10))), TRAIN_PREDICTIONS
    arrays = write_arrays(parameters_of(student_of(clients)))
    config = ConfigRecord({"server-round": 1})
    return RecordDict({"arrays": arrays, "config": config}), "train"


@pytest.mark.parametrize("key", PLUGINS)
def test_no_client_answers_with_an_object_that_keeps_something(pool: Pool, key: str) -> None:
    call, changes = PLUGINS[key]
    for counts in (False, True):
        clients = tiny_clients(4, **changes(Hoarder(call, counts)))
        pool.load(SimulatedApp(clients))
        grid = PoolGrid(pool, clients.architectures, fault_of, group_size=2)
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
        run_ours(inline(SimulatedApp(clients)), clients, strategy)
