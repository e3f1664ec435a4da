"""Networks of tokens and of pixels: what they look at, and what not."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.data import classification, dense_labelling
from clients.execution.policy import way_of
from clients.models import bag_of_embeddings, fcn, transformer
from clients.models.factory import build
from clients.training.taps import PENULTIMATE, Taps

TASK = classification((6,), 4, num_tokens=9)
TEXTS = [bag_of_embeddings, partial(bag_of_embeddings, hidden=(7,)), transformer,
         partial(transformer, heads=4, layers=2)]  # fmt: skip


def built(model: Any) -> torch.nn.Module:
    return build(model, TASK, np.random.default_rng(0)).eval()


def texts(*tokens: list[int]) -> Tensor:
    return torch.tensor(tokens)


@pytest.mark.parametrize("model", TEXTS)
def test_networks_of_tokens_answer_even_a_text_without_any(model: Any) -> None:
    logits = built(model)(texts([0] * 6, [8, 1, 2, 3, 4, 5], [3, 0, 0, 0, 0, 0]))
    assert logits.shape == (3, 4)
    assert logits.isfinite().all()


@pytest.mark.parametrize("model", TEXTS)
def test_padding_is_not_looked_at(model: Any) -> None:
    network = built(model)
    with torch.no_grad():
        before = network(texts([3, 4, 0, 0, 0, 0]))
        for name, parameter in network.named_parameters():
            if "embedding" in name:
                parameter[0] += 7.0
            if "places" in name:
                parameter[2:] -= 5.0
        torch.testing.assert_close(network(texts([3, 4, 0, 0, 0, 0])), before)


def test_a_bag_has_no_order_and_a_transformer_has() -> None:
    there, back = texts([3, 4, 5, 0, 0, 0]), texts([5, 4, 3, 0, 0, 0])
    bag, encoder = built(bag_of_embeddings), built(transformer)
    torch.testing.assert_close(bag(there), bag(back))
    assert not torch.allclose(encoder(there), encoder(back), atol=1e-5)


def test_a_bag_by_hand() -> None:
    network = built(partial(bag_of_embeddings, width=2))
    with torch.no_grad():
        embedding, linear = network.features[0].embedding, network.classifier
        embedding.weight.copy_(torch.arange(18.0).view(9, 2))
        linear.weight.copy_(torch.eye(4, 2))
        linear.bias.zero_()
        found = network(texts([1, 3, 0, 0, 0, 0]))
    torch.testing.assert_close(found, torch.tensor([[4.0, 5.0, 0.0, 0.0]]))


def test_an_encoder_is_torchs_own_with_the_same_parameters() -> None:
    width, heads = 8, 2
    ours = built(partial(transformer, width=width, heads=heads)).features[0].double()
    theirs = torch.nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64
    ).eval()
    layer = ours.layers[0]
    pairs = {
        "self_attn.in_proj_": layer.queries_keys_values, "self_attn.out_proj.": layer.joined,
        "linear1.": layer.wider, "linear2.": layer.narrower,
        "norm1.": layer.attention_norm, "norm2.": layer.norm,
    }  # fmt: skip
    state = {
        f"{name}{key}": v for name, own in pairs.items() for key, v in own.state_dict().items()
    }
    theirs.load_state_dict(state)
    tokens = texts([3, 4, 5, 6, 7, 8], [1, 2, 0, 0, 0, 0])
    vectors = ours.embedding(tokens) + ours.places
    padded = torch.where(tokens == 0, -1e4, 0.0).double()
    expected = theirs(vectors, src_key_padding_mask=padded)
    bias = padded[:, None, None]
    torch.testing.assert_close(layer(vectors, bias), expected)


@pytest.mark.parametrize("model", TEXTS)
def test_clients_with_networks_of_tokens_train_together(model: Any) -> None:
    way, reason = way_of(built(model), TASK, partial(torch.optim.SGD, lr=0.1))
    assert way == "vmap", reason


def test_a_network_of_pixels_answers_each_and_has_a_penultimate_tap() -> None:
    task = dense_labelling((2, 5, 4), 3)
    network = build(partial(fcn, channels=(4, 6)), task, np.random.default_rng(0)).eval()
    images = torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    with Taps(network, [PENULTIMATE]) as taps:
        logits = network(images)
        features = taps.take()[PENULTIMATE]
    assert logits.shape == (2, 3, 5, 4)
    assert features.shape == (2, 5, 4, 6)
    weight, bias = network.classifier.linear.weight, network.classifier.linear.bias
    torch.testing.assert_close(logits.movedim(1, -1), features @ weight.T + bias)


def test_how_far_a_pixel_sees() -> None:
    task = dense_labelling((1, 31, 31), 2)
    network = build(fcn, task, np.random.default_rng(0)).double()
    image = torch.randn(1, 1, 31, 31, dtype=torch.float64).requires_grad_()
    (seen,) = torch.autograd.grad(network(image)[0, 0, 15, 15], image)
    rows = seen[0, 0].abs().sum(1).nonzero()[:, 0]
    assert (int(rows.min()), int(rows.max())) == (15 - 7, 15 + 7)  # 15 pixels: 1 + 2 (1 + 2 + 4)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (bag_of_embeddings, {"width": 0}, "width must be an integer in"),
        (bag_of_embeddings, {"hidden": (0,)}, r"hidden\[0\] must be"),
        (transformer, {"width": 5}, "width must be a multiple of heads=2, got 5"),
        (transformer, {"layers": 0}, "layers must be"),
    ],
)
def test_numbers_out_of_range_are_named(model: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(partial(model, **options), TASK, np.random.default_rng(0))


def test_an_image_is_no_text() -> None:
    with pytest.raises(ValueError, match=r"must be 1 integer \(tokens of a text\)"):
        bag_of_embeddings((1, 4, 4), 2, 5)


@pytest.mark.parametrize(
    ("model", "one", "other"),
    [
        (bag_of_embeddings, {"width": 4}, {"width": 5}),
        (bag_of_embeddings, {"hidden": ()}, {"hidden": (4,)}),
        (transformer, {"width": 4}, {"width": 6}),
        (transformer, {"heads": 1}, {"heads": 2}),
        (transformer, {"layers": 1}, {"layers": 2}),
        (fcn, {"channels": (4, 4)}, {"channels": (4, 5)}),
        (fcn, {"dilation": 1}, {"dilation": 2}),
    ],
)
def test_each_number_makes_another_network(model: Any, one: Any, other: Any) -> None:
    task = dense_labelling((1, 6, 6), 3) if model is fcn else TASK
    inputs = (
        torch.arange(36.0).view(1, 1, 6, 6).sin() if model is fcn else texts([3, 4, 5, 1, 2, 6])
    )
    rng = np.random.default_rng
    said = [build(partial(model, **n), task, rng(0)).eval()(inputs) for n in (one, other)]
    assert not torch.allclose(*said)
