"""MOON: what a client's network sees is drawn to the global one's, and away from its last.

Li, He, Song, "Model-Contrastive Federated Learning", CVPR 2021 (arXiv:2103.16257), eq. 3. z is what
the classifier sees; the paper puts a projection head in front of that.

    python run.py --config-dir examples/moon strategy=moon clients=same
"""

from dataclasses import replace
from functools import partial

import torch
from torch.nn.functional import cosine_similarity

from clients.execution.model_cache import as_tensors
from clients.handlers.parameters import TRAIN, train_parameters
from clients.handlers.state import client_of
from clients.messages.arrays import read_arrays
from clients.training.losses import cross_entropy
from clients.training.objective import START, Objective
from strategies.server.averaging import Averaging

PREVIOUS = "previous"


def contrastive_loss(outputs, labels, anchors, *, mu, temperature):
    """Cross-entropy + mu * -log(g / (g + p)), g = e^(cos(z, z_global) / T), p of the previous z."""
    others = [outputs.of(START).features(), outputs.of(PREVIOUS).features()]
    near = torch.stack([cosine_similarity(outputs.features(), other) for other in others], 1)
    contrast = -(near / temperature).log_softmax(1)[:, 0]
    return cross_entropy(outputs.logits, labels) + mu * contrast


def train(clients, requests, contexts, device, *, objective):
    """Train the parameters received, beside what a client's own were when it last trained."""
    received = requests[0].content["arrays"]
    last = {client_of(c): c.state.get(PREVIOUS, received) for c in contexts}

    def anchors(client_id):
        return {PREVIOUS: as_tensors(read_arrays(last[client_id]), device)}

    replies = train_parameters(clients, requests, contexts, device, objective, anchors)
    for context, reply in zip(contexts, replies, strict=True):
        if not isinstance(reply, Exception):
            context.state[PREVIOUS] = reply.content["arrays"]
        yield reply


class Moon(Averaging):
    """Federated averaging whose clients answer Flower's own "train" in MOON's way."""

    of_classes = own_objective = True

    def __init__(self, *, mu, temperature, **numbers):
        super().__init__(**numbers)
        if mu < 0 or temperature <= 0:
            raise ValueError(f"strategy.mu={mu}, temperature={temperature}: expected >= 0, > 0")
        loss = partial(contrastive_loss, mu=mu, temperature=temperature)
        objective = Objective(loss, taps=("penultimate",), networks=(START, PREVIOUS))
        answer = partial(train, objective=objective)
        self.handlers = (replace(TRAIN, answer=answer, keys=("server-round",)),)
