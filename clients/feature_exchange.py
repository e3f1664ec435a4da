"""What clients' classifiers see of proxy examples: asked for only by who compares networks.

The action "features" (`evaluate.features`) of its own, so that answers stay what they are, to the
byte, whoever watches.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from torch import Tensor

from clients.arrays import read_arrays, write_arrays
from clients.messages import INPUTS, METRICS, client_id_of
from clients.own import client_of, own_network
from clients.simulated import SimulatedClients

FEATURES, EVALUATE_FEATURES = "features", "evaluate.features"
PROXY_IDS = "proxy-ids"


def feature_request(proxy_ids: npt.NDArray[np.int64]) -> RecordDict:
    """Ask for the penultimate features of proxy examples [P], at least one."""
    return RecordDict({INPUTS: write_arrays({PROXY_IDS: proxy_ids})})


def evaluate_features(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Iterator[Message | Exception]:
    """Send what each client's classifier sees of the proxy examples asked about."""
    ids = read_arrays(cast(ArrayRecord, requests[0].content[INPUTS]))[PROXY_IDS].copy()
    networks = [own_network(clients, context, device) for context in contexts]
    seen = clients.place(device).answers(
        clients.architectures[client_of(contexts[0])],
        [network for network in networks if not isinstance(network, Exception)],
        clients.splits.proxy,
        ids,
        features=True,
    )
    for request, context, network in zip(requests, contexts, networks, strict=True):
        item = network if isinstance(network, Exception) else next(seen)
        if isinstance(item, Exception):
            yield item
            continue
        assert item.features is not None, "they were asked for"
        metrics = MetricRecord({"num-examples": len(clients.partitions[client_of(context)])})
        arrays = write_arrays({FEATURES: item.features.numpy()})
        yield Message(RecordDict({FEATURES: arrays, METRICS: metrics}), reply_to=request)


def read_features(replies: Iterable[Message], num_inputs: int) -> dict[int, Tensor]:
    """Collect features by client.

    Args:
        replies: To `feature_request`; those with an error are skipped.
        num_inputs: P.

    Returns:
        Features [P, D_k] by client id, ascending.

    Raises:
        ValueError: A client sent something else; names it.
    """
    found = {}
    for message in replies:
        if not message.has_content():
            continue
        client_id = client_id_of(message.metadata.src_node_id)
        record = message.content.get(FEATURES)
        arrays = read_arrays(record) if isinstance(record, ArrayRecord) else {}
        features = arrays.get(FEATURES)
        if features is None or features.ndim != 2 or len(features) != num_inputs:
            shape = None if features is None else features.shape
            raise ValueError(f"client {client_id}: features {shape}, expected [{num_inputs}, D]")
        found[client_id] = torch.tensor(features)
    return dict(sorted(found.items()))
