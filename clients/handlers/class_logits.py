"""Mean logits of each label: clients learn near the others', and say their own.

FD's message (Jeong et al., 2018, arXiv:1811.11479): C x C numbers and no parameters, from clients
of any architecture; FedDistill+'s (Zhu et al., 2021, arXiv:2105.10056) has parameters too. Means
are those of the network as it is after local training, in eval mode, where the authors of the
latter add up what it says as it trains.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from torch import Tensor

from clients.execution.executor import Trained
from clients.execution.model_cache import Tensors, as_tensors
from clients.handlers.base import Handler, Replies, each
from clients.handlers.compute_cost import forward, local_training
from clients.handlers.state import MODEL, client_of, kept_arrays, own_network, round_of, tested
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.field import MAX_ANSWER
from clients.messages.requests import ARRAYS, METRICS
from clients.messages.sizes import NUM_EXAMPLES
from clients.models.factory import Parameters
from clients.population.clients import SimulatedClients
from clients.training.evaluation import measured
from clients.training.losses import cross_entropy, kl, mse
from clients.training.objective import Anchors, Objective, Outputs

CLASS_LOGITS = "class-logits"
"""Record of replies, each client's "means" [C, C] and "counts" [C]; of requests, "sums" of means
over their holders, how many "holders" a class has [C], and node ids of the clients that are "in"
them; name of the anchor."""

REGULARISERS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": lambda logits, wanted: kl(logits, wanted.softmax(-1), 1.0),
    "mse": lambda logits, wanted: mse(logits, wanted, 1.0),
    "cross_entropy": lambda logits, wanted: cross_entropy(logits, wanted.softmax(-1)),
}
"""(logits, mean logits of the label) [B, C] -> [B]. The first as FedGen's code, the others as
HtFLlib's FedDistill and FD; gradients of "cross_entropy" are those of "kl"."""


def regularised(
    outputs: Outputs, labels: Tensor, anchors: Anchors, *, weight: float, regulariser: str
) -> Tensor:
    """Cross-entropy + weight * phi(logits, mean logits that others have for the label): FD's loss.

    Args:
        outputs: Logits [B, C].
        labels: [B].
        anchors: "class-logits" [C, C], a row of NaN where nobody has said anything of a class.
        weight: lambda of the paper, >= 0.
        regulariser: phi, one of `REGULARISERS`.

    Returns:
        [B]; of a class of which nobody has said anything the cross-entropy alone.
    """
    wanted = anchors[CLASS_LOGITS][labels]
    apart = REGULARISERS[regulariser](outputs.logits, wanted.nan_to_num())
    known = ~wanted.isnan().any(1)
    return cross_entropy(outputs.logits, labels) + weight * torch.where(known, apart, 0)


def wanted_logits(said: Parameters, own: Parameters | None, classes: int) -> Tensor:
    """Return the mean logits of each class that a client is held to.

    Args:
        said: Of the server, as `CLASS_LOGITS`; empty = nothing yet.
        own: What the client has put into them, which is taken out again; None = nothing.
        classes: C.

    Returns:
        [C, C], of a class (N zbar - zbar_k) / (N - 1), N being its holders; NaN where nobody is
        left.
    """
    if not said:
        return torch.full((classes, classes), torch.nan)
    sums, holders = said["sums"], said["holders"]
    if own is not None:
        sums, holders = sums - own["means"], holders - (own["counts"] > 0)
    holders = holders[:, None]
    return torch.tensor(np.where(holders > 0, sums / np.maximum(holders, 1), np.nan)).float()


def train_class_logits(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    device: str,
    *,
    objective: Objective,
    leave_one_out: bool,
) -> Replies:
    """Train one's own network, or the parameters received, near the others' mean logits."""
    received, server_round = requests[0].content.array_records, round_of(requests[0])
    said = read_arrays(received.get(CLASS_LOGITS, ArrayRecord()))
    classes, ids = clients.splits.private.task.num_classes, [*map(client_of, contexts)]
    own_of = {
        client_id: kept_arrays(context, CLASS_LOGITS)
        for client_id, context, request in zip(ids, contexts, requests, strict=True)
        if leave_one_out and request.metadata.dst_node_id in said.get("in", ())
    }

    def anchors(client_id: int) -> Anchors:
        return {CLASS_LOGITS: wanted_logits(said, own_of.get(client_id), classes).to(device)}

    starts: list[Tensors | Exception]
    if averaged := ARRAYS in received:
        starts = [as_tensors(read_arrays(received[ARRAYS]), device)] * len(ids)
    else:
        starts = [own_network(clients, context, device) for context in contexts]
    trained = [*clients.train(ids, starts, server_round, device, objective, anchors)]
    for request, context, result in zip(requests, contexts, trained, strict=True):
        try:
            reply = _reply(clients, context, result, server_round, device)
            if not averaged:
                context.state[MODEL] = reply.pop(ARRAYS)
            yield Message(reply, reply_to=request)
        except Exception as error:  # the client's, not the group's
            yield error


def _reply(
    clients: SimulatedClients,
    context: Context,
    result: Trained | Exception,
    server_round: int,
    device: str,
) -> RecordDict:
    """Say parameters and mean logits; the latter are kept, to be taken out of the others'."""
    if isinstance(result, Exception):
        raise result
    client_id = client_of(context)
    indices, labels = clients.partitions[client_id], clients.classes(client_id, server_round)
    private = clients.seen(clients.splits.private, client_id, "answer", server_round)
    networks, name = clients.place(device).networks, clients.architectures[client_id]
    logits = networks.predict(name, as_tensors(result.parameters, device), private, indices)
    sums = np.zeros((logits.shape[1], logits.shape[1]))
    np.add.at(sums, labels, logits.numpy())
    counts = np.bincount(labels, minlength=len(sums))
    means = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    context.state[CLASS_LOGITS] = said = write_arrays({"means": means, "counts": counts})
    metrics: dict[str, int | float] = {NUM_EXAMPLES: len(indices)}
    metrics["train-loss"] = result.losses[-1] if result.losses else 0.0
    arrays = write_arrays(result.parameters)
    return RecordDict({ARRAYS: arrays, CLASS_LOGITS: said, METRICS: MetricRecord({**metrics})})


def evaluate_own(
    clients: SimulatedClients, request: Message, context: Context, device: str
) -> RecordDict:
    """Measure a client's own network on the test set, and on its own classes there, all alike."""
    client_id, test = client_of(context), tested(clients, request.content)
    if isinstance(network := own_network(clients, context, device), Exception):
        raise network
    name, indices = clients.architectures[client_id], clients.partitions[client_id]
    seen = clients.seen(test, client_id, "test", round_of(request))
    logits = clients.place(device).networks.predict(name, network, seen, np.arange(len(test)))
    found = measured(logits, test)
    right = logits.argmax(1).numpy() == test.labels
    own = np.isin(test.labels, clients.splits.private.labels[indices])
    if own.any():
        found["own-classes-accuracy"] = float(right[own].mean())
    return RecordDict({METRICS: MetricRecord({NUM_EXAMPLES: len(indices), **found})})


def _fault(request: Message, reply: Message) -> str | None:
    """Look for mean logits that are none, and parameters that cannot be averaged."""
    content = reply.content
    found = read_arrays(cast(ArrayRecord, content[CLASS_LOGITS]))
    counts, examples = found.get("counts", np.zeros(0)), content.metric_records[METRICS]
    shapes = {name: array.shape for name, array in found.items()}
    if shapes != {"means": (len(counts), len(counts)), "counts": (len(counts),)}:
        return f"its '{CLASS_LOGITS}' are of shapes {shapes}, expected means [C, C], counts [C]"
    if (counts < 0).any() or counts.sum() != examples[NUM_EXAMPLES]:
        return f"its counts of classes are no counts of its {examples[NUM_EXAMPLES]} examples"
    sent, back = ({*each.get(ARRAYS, ())} for each in (request.content, content))
    return None if sent == back else "it sent other arrays than it got"


def _multiplications(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    answering = len(clients.partitions[client_id]) * forward(clients, client_id, trained=True)
    return local_training(clients, client_id, content) + answering


def class_logits(weight: float, regulariser: str, leave_one_out: bool) -> tuple[Handler, Handler]:
    """Make the handlers of those that learn near others' mean logits.

    Args:
        weight: As in `regularised`.
        regulariser: As there.
        leave_one_out: Whether a client's own part in the means is taken out.

    Returns:
        Of "train.class_logits" and "evaluate.class_logits".
    """
    loss = partial(regularised, weight=weight, regulariser=regulariser)
    objective = Objective(loss, anchors=(CLASS_LOGITS,))
    answer = partial(train_class_logits, objective=objective, leave_one_out=leave_one_out)
    train = Handler(
        "train.class_logits",
        answer,
        records=(ARRAYS, CLASS_LOGITS),
        replies={ARRAYS: ArrayRecord, CLASS_LOGITS: ArrayRecord, METRICS: MetricRecord},
        limits={CLASS_LOGITS: MAX_ANSWER},
        fault=_fault,
        multiplications=_multiplications,
    )
    return train, Handler("evaluate.class_logits", each(evaluate_own))
