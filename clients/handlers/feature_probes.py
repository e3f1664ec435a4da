"""Features that clients' classifiers see in proxy examples: asked for by who compares networks.

A type of message of its own, a measurement: answers stay what they are, to the byte, whoever
watches.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from torch import Tensor

from clients.handlers.answers_by_field import answers_of
from clients.handlers.base import Handler, Replies
from clients.handlers.compute_cost import forward
from clients.handlers.state import client_of, own_network
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import INPUTS, METRICS, client_id_of
from clients.population.clients import SimulatedClients
from clients.training.taps import PENULTIMATE

FEATURES, PROXY_IDS = "features", "proxy-ids"


def feature_request(proxy_ids: npt.NDArray[np.int64]) -> RecordDict:
    """Ask for the penultimate features of proxy examples [P], at least one."""
    return RecordDict({INPUTS: write_arrays({PROXY_IDS: proxy_ids})})


def evaluate_features(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Replies:
    """Send what each client's classifier sees of the proxy examples asked about."""
    ids = read_arrays(cast(ArrayRecord, requests[0].content[INPUTS]))[PROXY_IDS].copy()
    networks = [own_network(clients, context, device) for context in contexts]
    proxy = clients.splits.proxy
    sees = [clients.seen(proxy, client_of(context), "answer", 0) for context in contexts]
    seen = answers_of(clients, contexts, networks, (proxy, ids), sees, (PENULTIMATE,), device)
    for request, context, network in zip(requests, contexts, networks, strict=True):
        item = network if isinstance(network, Exception) else next(seen)
        if isinstance(item, Exception):
            yield item
            continue
        metrics = MetricRecord({"num-examples": len(clients.partitions[client_of(context)])})
        arrays = write_arrays({FEATURES: item.taps[PENULTIMATE].flatten(1).numpy()})
        yield Message(RecordDict({FEATURES: arrays, METRICS: metrics}), reply_to=request)


def read_features(replies: Iterable[Message], num_inputs: int) -> dict[int, Tensor]:
    """Collect features by client.

    Args:
        replies: To `feature_request`; those with an error, or with anything else, are skipped: who
            watches ends no run.
        num_inputs: P.

    Returns:
        Features [P, D_k] by client id, ascending.
    """
    found = {}
    for message in replies:
        if message.has_content() and fault_in_features(message.content, num_inputs) is None:
            arrays = read_arrays(cast(ArrayRecord, message.content[FEATURES]))
            client_id = client_id_of(message.metadata.src_node_id)
            found[client_id] = torch.tensor(arrays[FEATURES])
    return dict(sorted(found.items()))


def requested_inputs(request: RecordDict) -> int:
    """Return how many proxy examples a `feature_request` asks about, P."""
    return len(read_arrays(cast(ArrayRecord, request[INPUTS]))[PROXY_IDS])


def fault_in_features(content: RecordDict, num_inputs: int) -> str | None:
    """Look for what keeps a reply from being features of so many inputs.

    Args:
        content: Of the reply.
        num_inputs: P.

    Returns:
        The reason to reject it, or None.
    """
    record = content.get(FEATURES)
    features = read_arrays(record).get(FEATURES) if isinstance(record, ArrayRecord) else None
    if features is None:
        return f"a reply with features lacks '{FEATURES}'"
    if features.ndim != 2 or len(features) != num_inputs or features.dtype != np.float32:
        return f"features are {features.dtype} {features.shape}, expected float32 ({num_inputs}, D)"
    return None if np.isfinite(features).all() else "features are not finite"


def _fault(request: Message, reply: Message) -> str | None:
    return fault_in_features(reply.content, requested_inputs(request.content))


def _multiplications(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    return requested_inputs(content) * forward(clients, client_id)


EVALUATE_FEATURES = Handler(
    "evaluate.features",
    evaluate_features,
    keys=(),
    records=(INPUTS,),
    replies={FEATURES: ArrayRecord, METRICS: MetricRecord},
    fault=_fault,
    multiplications=_multiplications,
    measurement=True,
)
