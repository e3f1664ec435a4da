"""MOON: what a client's network sees is drawn to the global one's, and away from its last.

Li, He, Song, "Model-Contrastive Federated Learning", CVPR 2021 (arXiv:2103.16257), eq. 3. z is what
the classifier sees; the paper puts a projection head in front of that.

    python run.py --config-dir examples/moon strategy=moon clients=same
"""

from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch
from flwr.app import MetricRecord, RecordDict
from torch.nn import Module
from torch.nn.functional import cosine_similarity, cross_entropy

from clients.execution.model_cache import arrays_of, as_tensors
from clients.handlers.base import each
from clients.handlers.parameters import TRAIN
from clients.handlers.state import client_of
from clients.messages.arrays import read_arrays, write_arrays
from strategies.server.averaging import Averaging

PREVIOUS = "previous"


class Contrasted(Module):
    """Answers with logits [B, C] and the features [B, D] of itself and of two others."""

    def __init__(self, network, *others):
        super().__init__()
        self.network = network
        self.others = others  # in a tuple: they are no part of it, and do not learn

    def forward(self, images):
        features = self.network.features(images)
        with torch.no_grad():
            seen = [other.features(images) for other in self.others]
        return torch.cat([self.network.classifier(features), features, *seen], dim=1)


def contrastive_loss(outputs, labels, *, num_classes, mu, temperature):
    """Cross-entropy + mu * -log(g / (g + p)), g = e^(cos(z, z_global) / T), p of the previous z."""
    logits, seen = outputs[:, :num_classes], outputs[:, num_classes:]
    own, of_global, of_previous = seen.chunk(3, dim=1)
    near = torch.stack([cosine_similarity(own, other) for other in (of_global, of_previous)], 1)
    contrast = -(near / temperature).log_softmax(1)[:, 0]
    return cross_entropy(logits, labels, reduction="none") + mu * contrast


def train(clients, request, context, device, *, mu, temperature):
    """Train the parameters received, near what they see and not near what one's own last saw."""
    client_id, server_round = client_of(context), request.content["config"]["server-round"]
    networks, name = clients.place(device).networks, clients.architectures[client_id]
    received = as_tensors(read_arrays(request.content["arrays"]), device)
    kept = context.state.get(PREVIOUS)
    last = received if kept is None else as_tensors(read_arrays(kept), device)
    others = [deepcopy(networks.loaded(name, each_one)).eval() for each_one in (received, last)]
    network = networks.loaded(name, received)
    classes, indices = clients.splits.private.num_classes, clients.partitions[client_id]
    loss = partial(contrastive_loss, num_classes=classes, mu=mu, temperature=temperature)
    losses = clients.learn(Contrasted(network, *others), client_id, server_round, loss)
    arrays = write_arrays(arrays_of(network.state_dict()))
    context.state[PREVIOUS] = arrays
    metrics = MetricRecord({"num-examples": len(indices), "train-loss": sum(losses[-1:])})
    return RecordDict({"arrays": arrays, "metrics": metrics})


class Moon(Averaging):
    """Federated averaging whose clients answer Flower's own "train" in MOON's way."""

    def __init__(self, *, mu, temperature, **numbers):
        super().__init__(**numbers)
        answer = each(partial(train, mu=mu, temperature=temperature))
        self.handlers = (replace(TRAIN, answer=answer, keys=("server-round",)),)
