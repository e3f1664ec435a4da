"""Networks of tokens: a bag of embeddings, and a small transformer encoder."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.models.layers import check_int, check_widths, two_parts

PADDING = 0
"""The token of places behind the end of a text: no network looks at it."""


def bag_of_embeddings(
    input_shape: tuple[int, ...],
    num_classes: int,
    num_tokens: int,
    *,
    width: Annotated[int, ">= 1"] = 32,
    hidden: Sequence[Annotated[int, ">= 1"]] = (),
) -> nn.Module:
    """Build a classifier of the mean embedding of a text's tokens, in whatever order.

    Args:
        input_shape: (tokens of a text,), each 0 for padding or below `num_tokens`.
        num_classes: C >= 1.
        num_tokens: V >= 2, how many tokens there are.
        width: of an embedding, >= 1.
        hidden: units of hidden layers with ReLU behind the mean, each >= 1; none = linear.

    Returns:
        Network from tokens [B, T] int64 to logits [B, num_classes].

    Reference: Joulin et al. 2017 (arXiv:1607.01759), fastText's classifier.
    """
    _check_text(input_shape, num_classes, num_tokens)
    check_int("width", width)
    if hidden:
        check_widths("hidden", hidden)
    layers: list[nn.Module] = [_MeanEmbedding(num_tokens, width)]
    widths = [width, *hidden]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return two_parts(layers, widths[-1], num_classes)


def transformer(
    input_shape: tuple[int, ...],
    num_classes: int,
    num_tokens: int,
    *,
    width: Annotated[int, ">= 1"] = 32,
    heads: Annotated[int, ">= 1"] = 2,
    layers: Annotated[int, ">= 1"] = 1,
) -> nn.Module:
    """Build a transformer encoder whose mean over a text's tokens is classified.

    Layers are normalised before attention and before the feed-forward part, of 4 * width units
    with GELU; there is no dropout.

    Args:
        input_shape: (tokens of a text,), each 0 for padding or below `num_tokens`.
        num_classes: C >= 1.
        num_tokens: V >= 2, how many tokens there are.
        width: of each token's vector, a multiple of `heads`.
        heads: of attention, >= 1.
        layers: >= 1.

    Returns:
        Network from tokens [B, T] int64 to logits [B, num_classes].

    Raises:
        ValueError: a number is out of range.

    Reference: Vaswani et al. 2017 (arXiv:1706.03762); norm first: Xiong et al. 2020
    (arXiv:2002.04745).
    """
    _check_text(input_shape, num_classes, num_tokens)
    for name, value in {"width": width, "heads": heads, "layers": layers}.items():
        check_int(name, value)
    if width % heads:
        raise ValueError(f"width must be a multiple of heads={heads}, got {width}")
    encoder = _Encoder(input_shape[0], num_tokens, width, heads, layers)
    return two_parts([encoder], width, num_classes)


def _check_text(input_shape: tuple[int, ...], num_classes: int, num_tokens: int) -> None:
    if len(input_shape) != 1:
        raise ValueError(f"input_shape must be 1 integer (tokens of a text), got {input_shape!r}")
    check_int("input_shape tokens", input_shape[0])
    check_int("num_classes", num_classes)
    check_int("num_tokens", num_tokens, minimum=2)


def _mean(vectors: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean vector [B, D] of a text's tokens, of [B, T, D]; 0 of a text without any."""
    there = (tokens != PADDING).to(vectors.dtype)[..., None]
    total: Tensor = (vectors * there).sum(1) / there.sum(1).clamp_min(1)
    return total


class _MeanEmbedding(nn.Module):
    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_tokens, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] -> [B, D]."""
        return _mean(self.embedding(tokens), tokens)


class _Encoder(nn.Module):
    def __init__(self, length: int, num_tokens: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_tokens, width)
        self.places = nn.Parameter(torch.randn(length, width) * 0.02)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] -> [B, D]."""
        vectors = self.embedding(tokens) + self.places
        # A finite bias: of a text without tokens a softmax over -inf would be NaN.
        bias = (tokens == PADDING).to(vectors.dtype)[:, None, None, :] * -1e4
        for layer in self.layers:
            vectors = layer(vectors, bias)
        return _mean(self.norm(vectors), tokens)


class _Layer(nn.Module):
    """A layer of torch's `TransformerEncoderLayer`, written out.

    Torch's has dropout modules even at p=0, and an attention that `torch.vmap` cannot batch: like
    clients would train one by one.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.joined = nn.Linear(width, width)
        self.wider, self.narrower = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, vectors: Tensor, bias: Tensor) -> Tensor:
        """[B, T, D] and what is added to attention [B, 1, 1, T] -> [B, T, D]."""
        three = self.queries_keys_values(self.attention_norm(vectors))
        three = torch.unflatten(three, -1, (3, self.heads, -1)).movedim(-3, 0).transpose(2, 3)
        queries, keys, values = three  # each [B, heads, T, D / heads]
        scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5 + bias
        heard = (scores.softmax(-1) @ values).transpose(1, 2).flatten(-2)
        vectors = vectors + self.joined(heard)
        raised = functional.gelu(self.wider(self.norm(vectors)))
        total: Tensor = vectors + self.narrower(raised)
        return total
