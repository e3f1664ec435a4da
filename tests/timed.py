"""Tiny clients with speeds and links, and what they are asked."""

from functools import partial
from typing import Any

import numpy as np
import torch
from flwr.app import Message, RecordDict

from clients.messages.requests import PredictionRequest, node_id_of, write_request
from clients.models import logistic_regression
from clients.population.profiles import Profiles
from tests.federations import student_of, tiny_clients

SGD = partial(torch.optim.SGD, lr=0.1)
PHONE = {
    "multiplications_per_s": 1000.0,
    "download_bytes_per_s": 400.0,
    "upload_bytes_per_s": 50.0,
    "latency_s": 0.5,
}
# Forward passes on 1x4x4 images of 4 classes, one more each for what `work_of` begins with:
# 16 -> 4 has 68 parameters, 16 -> 8 -> 4 has 136 + 36.
LINEAR, MLP = 69.0, 173.0
EXAMPLES, PROXY, TEST, EPOCHS = 24, 30, 50, 2
"""Of each of five tiny clients, of all, of all, and of local training."""


def profiles(*speeds: float, up: Any = None) -> Profiles:
    """Clients of these speeds; 400 bytes/s down, 50 up unless told otherwise, half a second."""
    n = len(speeds)
    upload = np.full(n, 50.0) if up is None else np.array(up)
    return Profiles(np.array(speeds), np.full(n, 400.0), upload, np.full(n, 0.5))


def drawn(found: Any) -> Any:
    """A rule that draws these."""
    return lambda num_clients, rng: found


def asking(kind: str, content: RecordDict | None = None, client_id: int = 1) -> Message:
    return Message(content or RecordDict(), dst_node_id=node_id_of(client_id), message_type=kind)


def questions(proxy: int | None = 10, **changes: Any) -> RecordDict:
    """Ask for answers to so many proxy examples, or to the test set."""
    ids = None if proxy is None else np.arange(proxy)
    number = TEST if proxy is None else proxy
    return write_request(PredictionRequest(1, number, 4, proxy_ids=ids, **changes))


def parameters(model: Any) -> dict[str, Any]:
    return dict(read_state(student_of(tiny_clients(student=model))))


def read_state(network: torch.nn.Module) -> Any:
    return {k: v.numpy() for k, v in network.state_dict().items()}


SENT = parameters(logistic_regression)
