"""Predictions: each client keeps a network of its own and says what it answers."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from clients.execution.executor import Lesson, Trained
from clients.execution.model_cache import Tensors, as_tensors
from clients.handlers.answers_by_field import answer
from clients.handlers.base import SERVER_ROUND, Handler, Replies
from clients.handlers.compute_cost import forward, local_training
from clients.handlers.shape_choice import reshaped
from clients.handlers.state import MODEL, client_of, own_network
from clients.messages.answer_faults import fault_in_answers
from clients.messages.arrays import write_arrays
from clients.messages.field import MAX_ANSWER, NO_FIELDS, Fields
from clients.messages.requests import (
    ARRAYS,
    CONFIG,
    INPUTS,
    METRICS,
    PREDICTIONS,
    TARGETS,
    PredictionRequest,
    client_id_of,
    read_request,
)
from clients.messages.requests import (
    STUDENT as FED_BACK,
)
from clients.models.factory import unlike
from clients.population.clients import STUDENT, SimulatedClients
from clients.seeding import Purpose, stream
from clients.training.loop import PASSES
from clients.training.losses import kl, mse
from clients.training.objective import Loss, Objective
from clients.training.task_objectives import of_examples


def train_predictions(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    device: str,
    *,
    fields: Fields = NO_FIELDS,
    digest: Loss | Objective | None = None,
) -> Replies:
    """Take in what was fed back, the student or targets, train, answer the proxy examples."""
    asked = read_request(requests[0].content)
    ids = [client_of(context) for context in contexts]
    starts = [own_network(clients, context, device) for context in contexts]
    if asked.student is not None:
        starts = _digested(clients, ids, starts, asked, device)
    losses: dict[int, dict[str, float]] = {client_id: {} for client_id in ids}
    if asked.targets is not None:
        assert digest is not None, "a strategy that feeds targets back binds it"
        targets = torch.from_numpy(asked.targets.copy())
        fitted = _imitated(clients, ids, starts, asked, targets, digest, device)
        losses = {k: _last("digest-loss", each) for k, each in zip(ids, fitted, strict=True)}
        starts = [_network(each, device) for each in fitted]
    networks: list[Tensors | Exception] = []
    trained = clients.train(ids, starts, asked.server_round, device)
    trained = reshaped(clients, ids, trained, asked.server_round, device)
    for context, client_id, result in zip(contexts, ids, trained, strict=True):
        if isinstance(result, Exception):
            networks.append(result)
            continue
        context.state[MODEL] = write_arrays(result.parameters)
        networks.append(as_tensors(result.parameters, device))
        losses[client_id] |= _last("train-loss", result)
    yield from answer(clients, requests, contexts, networks, asked, losses, device, fields)


def evaluate_predictions(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    device: str,
    *,
    fields: Fields = NO_FIELDS,
) -> Replies:
    """Answer the test set, or proxy examples, with the networks as they are."""
    asked = read_request(requests[0].content)
    networks = [own_network(clients, context, device) for context in contexts]
    yield from answer(clients, requests, contexts, networks, asked, {}, device, fields)


def _digested(
    clients: SimulatedClients,
    ids: Sequence[int],
    starts: Sequence[Tensors | Exception],
    asked: PredictionRequest,
    device: str,
) -> list[Tensors | Exception]:
    """Become the student where the architectures agree, else imitate it on the proxy examples."""
    assert asked.student is not None, "nothing was fed back"
    student, proxy_ids = as_tensors(asked.student, device), imitated_ids(asked)
    networks, proxy = clients.place(device).networks, clients.splits.proxy
    names = [clients.network_of(client_id) for client_id in ids]
    alike = {n for n in dict.fromkeys(names) if not unlike(networks.of(n), student)}
    if not (left := [k for k, name in enumerate(names) if name not in alike]):
        return [student] * len(starts)
    rows, task = networks.predict(STUDENT, student, proxy, proxy_ids), proxy.task
    targets = task.by_input((rows / asked.temperature).softmax(-1) if task.soft else rows)
    loss = of_examples(partial(kl if task.soft else mse, temperature=asked.temperature), task)
    whom = [ids[k] for k in left], [starts[k] for k in left]
    fitted = _imitated(clients, *whom, asked, targets, loss, device)
    found = [_network(each, device) for each in fitted]
    return [student if name in alike else found.pop(0) for name in names]


def _imitated(
    clients: SimulatedClients,
    ids: Sequence[int],
    starts: Sequence[Tensors | Exception],
    asked: PredictionRequest,
    targets: torch.Tensor,
    loss: Loss | Objective,
    device: str,
) -> list[Trained | Exception]:
    """Imitate targets on the proxy examples that they are of, each client from its own start."""
    proxy_ids = imitated_ids(asked)

    def lesson(client_id: int, start: Tensors) -> Lesson:
        draws = stream(clients.seed, Purpose.DIGEST, asked.server_round, client_id)
        return Lesson(start, proxy_ids, targets, draws)

    proxy, epochs = clients.splits.proxy, asked.digest_epochs
    return [*clients.fit(ids, starts, lesson, proxy, loss, device, epochs=epochs)]


def _network(fitted: Trained | Exception, device: str) -> Tensors | Exception:
    return fitted if isinstance(fitted, Exception) else as_tensors(fitted.parameters, device)


def _last(name: str, fitted: Trained | Exception) -> dict[str, float]:
    """Name the loss of the last epoch, where there was one."""
    if isinstance(fitted, Exception) or not fitted.losses:
        return {}
    return {name: fitted.losses[-1]}


def imitated_ids(request: PredictionRequest) -> npt.NDArray[np.int64]:
    """Say on which proxy examples what is fed back is imitated."""
    ids = request.proxy_ids if request.digest_ids is None else request.digest_ids
    assert ids is not None, "train.predictions without proxy ids"
    return ids


# --- what it costs ---


def _training_and_answers(
    clients: SimulatedClients, client_id: int, content: RecordDict, *, fields: Fields = NO_FIELDS
) -> float:
    asked, training = read_request(content), local_training(clients, client_id, content)
    digesting = _digesting(clients, client_id, asked)
    return digesting + training + _answering(clients, client_id, asked, fields)


def _answers_only(
    clients: SimulatedClients, client_id: int, content: RecordDict, *, fields: Fields = NO_FIELDS
) -> float:
    return _answering(clients, client_id, read_request(content), fields)


def _answering(
    clients: SimulatedClients, client_id: int, asked: PredictionRequest, known: Fields
) -> float:
    """Answer the inputs, and what fields ask beside them."""
    own = len(clients.partitions[client_id])
    negatives = 0 if asked.negative_ids is None else len(asked.negative_ids)
    inputs = asked.num_inputs
    for each in asked.asks(known).values():
        if each.more_examples is not None:
            inputs += each.more_examples(own, negatives)
    return inputs * forward(clients, client_id)


def _digesting(clients: SimulatedClients, client_id: int, asked: PredictionRequest) -> float:
    """Imitate targets; ask the student, and imitate it: of one's own architecture, neither."""
    imitating = PASSES * asked.digest_epochs * forward(clients, client_id, trained=True)
    if asked.targets is not None:
        return len(imitated_ids(asked)) * imitating
    if asked.student is None or asked.proxy_ids is None:
        return 0.0
    own = clients.place("cpu").networks.of(clients.network_of(client_id, trained=True))
    if not unlike(own, asked.student):
        return 0.0
    return len(imitated_ids(asked)) * (clients.forward[STUDENT] + imitating)


def _of_proxy(content: RecordDict) -> bool:
    """Tell answers that teach from those to the test set, which are a measurement."""
    return "proxy-ids" in content.get(INPUTS, RecordDict())


def _fault(request: Message, reply: Message, *, fields: Fields = NO_FIELDS) -> str | None:
    client_id = client_id_of(request.metadata.dst_node_id)
    return fault_in_answers(read_request(request.content), client_id, reply.content, fields)


EVALUATE_PREDICTIONS = Handler(
    "evaluate.predictions",
    evaluate_predictions,
    keys=(
        *(SERVER_ROUND, "num-inputs", "num-classes", "sites", "digest-epochs", "temperature"),
        *("answers", "send-parameters", "fields", "discriminator-inputs"),
        *("discriminator-balanced", "discriminator-l2"),
        *("discriminator-epsilon", "discriminator-delta"),
    ),
    records=(INPUTS,),
    replies={
        **{CONFIG: ConfigRecord, PREDICTIONS: ArrayRecord},
        **{METRICS: MetricRecord, ARRAYS: ArrayRecord},
    },
    limits={PREDICTIONS: MAX_ANSWER},
    fault=_fault,
    multiplications=_answers_only,
    timed=_of_proxy,
)
"""Answers to the proxy examples that are named, or to the test set."""

TRAIN_PREDICTIONS = replace(
    EVALUATE_PREDICTIONS,
    kind="train.predictions",
    answer=train_predictions,
    records=(INPUTS, FED_BACK, TARGETS),
    multiplications=_training_and_answers,
    timed=None,
)
"""The same after local training, and after taking in a student or targets that are fed back."""


def predictions(
    fields: Fields = NO_FIELDS, digest: Loss | Objective | None = None
) -> tuple[Handler, Handler]:
    """Make the handlers of those that say more than logits and a discriminator's probabilities.

    Args:
        fields: What else can be asked for, by name.
        digest: What is minimised to imitate targets that are fed back; None = none are.

    Returns:
        Of "train.predictions" and "evaluate.predictions".
    """
    if not fields and digest is None:  # what has nothing bound need not be watched
        return TRAIN_PREDICTIONS, EVALUATE_PREDICTIONS
    more = partial(partial, fields=fields)
    return (
        replace(
            TRAIN_PREDICTIONS,
            answer=more(train_predictions, digest=digest),
            fault=more(_fault),
            multiplications=more(_training_and_answers),
        ),
        replace(
            EVALUATE_PREDICTIONS,
            answer=more(evaluate_predictions),
            fault=more(_fault),
            multiplications=more(_answers_only),
        ),
    )
