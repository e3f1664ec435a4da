"""The virtual clock: simulated seconds, from the profiles of clients and what they are asked.

A function of config and seed alone: no time is measured. The server computes, sends and receives in
no time, and what is asked only to measure costs none.
"""

from collections.abc import Iterable, Mapping

from flwr.app import Message

from clients.handlers.base import Handler, is_evaluation
from clients.messages.payload_routing import KeptPayloads, Post
from clients.messages.requests import client_id_of
from clients.population.profiles import Profiles
from sim.workers.tasks import Answer


def exchange_s(
    profiles: Profiles,
    request: Message,
    answer: Answer,
    request_bytes: int,
    *,
    kept: bool = False,
    letters_s: float = 0.0,
) -> float:
    """Say how long a request takes: there, what the client computes, and back.

    Args:
        profiles: Of all clients.
        request: What was asked.
        answer: What came of it. A client that raised has sent nothing, but it has computed; a
            reply that was refused has been sent.
        request_bytes: What the client received, letters included.
        kept: Whether the reply stays where it was made, for neighbours: nothing is sent until they
            get it as letters.
        letters_s: When the last of the client's letters has left its sender. Letters pass between
            two links, and go as fast as the slower of both.

    Returns:
        Seconds.
    """
    k = client_id_of(request.metadata.dst_node_id)
    receiving = max(request_bytes / profiles.download_bytes_per_s[k], letters_s)
    computing = answer.multiplications / profiles.multiplications_per_s[k]
    sending = 0.0 if kept else answer.reply_bytes / profiles.upload_bytes_per_s[k]
    return float(2 * profiles.latency_s[k] + receiving + computing + sending)


def is_measurement(request: Message, handlers: Mapping[str, Handler]) -> bool:
    """Tell whether a request is for whoever watches, so that nobody learns from the reply."""
    handler = handlers.get(request.metadata.message_type)
    return handler is not None and handler.measurement


def takes_time(request: Message, handlers: Mapping[str, Handler]) -> bool:
    """Tell whether a request takes simulated time.

    Args:
        request: Any.
        handlers: By message type; of another one, all that is evaluated is a measurement.

    Returns:
        Whether it does.
    """
    handler = handlers.get(kind := request.metadata.message_type)
    return not is_evaluation(kind) if handler is None else handler.takes_time(request.content)


def letters_s(profiles: Profiles, post: Post, payloads: KeptPayloads) -> dict[int, float]:
    """Say when each receiver's last letter has left its sender.

    A sender sends to each of its receivers by itself, to all at the same time, so that all have
    their letters when the last byte has left it.

    Args:
        profiles: Of all clients.
        post: The letters; a client's to itself are not sent.
        payloads: Tells how large they are.

    Returns:
        Seconds, by receiver.
    """
    sent: dict[int, int] = {}
    senders: dict[int, set[int]] = {}
    for receiver, letters in post.letters.items():
        for letter in letters:
            if letter.sender != receiver:
                size = payloads.size(letter.name, letter.sender)
                sent[letter.sender] = sent.get(letter.sender, 0) + size
                senders.setdefault(receiver, set()).add(letter.sender)
    upload = profiles.upload_bytes_per_s
    return {
        receiver: max(float(sent[k] / upload[k]) for k in own) for receiver, own in senders.items()
    }


def wave_s(seconds: Iterable[float | None]) -> float:
    """Return how long it takes until the slowest of those who were asked at once is done."""
    return max((each for each in seconds if each is not None), default=0.0)
