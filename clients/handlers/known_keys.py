"""What our clients read of a request, by message type. Nothing is sent to be overlooked.

A strategy that sends a learning rate, a clipping norm or a control variate counts on its being
used: a key or a record that nobody reads is a failed reply that names it.
"""

from dataclasses import dataclass

from flwr.app import RecordDict

from clients.handlers.neighbours import MIXED, START
from clients.handlers.state import PUSH
from clients.handlers.targets import SUMS, TARGETS
from clients.messages.requests import (
    ARRAYS,
    CONFIG,
    EVALUATE_FEATURES,
    EVALUATE_OWN,
    EVALUATE_PREDICTIONS,
    INPUTS,
    RELAY,
    SEND_OWN,
    SHOW_OWN,
    STUDENT,
    TAKE_MIXED,
    TRAIN_MIXED,
    TRAIN_OWN,
    TRAIN_PREDICTIONS,
    TRAIN_RECEIVED,
    TRAIN_TARGETS,
)

SERVER_ROUND, PROXIMAL_MU = "server-round", "proximal-mu"


@dataclass(frozen=True)
class Understood:
    """What is read of a request.

    Attributes:
        keys: Of its record "config".
        records: Besides that one.
    """

    keys: tuple[str, ...]
    records: tuple[str, ...]


PREDICTION_KEYS = (
    *(SERVER_ROUND, "num-inputs", "num-classes", "digest-epochs", "temperature", "answers"),
    *("send-parameters", "discriminator-inputs", "discriminator-balanced", "discriminator-l2"),
)

GOSSIP_KEYS = (SERVER_ROUND, "push")
"""All messages of a protocol say whether weights are pushed; who trains and sends goes by it."""

UNDERSTOOD = {
    "train": Understood((SERVER_ROUND, PROXIMAL_MU), (ARRAYS,)),
    "evaluate": Understood((SERVER_ROUND,), (ARRAYS,)),
    TRAIN_PREDICTIONS: Understood(PREDICTION_KEYS, (INPUTS, STUDENT)),
    EVALUATE_PREDICTIONS: Understood(PREDICTION_KEYS, (INPUTS,)),
    TRAIN_TARGETS: Understood((SERVER_ROUND,), (TARGETS,)),
    RELAY: Understood((SERVER_ROUND,), (SUMS,)),
    TRAIN_OWN: Understood(GOSSIP_KEYS, (START,)),
    SEND_OWN: Understood(GOSSIP_KEYS, (START,)),
    SHOW_OWN: Understood(GOSSIP_KEYS, (START,)),
    EVALUATE_OWN: Understood(GOSSIP_KEYS, (START,)),
    TAKE_MIXED: Understood(GOSSIP_KEYS, (START, MIXED, PUSH)),
    TRAIN_MIXED: Understood(GOSSIP_KEYS, (START, MIXED)),
    TRAIN_RECEIVED: Understood((SERVER_ROUND,), (START, MIXED)),
    EVALUATE_FEATURES: Understood((), (INPUTS,)),
}
"""By message type; one for each that `clients.app` answers."""

WITH_MESSENGER = {"train": Understood((SERVER_ROUND,), (ARRAYS,))}
"""What differs where two networks learn from each other: neither has a proximal term."""


def unread(kind: str, content: RecordDict, messenger: bool = False) -> str | None:
    """Look for what a client would overlook in a request.

    Args:
        kind: Message type, one that our clients answer.
        content: Of the request.
        messenger: Whether clients have a messenger.

    Returns:
        A line that names the first such key or record and what is understood; None if all is read.
    """
    understood = (WITH_MESSENGER if messenger else {}).get(kind, UNDERSTOOD[kind])
    for name, record in content.items():
        if name == CONFIG:
            for key in record:
                if key not in understood.keys:
                    return _line("key", str(key), kind, understood.keys)
        elif name not in understood.records:
            return _line("record", name, kind, (*understood.records, CONFIG))
    return None


def _line(what: str, name: str, kind: str, known: tuple[str, ...]) -> str:
    return (
        f"{what} '{name}' of a '{kind}' request is read by none of our clients, and would have "
        f"done nothing; understood: {', '.join(known)}"
    )
