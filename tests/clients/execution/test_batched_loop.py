"""Clients trained together against the same clients trained one by one."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import clients.data.loader
from clients import models
from clients.data import Dataset, normalised
from clients.execution.batched_loop import predict_together, train_together
from clients.execution.grouped_layers import KEPT
from clients.execution.model_cache import as_tensors
from clients.execution.policy import way_of
from clients.execution.stack import Stack, Way
from clients.models.factory import Parameters, build, load_parameters, parameters_of
from clients.models.layers import Norm
from clients.training.evaluation import predict
from clients.training.loop import train
from clients.training.losses import cross_entropy, kl

CLASSES = 5
SHAPE = (3, 8, 8)
SGD = partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=1e-3)
ADAM = partial(torch.optim.Adam, lr=1e-3)
WAYS = get_args(Way)

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    name if norm is None else f"{name}-{norm}": build if norm is None else partial(build, norm=norm)
    for name, build in ((name, getattr(models, name)) for name in models.__all__)
    for norm in (get_args(Norm) if "norm" in inspect.signature(build).parameters else (None,))
}

# The same networks with fewer channels, for time.
SLIM: dict[str, dict[str, Any]] = {
    "cnn": {"channels": (4, 8), "hidden": 16},
    "mlp": {"hidden": (16, 16)},
    "vgg9": {"channels": (4, 8, 8, 8, 8, 8), "hidden": (16, 16)},
    "resnet18": {"width": 8},
    "resnet20": {"width": 8},
}


def noise(shape: tuple[int, int, int] = SHAPE, n: int = 120) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    mean, std = (0.5,) * shape[0], (0.3,) * shape[0]
    return Dataset("noise", images, rng.integers(0, CLASSES, n), CLASSES, 1 / 255, mean, std)


NOISE, GREY = noise(), noise((1, 4, 4))

# How far two results may lie apart, relative to the distance moved. Float32 rounds at 6e-8, which
# comes to 1e-6 after these steps; where a rounding carries an activation across the kink of a ReLU
# it comes to 1e-4, and where many batch norms divide few values by a small deviation, to 1e-3 in
# one step and to anything in several. (Rounding the initial parameters once does as much to
# training one by one.) In float64, which rounds at 1e-16, the same distances stay below 1e-10 after
# many steps of every network, so no mistake hides in the tolerance.
FLOAT32, FLOAT32_MOBILE, FLOAT64 = 1e-4, 5e-3, 1e-10


def parts_of(sizes: Sequence[int]) -> list[np.ndarray]:
    order = np.random.default_rng(1).permutation(120)
    return np.split(order, np.cumsum(sizes))[: len(sizes)]


def labels_of(dataset: Dataset, parts: Sequence[np.ndarray]) -> list[Tensor]:
    return [torch.from_numpy(dataset.labels[own]) for own in parts]


def built(name: str, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> nn.Module:
    slim = partial(BUILDERS[name], **SLIM.get(name.split("-")[0], {}))
    return build(slim, shape, CLASSES, np.random.default_rng(seed))


def distance(one: Parameters, other: Parameters) -> float:
    """L2 distance over all parameters and buffers."""
    squares = (np.square(one[n].astype(float) - other[n].astype(float)).sum() for n in one)
    return float(np.sqrt(sum(squares)))


class Both:
    """The same training one by one and together."""

    def __init__(
        self,
        model: nn.Module,
        way: Way,
        sizes: Sequence[int],
        *,
        dataset: Dataset = NOISE,
        starts: Sequence[Parameters] | None = None,
        targets: Sequence[Tensor] | None = None,
        loss: Any = cross_entropy,
        room: int | None = None,
        **changes: Any,
    ) -> None:
        numbers = {"epochs": 2, "batch_size": 8, "optimizer": SGD} | changes
        parts = parts_of(sizes)
        labels = labels_of(dataset, parts) if targets is None else targets
        first = parameters_of(model)
        self.starts = [first] * len(sizes) if starts is None else starts
        self.alone: list[Parameters] = []
        self.losses_alone: list[Any] = []
        rngs = [np.random.default_rng(k) for k in range(len(sizes))]
        for own, its_targets, start, rng in zip(parts, labels, self.starts, rngs, strict=True):
            load_parameters(model, start)
            try:
                losses: Any = train(model, dataset, own, its_targets, loss, rng, **numbers)
            except (FloatingPointError, ValueError) as error:
                losses = error
            self.losses_alone.append(losses)
            self.alone.append(parameters_of(model))
        load_parameters(model, first)
        self.stack = Stack(model, len(sizes) if room is None else room, way)
        if starts is None:
            self.stack.load_all(as_tensors(first))
        else:
            for k, start in enumerate(starts):
                self.stack.load(k, as_tensors(start))
        again = [np.random.default_rng(k) for k in range(len(sizes))]
        self.losses = train_together(self.stack, dataset, parts, labels, loss, again, **numbers)
        self.together = [self.stack.parameters_of(k) for k in range(len(sizes))]
        self.rngs_agree = [
            a.bit_generator.state == b.bit_generator.state for a, b in zip(rngs, again, strict=True)
        ]

    def errors(self) -> list[float]:
        """Distance between the two results, relative to the distance moved, of each client."""
        return [
            distance(mine, theirs) / (distance(theirs, start) or 1.0)
            for mine, theirs, start in zip(self.together, self.alone, self.starts, strict=True)
        ]

    def agree(self, tolerance: float) -> bool:
        """Whether parameters, buffers, losses and generators do."""
        np.testing.assert_allclose(self.losses, self.losses_alone, rtol=tolerance)
        return max(self.errors()) < tolerance and all(self.rngs_agree)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a worker; where others want the second core too, waiting for it takes the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are given float64 inputs."""

    def double(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
        return normalised(dataset, indices).astype(np.float64)

    monkeypatch.setattr(clients.data.loader, "normalised", double)


# --- equality for every model of the zoo ---

UNEQUAL = [17, 12, 9, 2]  # steps 2, 2, 1 (8 + a remainder of one), 1: padding and standing still


@pytest.mark.parametrize("name", BUILDERS)
def test_together_is_one_by_one(name: str) -> None:
    model = built(name)
    mobile = "mobilenet" in name or "shufflenet" in name
    for way in WAYS:
        if mobile:
            both = Both(model, way, [16, 12], epochs=1, batch_size=16)
        else:
            both = Both(model, way, UNEQUAL)
        assert both.agree(FLOAT32_MOBILE if mobile else FLOAT32), both.errors()


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.usefixtures("in_double")
def test_the_difference_is_rounding(name: str) -> None:
    model = built(name).double()
    for way in WAYS:
        both = Both(model, way, UNEQUAL)
        assert both.agree(FLOAT64), both.errors()
        counters = [n for n in both.alone[0] if n.endswith("num_batches_tracked")]
        assert len(counters) > 0 or not name.endswith("batch")
        for mine, theirs in zip(both.together, both.alone, strict=True):
            assert all(mine[n] == theirs[n] for n in counters)


# --- every number of `train` ---


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["mlp", "lenet5", "resnet8-batch"])
@pytest.mark.parametrize(
    ("sizes", "changes"),
    [
        ([17, 12, 9, 2], {"optimizer": ADAM}),
        ([3, 20, 9], {"optimizer": partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1)}),
        ([9, 4], {"optimizer": partial(torch.optim.RMSprop, lr=1e-4)}),  # through its object
        ([2, 20, 9, 1, 17], {}),  # the longest in the middle: others stand still on both sides
        ([20, 9, 2], {"optimizer": partial(torch.optim.SGD, lr=0.05)}),  # stepped on the first few
        ([20, 9, 2], {"optimizer": partial(torch.optim.SGD, lr=0.05, weight_decay=0.1)}),
        ([9], {}),
        ([17, 5], {"max_grad_norm": 0.1}),
        ([17, 5], {"max_grad_norm": float("inf")}),
        ([12, 12, 12], {"batch_size": 6, "epochs": 1}),  # nothing is padded
        ([5, 3], {"batch_size": 100, "epochs": 3}),
        ([5, 3], {"epochs": 0}),
    ],
    ids=str,
)
@pytest.mark.usefixtures("in_double")
def test_every_number_of_train(
    name: str, way: Way, sizes: list[int], changes: dict[str, Any]
) -> None:
    both = Both(built(name).double(), way, sizes, **changes)
    assert both.agree(1e-8), both.errors()  # Adam divides by gradients that may be tiny


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["mlp", "lenet5", "resnet8-batch"])
def test_half_precision_is_that_of_one_by_one(name: str, way: Way) -> None:
    both = Both(built(name), way, [16, 9], autocast="bfloat16", epochs=1)
    assert both.agree(0.1), both.errors()  # bfloat16 rounds at 4e-3, and in another order
    full = Both(built(name), way, [16, 9], epochs=1)
    assert distance(full.together[0], both.together[0]) > 0


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    batch_size=st.integers(1, 9),
    epochs=st.integers(0, 3),
    way=st.sampled_from(WAYS),
)
def test_masks_leave_no_trace(sizes: list[int], batch_size: int, epochs: int, way: Way) -> None:
    numbers: Any = {"batch_size": batch_size, "epochs": epochs, "dataset": GREY}
    both = Both(built("mlp", (1, 4, 4)), way, sizes, **numbers)
    assert both.agree(FLOAT32), both.errors()


@pytest.mark.parametrize("way", WAYS)
def test_soft_labels(way: Way) -> None:
    rng = np.random.default_rng(3)
    targets = [torch.from_numpy(rng.dirichlet(np.ones(CLASSES), n)).float() for n in (17, 6)]
    loss = partial(kl, temperature=2.0)
    both = Both(built("lenet5"), way, [17, 6], targets=targets, loss=loss)
    assert both.agree(FLOAT32), both.errors()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["mlp", "resnet8-batch"])
def test_permuted_members_give_permuted_results(name: str, way: Way) -> None:
    model = built(name)
    parts, order = parts_of([17, 12, 9, 2]), [2, 0, 3, 1]
    ends = []
    for members in (range(4), order):
        stack = Stack(model, 4, way)
        for place, k in enumerate(members):
            stack.load(place, as_tensors(parameters_of(built(name, seed=k))))
        mine = [parts[k] for k in members]
        rngs = [np.random.default_rng(k) for k in members]
        train_together(
            stack,
            NOISE,
            mine,
            labels_of(NOISE, mine),
            cross_entropy,
            rngs,
            epochs=2,
            batch_size=8,
            optimizer=SGD,
        )
        ends.append([stack.parameters_of(place) for place in range(4)])
    for place, k in enumerate(order):
        moved = distance(ends[0][k], parameters_of(built(name, seed=k)))
        assert distance(ends[1][place], ends[0][k]) < FLOAT32 * moved


# --- trouble of one client ---


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "factor"), [("mlp", 1e30), ("resnet8-batch", np.nan)])
def test_a_client_that_diverges_harms_nobody(name: str, factor: float, way: Way) -> None:
    model = built(name)
    start = parameters_of(model)
    bad = {n: v * np.float32(factor) if v.dtype == np.float32 else v for n, v in start.items()}
    both = Both(model, way, [17, 12, 9], starts=[start, bad, start])
    assert isinstance(both.losses[1], FloatingPointError)
    assert str(both.losses[1]) == str(both.losses_alone[1])
    assert "epoch 1 of 2" in str(both.losses[1])
    for k in (0, 2):
        np.testing.assert_allclose(both.losses[k], both.losses_alone[k], rtol=FLOAT32)
        assert both.errors()[k] < FLOAT32


def test_a_last_step_that_overflows_is_reported() -> None:
    # The loss is finite, the step of rate 3e38 along a gradient of about a thousand is not.
    def thousandfold(logits: Tensor, labels: Tensor) -> Tensor:
        return 1e3 * cross_entropy(logits, labels)

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    sgd = partial(torch.optim.SGD, lr=3e38)
    for way in WAYS:
        both = Both(model, way, [4, 4], dataset=GREY, loss=thousandfold, epochs=1, optimizer=sgd)
        for mine, theirs in zip(both.losses, both.losses_alone, strict=True):
            assert isinstance(theirs, FloatingPointError)
            assert str(mine) == str(theirs)
            assert "last step" in str(mine)


def test_huge_parameters_are_finite() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    stack = Stack(model, 2, "wide")
    huge = {n: np.full_like(v, 3e38) for n, v in parameters_of(model).items()}
    stack.load(0, as_tensors(huge))
    broken = huge | {"1.bias": np.full(CLASSES, np.nan, np.float32)}
    stack.load(1, as_tensors(broken))
    assert stack.finite(2).tolist() == [True, False]


@pytest.mark.parametrize("way", WAYS)
def test_a_single_value_per_channel_is_refused_as_alone(way: Way) -> None:
    layers = [nn.Conv2d(1, 4, 4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, CLASSES)]
    both = Both(nn.Sequential(*layers), way, [8, 1, 5], dataset=GREY)
    assert isinstance(both.losses_alone[1], ValueError)
    assert isinstance(both.losses[1], ValueError)
    assert both.errors()[0] < FLOAT32
    assert both.errors()[2] < FLOAT32
    alone = Both(nn.Sequential(*layers), way, [1, 1], dataset=GREY)
    assert all(isinstance(outcome, ValueError) for outcome in alone.losses)


def test_bad_input_is_refused_by_name() -> None:
    stack = Stack(built("mlp"), 1, "wide")
    parts = parts_of([4, 4])
    numbers: Any = {"epochs": 1, "batch_size": 2, "optimizer": SGD}
    rngs = [np.random.default_rng(0)]
    with pytest.raises(ValueError, match="2 clients for a stack of 1"):
        train_together(
            stack, NOISE, parts, labels_of(NOISE, parts), cross_entropy, rngs * 2, **numbers
        )
    labels = labels_of(NOISE, [parts[0][:0]])
    with pytest.raises(ValueError, match="no examples"):
        train_together(stack, NOISE, [parts[0][:0]], labels, cross_entropy, rngs, **numbers)
    with pytest.raises(ValueError, match=r"do not fit.*'features.1.weight'"):
        stack.load_all(as_tensors(parameters_of(built("logistic_regression"))))
    with pytest.raises(ValueError, match="size=0"):
        Stack(built("mlp"), 0, "wide")
    with pytest.raises(ValueError, match="no inputs"):
        predict_together(stack, 1, NOISE, parts[0][:0])


# --- the stack ---


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["cnn", "resnet8-batch"])
def test_arrays_come_back_as_they_went_in(name: str, way: Way) -> None:
    stack = Stack(built(name), 3, way)
    given = [parameters_of(built(name, seed=k)) for k in range(3)]
    for k, parameters in enumerate(given):
        for array in parameters.values():
            array.flags.writeable = False
        stack.load(k, as_tensors(parameters))
    for k, parameters in enumerate(given):
        back = stack.parameters_of(k)
        assert list(back) == list(parameters)
        for n, array in parameters.items():
            assert (back[n].dtype, back[n].shape) == (array.dtype, array.shape)
            assert back[n].tobytes() == array.tobytes()


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_a_client_survives_into_the_next_use(way: Way) -> None:
    model = built("resnet8-batch")
    used = Both(
        model,
        way,
        [17, 12, 9],
        starts=[parameters_of(built("resnet8-batch", seed=k)) for k in (1, 2, 3)],
    )
    fresh = Both(model, way, [9, 5], room=3)
    parts = parts_of([9, 5])
    stack = used.stack
    stack.load_all(as_tensors(parameters_of(model)))
    rngs = [np.random.default_rng(k) for k in range(2)]
    labels = labels_of(NOISE, parts)
    numbers: Any = {"epochs": 2, "batch_size": 8, "optimizer": SGD}
    losses = train_together(stack, NOISE, parts, labels, cross_entropy, rngs, **numbers)
    assert losses == fresh.losses
    for k in range(2):
        mine, theirs = stack.parameters_of(k), fresh.together[k]
        assert all(mine[n].tobytes() == theirs[n].tobytes() for n in theirs)
    untouched = stack.parameters_of(2)
    assert all(untouched[n].tobytes() == v.tobytes() for n, v in parameters_of(model).items())


def test_training_leaves_model_and_global_generator_alone() -> None:
    model = built("resnet8-batch").eval()
    before, state = parameters_of(model), torch.get_rng_state()
    stack = Stack(model, 2, "wide")
    stack.load_all(as_tensors(before))
    parts = parts_of([8, 8])
    rngs = [np.random.default_rng(k) for k in range(2)]
    numbers: Any = {"epochs": 1, "batch_size": 4, "optimizer": SGD}
    train_together(stack, NOISE, parts, labels_of(NOISE, parts), cross_entropy, rngs, **numbers)
    after = parameters_of(model)
    assert all(after[n].tobytes() == before[n].tobytes() for n in before)
    assert not any(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "options", [{"momentum": None}, {"track_running_stats": False}, {"affine": False}], ids=str
)
def test_every_kind_of_batch_norm(options: dict[str, Any], way: Way) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, **options)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, CLASSES)
    )
    both = Both(model, way, UNEQUAL)
    assert both.agree(FLOAT32), both.errors()
    equal = Both(model, way, [8, 8])
    assert equal.agree(FLOAT32), equal.errors()


@pytest.mark.parametrize("layer", KEPT)
def test_layers_kept_as_they_are_keep_clients_apart(layer: type[nn.Module]) -> None:
    torch.manual_seed(0)
    needs = {"MaxPool2d": 2, "AvgPool2d": 2, "AdaptiveAvgPool2d": 3, "AdaptiveMaxPool2d": 3}
    kept = layer(needs[layer.__name__]) if layer.__name__ in needs else layer()
    size = 9 if layer.__name__ in needs else 36
    layers = [nn.Conv2d(3, 4, 3), kept, nn.Flatten(), nn.Linear(4 * size, CLASSES)]
    both = Both(nn.Sequential(*layers), "wide", UNEQUAL)
    assert both.agree(FLOAT32), both.errors()


@pytest.mark.parametrize("way", WAYS)
def test_frozen_parameters_stay(way: Way) -> None:
    model = built("mlp")
    model[0][1].weight.requires_grad_(False)
    both = Both(model, way, UNEQUAL)
    assert both.agree(FLOAT32), both.errors()
    assert np.array_equal(
        both.together[0]["features.1.weight"], both.starts[0]["features.1.weight"]
    )


# --- prediction ---


@pytest.mark.parametrize("name", BUILDERS)
def test_predictions_together_are_those_of_each(name: str) -> None:
    model = built(name)
    trained = [built(name, seed=k) for k in range(3)]
    for network in trained:  # so that running statistics differ, too
        own = np.arange(16)
        labels = torch.from_numpy(NOISE.labels[own])
        numbers: Any = {"epochs": 1, "batch_size": 16, "optimizer": SGD}
        train(network, NOISE, own, labels, cross_entropy, np.random.default_rng(0), **numbers)
    for way in WAYS:
        stack = Stack(model, 4, way)
        for k, network in enumerate(trained):
            stack.load(k, as_tensors(parameters_of(network)))
        logits = predict_together(stack, 3, NOISE, np.arange(30, 53), batch_size=10)
        assert logits.shape == (3, 23, CLASSES)
        assert logits.dtype == torch.float32
        for k, network in enumerate(trained):
            alone = predict(network, NOISE, np.arange(30, 53), batch_size=10)
            torch.testing.assert_close(logits[k], alone, rtol=1e-4, atol=1e-5)


# --- what decides ---


class Gated(nn.Module):
    """Its answer to an example depends on the others of the batch, once the gain is not zero."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))
        self.linear = nn.Linear(16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        return self.linear(x + self.gain * (x - x.mean(0)))


@pytest.mark.parametrize(
    ("model", "optimizer", "expected"),
    [
        (lambda: built("mlp"), SGD, ("wide", "all its layers can be widened")),
        (lambda: built("lenet5"), SGD, ("wide", "all its layers")),
        (lambda: built("resnet20-batch"), SGD, (None, "convolutions of 32 channels")),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.PReLU()), SGD, ("vmap", "PReLU")),
        (Gated, SGD, (None, "depends on the others of the batch")),
        (lambda: nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(16, 5)), SGD, (None, "Drop")),
        (lambda: built("mlp"), torch.optim.LBFGS, (None, "LBFGS does not update each number")),
        (
            lambda: nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()
            ),
            SGD,
            (None, "BatchNorm2d answers by the batch's own"),
        ),
    ],
)
def test_the_way_and_its_reason(
    model: Callable[[], nn.Module], optimizer: Any, expected: tuple[Way | None, str]
) -> None:
    network = model()
    shape = SHAPE if any("features" in name for name, _ in network.named_modules()) else (1, 4, 4)
    way, reason = way_of(network, shape, optimizer)
    assert way == expected[0], reason
    assert expected[1] in reason
