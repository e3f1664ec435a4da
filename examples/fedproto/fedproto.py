"""FedProto: clients of any architecture share what their classes look like in feature space.

Tan, Long, Liu, Zhou, Lu, Jiang, Zhang, "FedProto: Federated Prototype Learning across Heterogeneous
Clients", AAAI 2022 (arXiv:2105.00243). A prototype is the mean feature of a class; all networks
need as many features D, however they make them. Nothing else is sent, and there is no student.
Prototypes are those of the network as it is after local training, not of its last epoch.

    python run.py --config-dir examples/fedproto strategy=fedproto clients=same_width
"""

from dataclasses import replace

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from clients.execution.model_cache import arrays_of
from clients.handlers.base import Handler, each
from clients.handlers.compute_cost import local_training
from clients.handlers.state import MODEL, client_of, own_network, tested
from clients.messages.accumulator import fold_replies
from clients.messages.arrays import read_arrays, write_arrays
from clients.training.evaluation import predict_with_features
from clients.training.losses import cross_entropy
from clients.training.objective import Objective
from strategies.aggregation.record_sums import RecordSums
from strategies.base import BaseStrategy
from strategies.cohorts import to_cohort

NAME = "prototypes"


def prototype_loss(outputs, labels, anchors):
    """Cross-entropy + weight * MSE(features, global prototype of the label [C, D]), eq. 7."""
    wanted = anchors[NAME][labels]  # NaN where nobody has the class
    pull = (outputs.features() - wanted.nan_to_num()).square().mean(1) * ~wanted.isnan().any(1)
    return cross_entropy(outputs.logits, labels) + anchors["weight"] * pull


OBJECTIVE = Objective(prototype_loss, taps=("penultimate",), anchors=(NAME, "weight"))


def train(clients, request, context, device):
    """Train near the global prototypes; send the mean feature of each class that is there."""
    client_id, asked = client_of(context), request.content["config"]
    server_round = asked["server-round"]
    private, indices = clients.splits.private, clients.partitions[client_id]
    network = network_of(clients, context, device)
    there, weight = torch.full((private.task.num_classes, 1), torch.nan), 0.0  # in the first round
    if NAME in request.content:
        there, weight = prototypes_in(request.content), asked["weight"]
    anchors = {NAME: there.to(device), "weight": torch.tensor(weight)}
    labels = clients.classes(client_id, server_round)
    losses = clients.learn(network, client_id, server_round, OBJECTIVE, anchors)
    context.state[MODEL] = write_arrays(arrays_of(network.state_dict()))
    seen = clients.seen(private, client_id, "answer", server_round)
    features = predict_with_features(network, seen, indices)[1].numpy()
    means = np.full((private.task.num_classes, features.shape[1]), np.nan, np.float32)
    for label in np.unique(labels):
        means[label] = features[labels == label].mean(0)
    have = {"means": np.nan_to_num(means), "there": ~np.isnan(means[:, 0])}
    metrics = MetricRecord({"num-examples": len(indices), "train-loss": sum(losses[-1:])})
    return RecordDict({NAME: write_arrays(have), "metrics": metrics})


def evaluate(clients, request, context, device):
    """Answer the test set with the class of the nearest prototype; also its own classes alone."""
    test, prototypes = tested(clients, request.content), prototypes_in(request.content)
    network, everything = network_of(clients, context, device), np.arange(len(test))
    seen = clients.seen(test, client_of(context), "test", request.content["config"]["server-round"])
    features = predict_with_features(network, seen, everything)[1]
    right = torch.cdist(features, prototypes).nan_to_num(torch.inf).argmin(1).numpy() == test.labels
    indices = clients.partitions[client_of(context)]
    own = np.isin(test.labels, clients.splits.private.labels[indices])
    found = {"accuracy": float(right.mean())}
    if own.any():
        found["own-classes-accuracy"] = float(right[own].mean())
    return RecordDict({"metrics": MetricRecord(found)})


def network_of(clients, context, device):
    """Build the network that the client's state holds, or the one that it begins with."""
    if isinstance(parameters := own_network(clients, context, device), Exception):
        raise parameters
    name = clients.architectures[client_of(context)]
    return clients.place(device).networks.loaded(name, parameters)


def prototypes_in(content):
    """Read [C, D], NaN where nobody has the class: messages carry no NaN."""
    have = read_arrays(content[NAME])
    return torch.tensor(np.where(have["there"][:, None], have["means"], np.nan))


def fault(request, reply):
    """Look for what is no mean [C, D], and presence [C], of each class."""
    have = read_arrays(reply.content[NAME])
    shapes = [have[name].shape for name in ("means", "there") if name in have]
    fits = len(have) == len(shapes) == 2 and len(shapes[0]) == 2 and shapes[0][:1] == shapes[1]
    return None if fits else "its prototypes are no means [C, D] and presences [C]"


TRAIN = Handler(
    "train.prototypes",
    each(train),
    keys=("server-round", "weight"),
    records=(NAME,),
    replies={NAME: ArrayRecord, "metrics": MetricRecord},
    fault=fault,
    multiplications=local_training,
)
EVALUATE = replace(
    TRAIN, kind="evaluate.prototypes", answer=each(evaluate), replies={"metrics": MetricRecord},
    fault=None, multiplications=None,
)  # fmt: skip


class FedProto(BaseStrategy):
    """Averages prototypes over those who have the class, each client alike, as the authors' code.

    A class that nobody of a round's cohort has keeps its prototype.
    """

    handlers = (TRAIN, EVALUATE)
    has_student = False
    of_classes = own_objective = True

    def __init__(self, *, messenger, seed, weight=1.0, fraction=1.0):
        if messenger is not None:
            raise ValueError("clients.messenger: FedProto's clients have one network each")
        self.seed, self.weight, self.fraction = seed, weight, fraction
        self.prototypes = None  # {"means": [C, D], "there": [C]}

    def ask(self, server_round, grid, handler, fraction):
        about = ConfigRecord({"server-round": server_round, "weight": self.weight})
        content = RecordDict({"config": about})
        if self.prototypes is not None:
            content[NAME] = write_arrays(self.prototypes)
        whom = {"fraction": fraction, "seed": self.seed, "server_round": server_round}
        return to_cohort(grid, handler.kind, content, **whom)

    def configure_train(self, server_round, arrays, config, grid):
        return self.ask(server_round, grid, TRAIN, self.fraction)

    def aggregate_train(self, server_round, replies):
        total = RecordSums(NAME)
        if not fold_replies(total, replies):
            return None, None
        holders = total.sums[NAME]["there"]  # [C]
        means = total.sums[NAME]["means"] / np.maximum(holders, 1)[:, None]
        now, old, means = holders > 0, self.prototypes, means.astype(np.float32)
        if old is not None:
            means = np.where(now[:, None], means, old["means"])
        self.prototypes = {"means": means, "there": now if old is None else now | old["there"]}
        return None, MetricRecord({"num-prototypes": float(now.sum())})

    def configure_evaluate(self, server_round, arrays, config, grid):
        return self.ask(server_round, grid, EVALUATE, 1.0)

    def state(self):
        return RecordDict({NAME: write_arrays(self.prototypes or {})})

    def restore(self, state):
        self.prototypes = read_arrays(state[NAME]) or None
