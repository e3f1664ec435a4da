"""Several networks answer as each does by itself."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.data import classification, normalised
from clients.execution.executor import Lesson, Place
from clients.execution.model_cache import as_tensors
from clients.models import mlp
from clients.training.evaluation import predict
from clients.training.losses import cross_entropy
from tests.federations import tiny_clients, trainer


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
@pytest.mark.parametrize("taps", [(), ("penultimate",)], ids=["alone", "tapped"])
def test_several_answer_as_each_does_in_eval_mode(kind: Any, taps: tuple[str, ...]) -> None:
    splits = tiny_clients().splits
    place = Place({"net": kind}, classification((1, 4, 4), 4), "cpu", trainer(), together=True)
    own, labels = np.arange(16), torch.tensor(splits.private.labels[:16])
    starts = []
    for seed in range(3):
        start = dict(place.networks.fresh("net", np.random.default_rng(seed)).state_dict())
        lesson = Lesson(as_tensors(arrays(start)), own, labels, np.random.SeedSequence(seed))
        (trained,) = place.fit("net", splits.private, [lesson], cross_entropy, epochs=3)
        starts.append(as_tensors(trained.parameters))  # type: ignore[union-attr]
    several = list(place.answers("net", starts, splits.proxy, np.arange(20), taps))
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
    place = Place({"net": Normed}, classification((1, 4, 4), 4), "cpu", trainer(), together=True)
    assert place._policies.way("net") is not None
    place = Place({"net": Dropping}, classification((1, 4, 4), 4), "cpu", trainer(), together=True)
    assert place._policies.way("net") is None


@pytest.mark.parametrize("together", [True, False])
def test_who_trains_in_half_precision_answers_in_it(together: bool) -> None:
    """Twice as fast where a CPU or GPU multiplies such numbers; to two or three digits the same."""
    splits, found = tiny_clients().splits, {}
    for autocast in (None, "bfloat16"):
        train = partial(trainer(), autocast=autocast)
        models = {"net": partial(mlp, hidden=(16,))}
        place = Place(models, classification((1, 4, 4), 4), "cpu", train, together=together)
        start = as_tensors(
            arrays(place.networks.fresh("net", np.random.default_rng(0)).state_dict())
        )
        said: Any = list(place.answers("net", [start] * 2, splits.proxy, np.arange(20)))
        assert {each.logits.dtype for each in said} == {torch.float32}
        assert torch.equal(said[0].logits, said[1].logits)
        network = mlp((1, 4, 4), 4, hidden=(16,)).eval()
        network.load_state_dict(start)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast is not None), torch.no_grad():
            alone = network(torch.from_numpy(normalised(splits.proxy, np.arange(20)))).float()
        torch.testing.assert_close(said[0].logits, alone, rtol=1e-5, atol=1e-5)
        found[autocast] = said[0].logits
    assert 1e-4 < (found[None] - found["bfloat16"]).abs().max() < 0.05
