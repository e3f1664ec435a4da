"""A function that is asked about a network: what it gets, what it may return, what it leaves."""

import copy
import math
import re
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clients.data import Dataset, classification, dense_labelling, normalised
from clients.handlers.function_probes import NetworkProbe, numbers_of
from clients.models.factory import parameters_of
from clients.population.clients import SimulatedClients
from tests.federations import student_of, tiny_clients


@pytest.fixture(scope="module")
def clients() -> SimulatedClients:
    return tiny_clients(2)


class Normed(nn.Module):
    """Has running statistics, which it changes in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.head(self.norm(images.flatten(1)))
        return answers


def asked(
    clients: SimulatedClients, of: Any, network: Any = None, *about: Any, **changes: Any
) -> Any:
    probe = replace(NetworkProbe("mine", of, clients.splits.test), **changes)
    network = student_of(clients) if network is None else network
    return numbers_of(probe, network, clients, *(about or (1, 0)))


# --- what it gets ---


def test_the_network_is_in_eval_mode_and_inputs_can_have_gradients(
    clients: SimulatedClients,
) -> None:
    test, seen = clients.splits.test, list[Any]()

    def looking(network: Any, inputs: Any, labels: Any) -> dict[str, Any]:
        seen.extend([network.training, inputs, labels])
        (gradient,) = torch.autograd.grad(network(inputs.requires_grad_()).sum(), inputs)
        return {"gradient": gradient.abs().sum(), "right": np.float32(0.5), "all": True, "n": 3}

    with torch.no_grad():  # whatever surrounds it
        found = asked(clients, looking)
    assert not seen[0]
    assert np.array_equal(seen[1].detach().numpy(), normalised(test, np.arange(len(test))))
    assert seen[2].tolist() == test.labels.tolist()
    weights = student_of(clients).state_dict()["classifier.weight"]
    assert found["gradient"] == pytest.approx(
        len(test) * float(weights.sum(0).abs().sum()), rel=1e-5
    )
    assert (found["right"], found["all"], found["n"]) == (0.5, 1.0, 3.0)
    assert {type(value) for value in found.values()} == {float}
    asked(clients, looking, labelled=False)
    assert seen[-1] is None


def test_it_gets_what_it_names_and_draws_of_its_own(clients: SimulatedClients) -> None:
    seen = list[Any]()

    def naming(network: Any, inputs: Any, labels: Any, **_: Any) -> dict[str, Any]:
        return {}

    def all_of(
        network: Any,
        inputs: Any,
        labels: Any,
        rng: Any,
        client_id: Any,
        *,
        server_round: Any,
        task: Any,
    ) -> dict[str, Any]:
        seen.append((client_id, server_round))
        assert task is clients.splits.private.task
        return {"drawn": rng.random()}

    assert asked(clients, naming) == {}
    pairs = [(1, 0), (2, 0), (1, 1), (1, None), (1, 0)]
    *drawn, again = (asked(clients, all_of, None, *pair)["drawn"] for pair in pairs)
    assert seen == [(client_id, server_round) for server_round, client_id in pairs]
    assert len({*drawn}) == 4
    assert again == drawn[0]
    assert asked(clients, all_of, name="other")["drawn"] not in drawn


def test_tokens_and_labels_of_pixels_come_as_the_task_has_them(clients: SimulatedClients) -> None:
    words, own = np.array([[0, 2], [1, 1], [8, 3]], np.uint8), classification((2,), 2, num_tokens=9)
    tokens = Dataset("words", words, np.array([0, 1, 1]), own)
    pixels = np.array([[[0, -1], [1, 2]]])
    image = np.zeros((1, 1, 2, 2), np.float32)
    dense = Dataset("pixels", image, pixels, dense_labelling((1, 2, 2), 3), 1.0, (0.0,), (1.0,))

    def first(network: Any, inputs: Any, labels: Any) -> dict[str, Any]:
        assert labels.dtype == torch.int64
        whole = inputs.dtype == torch.int64
        return {"shape": network(inputs).shape[-1], "whole": whole, "sum": labels.sum()}

    found = asked(clients, first, nn.Embedding(9, 5), examples=tokens)
    assert found == {"shape": 5, "whole": True, "sum": 2}
    found = asked(clients, first, nn.Conv2d(1, 3, 1), examples=dense)
    assert found == {"shape": 2, "whole": False, "sum": 2}

    def against(network: Any, inputs: Any, labels: Any) -> dict[str, Any]:
        return {"step": inputs.requires_grad_().sum()}

    with pytest.raises(RuntimeError, match=r"probes\.mine: RuntimeError: only Tensors of floating"):
        asked(clients, against, nn.Embedding(9, 5), examples=tokens)


# --- what it leaves ---


def test_whatever_it_does_to_the_network_is_undone(clients: SimulatedClients) -> None:
    network = Normed()
    network.head.weight.grad = torch.ones(4, 16)
    before, shape = copy.deepcopy(network), list(network.modules())

    def meddling(network: Any, inputs: Any, labels: Any) -> dict[str, Any]:
        network.train()
        network(inputs).square().mean().backward()
        assert float(network.head.weight.grad.abs().max()) != 1.0  # those before are not added to
        network.head.weight.data.zero_()
        network.head.bias.data = torch.ones(4)
        network.head.weight.requires_grad_(False)
        network.register_forward_hook(lambda *_: torch.zeros(1))
        network.kept = inputs
        return {}

    asked(clients, meddling, network)
    assert list(network.modules()) == shape
    for name, value in parameters_of(before).items():
        np.testing.assert_array_equal(parameters_of(network)[name], value, err_msg=name)
    assert (network.training, network.head.weight.requires_grad) == (True, True)
    assert torch.equal(network.head.weight.grad, torch.ones(4, 16))
    assert network.head.bias.grad is None
    assert not network._forward_hooks
    assert not hasattr(network, "kept")

    def failing(network: Any, inputs: Any, labels: Any) -> dict[str, Any]:
        meddling(network, inputs, labels)
        raise KeyError("here")

    with pytest.raises(RuntimeError, match=r"^probes\.mine: KeyError: 'here'$"):
        asked(clients, failing, network)
    assert torch.equal(network.head.weight, before.head.weight)


def test_modules_may_not_be_exchanged_and_nothing_kept(clients: SimulatedClients) -> None:
    def exchanging(network: Any, inputs: Any, labels: Any) -> dict[str, Any]:
        network.head = nn.Linear(16, 4)
        return {}

    with pytest.raises(
        RuntimeError, match=r"mine: ValueError: it changed its network: .*'head' was"
    ):
        asked(clients, exchanging, Normed())
    with pytest.raises(
        RuntimeError, match=r"probes\.mine: ValueError: of: Hoarding changed its 'l"
    ):
        asked(clients, Hoarding())
    with pytest.raises(RuntimeError, match="changed its 'seen'"):
        asked(clients, partial(appending, seen=[]))


class Hoarding:
    """Remembers how often it was asked."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self, network: Any, inputs: Any, labels: Any) -> dict[str, Any]:
        self.looks += 1
        return {"looks": self.looks}


def appending(network: Any, inputs: Any, labels: Any, *, seen: list[int]) -> dict[str, Any]:
    seen.append(1)
    return {"looks": len(seen)}


# --- what it may return ---


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (3.0, "probes.mine: returns float, expected a dict of numbers"),
        ({"a": math.nan}, "probes.mine: value 'a' is nan, expected a finite number"),
        ({"a": torch.tensor(math.inf)}, "probes.mine: value 'a' is inf, expected a finite number"),
        ({"a": torch.ones(1)}, "value 'a': Tensor of shape (1,), expected a number"),
        ({"a": "much"}, "value 'a': str of shape (), expected a number"),
        ({"a": None}, "value 'a': NoneType of shape (), expected a number"),
        ({"a/b": 1.0}, "value 'a/b': expected a name of letters"),
        ({3: 1.0}, "value 3: expected a name of letters"),
    ],
)
def test_what_is_no_dict_of_named_numbers_is_refused(
    clients: SimulatedClients, found: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        asked(clients, lambda network, inputs, labels: found)


def test_in_a_rehearsal_a_number_need_not_be_finite(clients: SimulatedClients) -> None:
    found = asked(clients, lambda network, inputs, labels: {"a": math.nan}, None, 0, None)
    assert math.isnan(found["a"])
