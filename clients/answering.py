"""How a client answers inputs, and how it tells its own kind of input from others."""

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord
from torch import nn

from clients.arrays import read_arrays
from clients.data import Dataset, normalised
from clients.discriminator import Discriminator, fit_discriminator, own_probability
from clients.messages import PredictionReply, PredictionRequest, crc32_of
from clients.prediction import predict, predict_with_features


def fit_for(
    request: PredictionRequest,
    model: nn.Module,
    private: Dataset,
    indices: npt.NDArray[np.int64],
    proxy: Dataset,
) -> Discriminator | None:
    """Fit the discriminator that a request asks for.

    Args:
        request: Names the recipe and the negatives.
        model: The client's, for features.
        private: Where its own examples are.
        indices: Which are its own.
        proxy: Where the negatives are.

    Returns:
        The fitted discriminator, or None if none is asked for.
    """
    if request.recipe is None or request.negative_ids is None:
        return None
    own, negatives = (
        _pixels(dataset, ids)
        if request.recipe.inputs == "pixels"
        else predict_with_features(model, dataset, ids)[1].numpy()
        for dataset, ids in ((private, indices), (proxy, request.negative_ids))
    )
    return fit_discriminator(own, negatives, balanced=request.recipe.balanced, l2=request.recipe.l2)


def answer(
    request: PredictionRequest,
    model: nn.Module,
    dataset: Dataset,
    discriminator: Discriminator | None,
    *,
    client_id: int,
    num_examples: int,
    metrics: dict[str, float],
) -> PredictionReply:
    """Answer the inputs of a request.

    Args:
        request: Names the inputs; None = the whole data set.
        model: The client's.
        dataset: Where the inputs are.
        discriminator: The client's, if one is asked for.
        client_id: Who answers.
        num_examples: Size of the client's private set.
        metrics: Scalars to send along.

    Returns:
        The reply.
    """
    ids = np.arange(len(dataset)) if request.proxy_ids is None else request.proxy_ids
    features = None
    if request.recipe is not None and request.recipe.inputs == "features":
        logits, features = predict_with_features(model, dataset, ids)
    else:
        logits = predict(model, dataset, ids)
    own_probs = None
    if request.recipe is not None and discriminator is not None:
        inputs = _pixels(dataset, ids) if features is None else features.numpy()
        own_probs = own_probability(discriminator, inputs)
    return PredictionReply(
        server_round=request.server_round,
        client_id=client_id,
        inputs_crc32=crc32_of(request.proxy_ids),
        num_examples=num_examples,
        logits=logits.numpy(),
        own_probs=own_probs,
        mask=None,
        metrics=metrics,
        answers=request.answers,
    )


def write_discriminator(fitted: Discriminator) -> ArrayRecord:
    """Turn a discriminator into a record of a client's state."""
    return ArrayRecord({name: Array(value) for name, value in vars(fitted).items()})


def read_discriminator(record: ArrayRecord | None) -> Discriminator | None:
    """Read what `write_discriminator` wrote; None if there is none."""
    return None if record is None else Discriminator(**read_arrays(record))


def _pixels(dataset: Dataset, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    return normalised(dataset, ids).reshape(len(ids), -1)
