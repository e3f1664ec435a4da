"""Feature maps of private examples: clients send what a small network sees, **and their labels**.

He, Annavaram, Avestimehr, "Group Knowledge Transfer" (FedGKT), NeurIPS 2020 (arXiv:2007.14513). No
other message here discloses labels, or features of private examples.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from torch import Tensor

from clients.data import Task
from clients.execution.executor import Answered
from clients.execution.model_cache import as_tensors
from clients.handlers.answers_by_field import answers_of
from clients.handlers.base import SERVER_ROUND, Handler, Replies
from clients.handlers.compute_cost import forward, local_training
from clients.handlers.state import MODEL, client_of, own_network, round_of, tested
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import CONFIG, METRICS
from clients.models.factory import Parameters
from clients.population.clients import SimulatedClients
from clients.training.evaluation import measured
from clients.training.losses import cross_entropy, kl
from clients.training.objective import Anchors, Objective, Outputs

MAPS, LOGITS, LABELS, SAID = "maps", "logits", "labels", "said"
"""Records: what clients send of their examples; logits of the other side's network. And arrays."""

NUM_INPUTS = "num-inputs"


def transfer(soft: float, hard: float, temperature: float) -> Objective:
    """Make the objective of either side: hard CE(y) + soft T**2 KL(other side || own).

    Args:
        soft: Weight of what the other side says of an example, >= 0.
        hard: Weight of its label, >= 0.
        temperature: T > 0.

    Returns:
        The objective, for whom comes with the other side's logits "said" [n, C].
    """
    loss = partial(_transfer, soft=soft, hard=hard, temperature=temperature)
    return Objective(loss, anchors=(SAID,))


def _transfer(
    outputs: Outputs,
    labels: Tensor,
    anchors: Anchors,
    *,
    soft: float,
    hard: float,
    temperature: float,
) -> Tensor:
    said = (anchors[SAID][outputs.rows] / temperature).softmax(-1)
    own = hard * cross_entropy(outputs.logits, labels)
    return own + soft * kl(outputs.logits, said, temperature)


def train(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    device: str,
    *,
    tap: str,
    objective: Objective,
) -> Replies:
    """Train with what the server said of one's examples; send their maps, logits and labels."""
    server_round, ids = round_of(requests[0]), [client_of(context) for context in contexts]
    starts = [own_network(clients, context, device) for context in contexts]
    told = {k: _arrays(m.content, SAID) for k, m in zip(ids, requests, strict=True)}
    anchors = {
        k: {n: torch.tensor(a, device=device) for n, a in t.items()} for k, t in told.items()
    }
    learned = objective if all(told.values()) else None  # at first there are labels alone
    trained = clients.train(ids, starts, server_round, device, learned, anchors.__getitem__)
    for client_id, request, context, result in zip(ids, requests, contexts, trained, strict=True):
        if isinstance(result, Exception):
            yield result
            continue
        context.state[MODEL] = write_arrays(result.parameters)
        own = clients.partitions[client_id]
        private = clients.seen(clients.splits.private, client_id, "answer", server_round)
        networks = [as_tensors(result.parameters, device)]
        name, place = clients.network_of(client_id), clients.place(device)
        (answered,) = place.answers(name, networks, private, own, (tap,))
        if isinstance(answered, Exception):
            yield answered
            continue
        labels = clients.classes(client_id, server_round)
        metrics: dict[str, float] = {"num-examples": len(own)}
        if result.losses:
            metrics["train-loss"] = result.losses[-1]
        yield _reply(request, {**_maps(answered, tap), LABELS: labels}, metrics)


def evaluate(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    device: str,
    *,
    tap: str,
) -> Replies:
    """Send maps of the test set, and how good one's own small network is there."""
    networks = [own_network(clients, context, device) for context in contexts]
    server_round, test = round_of(requests[0]), tested(clients, requests[0].content)
    seen = [clients.seen(test, client_of(c), "test", server_round) for c in contexts]
    examples = test, np.arange(len(test))
    answers = answers_of(clients, contexts, networks, examples, seen, (tap,), device)
    for request, context, network in zip(requests, contexts, networks, strict=True):
        item = network if isinstance(network, Exception) else next(answers)
        if isinstance(item, Exception):
            yield item
            continue
        metrics = {"num-examples": len(clients.partitions[client_of(context)])}
        yield _reply(request, _maps(item, tap), metrics | measured(item.logits, test))


def handlers(
    tap: str, objective: Objective, shape: tuple[int, ...], task: Task
) -> tuple[Handler, Handler]:
    """Make the handlers of those that send maps: of private examples, and of the test set.

    Args:
        tap: Module whose output is the map.
        objective: What clients minimise, once the server has said something of their examples.
        shape: Of one example's map.
        task: What they are to predict.

    Returns:
        Of "train.maps" and "evaluate.maps".
    """
    replies = {MAPS: ArrayRecord, METRICS: MetricRecord}
    look = partial(_fault, shape=shape, task=task)
    return (
        Handler(
            "train.maps",
            partial(train, tap=tap, objective=objective),
            records=(SAID,),
            replies=replies,
            fault=look,
            multiplications=_costs,
        ),
        Handler(
            "evaluate.maps",
            partial(evaluate, tap=tap),
            keys=(SERVER_ROUND, NUM_INPUTS),
            replies=replies,
            fault=look,
        ),
    )


# --- steps ---


def _maps(answered: Answered, tap: str) -> Parameters:
    return {MAPS: answered.taps[tap].numpy(), LOGITS: answered.logits.numpy()}


def _reply(request: Message, arrays: Parameters, metrics: Mapping[str, float]) -> Message:
    content = RecordDict({MAPS: write_arrays(arrays)})
    content[METRICS] = MetricRecord({**metrics})
    return Message(content, reply_to=request)


def _arrays(content: RecordDict, name: str) -> Parameters:
    return read_arrays(cast(ArrayRecord, content.get(name, ArrayRecord())))


def _fault(request: Message, reply: Message, *, shape: tuple[int, ...], task: Task) -> str | None:
    """Look for what the server's network cannot learn from, or answer."""
    arrays, said = _arrays(reply.content, MAPS), _arrays(request.content, SAID)
    about: Any = request.content[CONFIG]
    metrics: Any = reply.content[METRICS]
    size = int(metrics["num-examples"])
    if said and size != len(said[SAID]):
        return f"it has {size} examples, and had {len(said[SAID])}"
    labels = {} if (tests := NUM_INPUTS in about) else {LABELS: (size,)}
    size = about[NUM_INPUTS] if tests else size
    wanted = {MAPS: (size, *shape), LOGITS: (size, task.num_classes), **labels}
    if (found := {name: array.shape for name, array in arrays.items()}) != wanted:
        return f"its arrays are {found}, expected {wanted}"
    if any(arrays[name].dtype != np.float32 for name in (MAPS, LOGITS)):
        return "its maps or logits are not float32"
    return None if tests else task.label_fault(arrays[LABELS])


def _costs(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    """Count training, and answering one's own examples."""
    answering = len(clients.partitions[client_id]) * forward(clients, client_id)
    return local_training(clients, client_id, content) + answering
