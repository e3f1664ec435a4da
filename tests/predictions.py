"""A request for predictions, and the answer to it."""

import numpy as np
from flwr.app import Message

from clients.handlers.base import by_kind
from clients.handlers.predictions import EVALUATE_PREDICTIONS, TRAIN_PREDICTIONS
from clients.handlers.reply_faults import fault_of as fault_in
from clients.messages.replies import PredictionReply, write_reply
from clients.messages.requests import PredictionRequest, crc32_of, node_id_of, write_request
from clients.models.discriminator import DiscriminatorRecipe

IDS = np.array([4, 0, 9], dtype=np.int64)
WEIGHTS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(3)}
NAN, INFINITY = float("nan"), float("inf")
PLAIN = PredictionRequest(server_round=2, num_inputs=3, num_classes=2, proxy_ids=IDS)
FULL = PredictionRequest(
    server_round=7,
    num_inputs=3,
    num_classes=2,
    proxy_ids=IDS,
    negative_ids=np.array([1, 2], dtype=np.int64),
    recipe=DiscriminatorRecipe("pixels", balanced=True, l2=0.5),
    student=WEIGHTS,
    digest_epochs=3,
    temperature=2.5,
)
ANSWER = PredictionReply(
    server_round=2,
    client_id=0,
    inputs_crc32=crc32_of(IDS),
    num_examples=40,
    logits=np.arange(6, dtype=np.float32).reshape(3, 2),
    own_probs=None,
    mask=None,
    metrics={"train-loss": 0.25},
)
OWN_PROBS = np.array([0.0, 0.5, 1.0], dtype=np.float32)
MASK = np.array([True, False, True])


def ask(request: PredictionRequest = PLAIN, client: int = 0, kind: str = "train") -> Message:
    kinds = {"train": TRAIN_PREDICTIONS.kind, "evaluate": EVALUATE_PREDICTIONS.kind}
    return Message(write_request(request), dst_node_id=node_id_of(client), message_type=kinds[kind])


def answer(reply: PredictionReply = ANSWER, client: int = 0) -> Message:
    return Message(write_reply(reply), reply_to=ask(client=client))


def fault_of(request: Message, reply: Message) -> str | None:
    """Judge a reply as a worker does."""
    handlers = by_kind([TRAIN_PREDICTIONS, EVALUATE_PREDICTIONS])
    return fault_in(request, reply, handlers.get(request.metadata.message_type))
