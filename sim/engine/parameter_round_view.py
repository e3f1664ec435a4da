"""The view of a round in which clients send parameters back, as Flower's strategies ask them to."""

from collections.abc import Iterable

import torch
from flwr.app import ArrayRecord, Message, MetricRecord

from clients.messages.accumulator import is_part
from clients.messages.answers import Answers
from clients.messages.arrays import read_arrays
from clients.messages.requests import ARRAYS, METRICS, client_id_of
from clients.messages.round_views import ClientParameters, RoundView
from clients.messages.sizes import NUM_EXAMPLES, examples_in


def parameter_view(
    server_round: int, sent: ArrayRecord, replies: Iterable[Message]
) -> RoundView | None:
    """Show what came back.

    Args:
        server_round: 1..R.
        sent: The global model's parameters.
        replies: To the round's training requests, as the strategy will get them.

    Returns:
        A view without proxy examples, of the replies that hold arrays of the names and shapes
        sent, ordered by client; None if there is none, as where they came folded into one.
    """
    shapes = {name: tuple(array.shape) for name, array in sent.items()}
    usable = []
    for reply in replies:
        if not reply.has_content() or is_part(reply):
            continue
        back, metrics = reply.content.get(ARRAYS), reply.content.get(METRICS)
        if not isinstance(back, ArrayRecord) or not isinstance(metrics, MetricRecord):
            continue
        if {name: tuple(array.shape) for name, array in back.items()} == shapes:
            usable.append((client_id_of(reply.metadata.src_node_id), back, metrics))
    if len(usable) < 2:  # one has nobody to be far from
        return None
    usable.sort(key=lambda each: each[0])
    number = len(usable)
    sizes = [examples_in(metrics) if NUM_EXAMPLES in metrics else 1.0 for _, _, metrics in usable]
    teachers = Answers(
        client_ids=tuple(client_id for client_id, _, _ in usable),
        logits=torch.zeros(number, 0, 0),
        mask=torch.zeros(number, 0, dtype=torch.bool),
        own_probs=None,
        num_examples=torch.tensor(sizes),
    )
    after = [read_arrays(back) for _, back, _ in usable]
    nothing = torch.zeros(number, 0), torch.zeros(0, 0)
    parameters = ClientParameters(read_arrays(sent), after)
    return RoundView(server_round, (), teachers, *nothing, [], parameters=parameters)
