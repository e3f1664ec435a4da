"""How a client answers inputs, and how it tells its own kind of input from others."""

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord
from torch import nn

from clients.data import Dataset, normalised
from clients.execution.executor import Answered
from clients.messages.arrays import read_arrays
from clients.messages.requests import PredictionReply, PredictionRequest, crc32_of
from clients.models.discriminator import (
    Discriminator,
    DiscriminatorRecipe,
    fit_discriminator,
    own_probability,
)
from clients.models.factory import Parameters
from clients.training.evaluation import predict_with_features


def fit_for(
    recipe: DiscriminatorRecipe,
    negative_ids: npt.NDArray[np.int64],
    model: nn.Module,
    private: Dataset,
    indices: npt.NDArray[np.int64],
    proxy: Dataset,
) -> Discriminator:
    """Fit the discriminator that a request asks for.

    Args:
        recipe: How.
        negative_ids: Which proxy examples stand for those that are not the client's own.
        model: The client's, for features.
        private: Where its own examples are.
        indices: Which are its own.
        proxy: Where the negatives are.

    Returns:
        The fitted discriminator.
    """
    own, negatives = (
        _pixels(dataset, ids)
        if recipe.inputs == "pixels"
        else predict_with_features(model, dataset, ids)[1].numpy()
        for dataset, ids in ((private, indices), (proxy, negative_ids))
    )
    return fit_discriminator(own, negatives, balanced=recipe.balanced, l2=recipe.l2)


def answer(
    request: PredictionRequest,
    answered: Answered,
    dataset: Dataset,
    discriminator: Discriminator | None,
    *,
    client_id: int,
    num_examples: int,
    metrics: dict[str, float],
    architecture: str,
    parameters: Parameters | None = None,
) -> PredictionReply:
    """Answer the inputs of a request.

    Args:
        request: Names the inputs.
        answered: What the client's network says of them; with features, if they are asked for.
        dataset: Where the inputs are.
        discriminator: The client's, if one is asked for.
        client_id: Who answers.
        num_examples: Size of the client's private set.
        metrics: Scalars to send along.
        architecture: Of its network.
        parameters: Of it, to send along; None = they were not asked for.

    Returns:
        The reply.
    """
    own_probs = None
    if request.recipe is not None and discriminator is not None:
        ids = ids_of(request, dataset)
        features = answered.features
        inputs = _pixels(dataset, ids) if features is None else features.numpy()
        own_probs = own_probability(discriminator, inputs)
    return PredictionReply(
        server_round=request.server_round,
        client_id=client_id,
        inputs_crc32=crc32_of(request.proxy_ids),
        num_examples=num_examples,
        logits=answered.logits.numpy(),
        own_probs=own_probs,
        mask=None,
        metrics=metrics,
        answers=request.answers,
        parameters=parameters,
        architecture=architecture,
    )


def ids_of(request: PredictionRequest, dataset: Dataset) -> npt.NDArray[np.int64]:
    """Say which examples of a data set a request asks about: those it names, or all."""
    return np.arange(len(dataset)) if request.proxy_ids is None else request.proxy_ids


def imitated_ids(request: PredictionRequest) -> npt.NDArray[np.int64]:
    """Say on which proxy examples a student that is fed back is imitated."""
    ids = request.proxy_ids if request.digest_ids is None else request.digest_ids
    assert ids is not None, "train.predictions without proxy ids"
    return ids


def write_discriminator(fitted: Discriminator) -> ArrayRecord:
    """Turn a discriminator into a record of a client's state."""
    return ArrayRecord({name: Array(value) for name, value in vars(fitted).items()})


def read_discriminator(record: ArrayRecord | None) -> Discriminator | None:
    """Read what `write_discriminator` wrote; None if there is none."""
    return None if record is None else Discriminator(**read_arrays(record))


def _pixels(dataset: Dataset, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    return normalised(dataset, ids).reshape(len(ids), -1)
