"""FedMD: clients of any architecture come closer to the mean of all their logits on public inputs.

Li, Wang, "FedMD: Heterogenous Federated Learning via Model Distillation", 2019 (arXiv:1910.03581).
A round: clients *digest* the consensus (mean absolute error of logits), *revisit* their private
examples, and answer the next round's public inputs; there is no student. Public labels are used in
round 1 only, and only if asked for.

    python run.py --config-dir examples/fedmd strategy=fedmd rounds=3
"""

from functools import partial

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from clients.execution.executor import Lesson
from clients.execution.model_cache import as_tensors
from clients.handlers.answers_by_field import answers_of
from clients.handlers.base import Handler
from clients.handlers.compute_cost import PASSES, forward, local_training
from clients.handlers.parameters import training_metrics
from clients.handlers.peer_parameters import EVALUATE_OWN
from clients.handlers.state import MODEL, client_of, own_network
from clients.messages.accumulator import Reducer, fold_replies
from clients.messages.arrays import read_arrays, write_arrays
from clients.seeding import Purpose, named_generator, stream
from clients.training.losses import cross_entropy
from strategies.aggregation.parameters import odd_form
from strategies.aggregation.record_sums import RecordSums
from strategies.base import BaseStrategy
from strategies.cohorts import to_cohort

CONSENSUS, ASKED, LOGITS = "consensus", "asked", "logits"


def absolute_error(logits, targets):
    """Mean over classes of |z - consensus|."""
    return (logits - targets).abs().mean(1)


def train(clients, requests, contexts, device, *, digest_epochs, public_epochs):
    """Digest the consensus, revisit one's own examples, answer what is asked next."""
    content, proxy = requests[0].content, clients.splits.proxy
    server_round, ids = content["config"]["server-round"], [client_of(c) for c in contexts]
    networks = [own_network(clients, context, device) for context in contexts]

    def learned(indices, targets, loss, epochs):
        def lesson(client_id, start):
            draws = stream(clients.seed, Purpose.DIGEST, server_round, client_id)
            return Lesson(start, indices, torch.tensor(targets), draws)

        done = clients.fit(ids, networks, lesson, proxy, loss, device, epochs=epochs)
        return [e if isinstance(e, Exception) else as_tensors(e.parameters, device) for e in done]

    if server_round == 1 and public_epochs:
        networks = learned(np.arange(len(proxy)), proxy.labels, cross_entropy, public_epochs)
    if CONSENSUS in content:
        told = read_arrays(content[CONSENSUS])
        networks = learned(told["ids"], told[LOGITS], absolute_error, digest_epochs)
    trained = list(clients.train(ids, networks, server_round, device))
    after = [
        result if isinstance(result, Exception) else as_tensors(result.parameters, device)
        for result in trained
    ]
    asked = proxy, read_arrays(content[ASKED])["ids"]
    seen = [clients.seen(proxy, client_id, "answer", server_round) for client_id in ids]
    answers = answers_of(clients, contexts, after, asked, seen, (), device)
    for request, context, result in zip(requests, contexts, trained, strict=True):
        if isinstance(result, Exception) or isinstance(answer := next(answers), Exception):
            yield result if isinstance(result, Exception) else answer
            continue
        context.state[MODEL] = write_arrays(result.parameters)
        metrics = training_metrics(clients, client_of(context), result)
        logits = write_arrays({LOGITS: answer.logits.numpy()})
        yield Message(RecordDict({LOGITS: logits, "metrics": metrics}), reply_to=request)


def fault(num_classes, request, reply):
    """Look for what is no row of logits for each input that was asked about."""
    rows = len(read_arrays(request.content[ASKED])["ids"])
    return odd_form(reply.content[LOGITS], {LOGITS: f"float32[{rows}, {num_classes}]"})


def multiplications(digest_epochs, clients, client_id, content):
    """Count digesting, training and answering."""
    digested = len(read_arrays(content[CONSENSUS])["ids"]) if CONSENSUS in content else 0
    asked = len(read_arrays(content[ASKED])["ids"])
    passes = PASSES * digest_epochs * digested + asked
    return passes * forward(clients, client_id) + local_training(clients, client_id, content)


class FedMD(BaseStrategy):
    """The consensus is the mean of logits, each client alike."""

    has_student = False

    def __init__(self, *, proxy, messenger, seed, public_inputs, digest_epochs, public_epochs,
                 fraction):  # fmt: skip
        if messenger is not None:
            raise ValueError("clients.messenger: FedMD's clients have one network each")
        self.proxy, self.whom = proxy, {"seed": seed, "fraction": fraction}
        self.public_inputs, self.consensus = min(public_inputs, len(proxy)), None
        self.fault = partial(fault, proxy.task.num_classes)
        numbers = {"digest_epochs": digest_epochs, "public_epochs": public_epochs}
        self.train = Handler(
            "train.fedmd",
            partial(train, **numbers),
            records=(CONSENSUS, ASKED),
            replies={LOGITS: ArrayRecord, "metrics": MetricRecord},
            fault=self.fault,
            multiplications=partial(multiplications, digest_epochs),
        )
        self.handlers = (self.train, EVALUATE_OWN)

    def intake(self, server_round, phase):
        return Reducer(partial(RecordSums, LOGITS), self.fault) if phase == "train" else None

    def ids_of(self, server_round):
        """Draw a round's public inputs [P]."""
        rng = named_generator(self.whom["seed"], Purpose.CHUNKS, f"fedmd {server_round}")
        return np.sort(rng.permutation(len(self.proxy))[: self.public_inputs])

    def configure_train(self, server_round, arrays, config, grid):
        content = RecordDict({"config": ConfigRecord({"server-round": server_round})})
        content[ASKED] = write_arrays({"ids": self.ids_of(server_round + 1)})
        if self.consensus is not None:
            told = {"ids": self.ids_of(server_round), LOGITS: self.consensus}
            content[CONSENSUS] = write_arrays(told)
        return to_cohort(grid, self.train.kind, content, **self.whom, server_round=server_round)

    def aggregate_train(self, server_round, replies):
        total = RecordSums(LOGITS)
        if not fold_replies(total, replies):
            self.consensus = None  # of other inputs than the next round's
            return None, None
        self.consensus = total.mean(LOGITS)[LOGITS].astype(np.float32)
        return None, MetricRecord({"num-replies": total.clients})

    def configure_evaluate(self, server_round, arrays, config, grid):
        content = RecordDict({"config": ConfigRecord({"server-round": server_round})})
        return [Message(content, node_id, EVALUATE_OWN.kind) for node_id in grid.get_node_ids()]

    def state(self):
        there = {} if self.consensus is None else {LOGITS: self.consensus}
        return RecordDict({CONSENSUS: write_arrays(there)})

    def restore(self, state):
        self.consensus = read_arrays(state[CONSENSUS]).get(LOGITS)
