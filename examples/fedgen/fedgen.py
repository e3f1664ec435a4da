"""FedGen: a generator learns what features classifiers take for a class, and is sent to clients.

Zhu, Hong, Zhou, "Data-Free Knowledge Distillation for Heterogeneous Federated Learning", ICML 2021
(arXiv:2105.10056). Clients disclose how many examples of each label they have. As the authors' code
but for this: latents are drawn once in a round, `samples` of each kind; a step uses all of them,
or one for each of its examples; what is said of the latter is said by the classifier received, not
by the one that learns; counts are of all that a client has; and clients are weighed for each label,
where a broadcast of the authors' has the mean over a batch's labels (`mixed_shares`).

    python run.py --config-dir examples/fedgen strategy=fedgen clients=same rounds=5
    python run.py --config-dir examples/fedgen experiment=fedgen_mnist strategy=fedgen_authors
"""

from functools import partial

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import nn
from torch.nn.functional import cross_entropy, linear, one_hot

from clients.handlers.base import Handler
from clients.handlers.compute_cost import local_training
from clients.handlers.parameters import train_parameters
from clients.handlers.state import client_of
from clients.messages.arrays import read_arrays, write_arrays
from clients.models.factory import load_parameters, parameters_of
from clients.seeding import Purpose, named_generator, seeded_torch
from clients.training.losses import kl
from clients.training.objective import Objective
from strategies.aggregation.parameters import WeightedSum
from strategies.base import BaseStrategy
from strategies.cohorts import draw

HEAD = ("classifier.weight", "classifier.bias")  # of every network that is shipped


class Generator(nn.Module):
    """Noise and labels to what the classifier receives [S, D]."""

    def __init__(self, classes, features, noise=32, hidden=256):
        super().__init__()
        self.classes, self.noise = classes, noise
        self.layers = nn.Sequential(
            nn.Linear(noise + classes, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, features),
        )  # fmt: skip

    def forward(self, noise, labels):
        return self.layers(torch.cat([noise, one_hot(labels, self.classes).float()], 1))


def penalty(parameters, anchors):
    """Alpha CE(head(G(noise, y)), y), y drawn of the labels that somebody has."""
    said = linear(anchors["latents"], *(parameters[name] for name in HEAD))
    return anchors["alpha"] * cross_entropy(said, anchors["drawn"])


def loss(outputs, labels, anchors):
    """CE(x, y) + alpha KL(head(G(noise, y)) || x) of each example [B], noise being its own."""
    own = cross_entropy(outputs.logits, labels, reduction="none")
    said = anchors["said"][outputs.rows % len(anchors["said"]), labels]
    return own + anchors["alpha"] * kl(outputs.logits, said.softmax(-1), 1.0)


OBJECTIVE = Objective(loss, penalty, anchors=("latents", "drawn", "said", "alpha"))


def train(clients, requests, contexts, device, *, samples):
    """Train the parameters received, held to what the generator makes; say one's label counts."""
    content = requests[0].content
    about, received = content["config"], read_arrays(content["arrays"])
    head = [torch.tensor(received[name]) for name in HEAD]
    generator = Generator(*head[0].shape).eval()
    load_parameters(generator, read_arrays(content["generator"]))
    server_round, labels = about["server-round"], torch.tensor(about["labels"])
    own = [clients.classes(client_of(context), server_round) for context in contexts]

    def anchors(client_id):
        name = f"fedgen {server_round} {client_id}"
        with seeded_torch(named_generator(clients.seed, Purpose.DIGEST, name)), torch.no_grad():
            drawn = labels[torch.randint(len(labels), (samples,))]
            latents = generator(torch.rand(samples, generator.noise), drawn)
            each = torch.arange(generator.classes).repeat(samples)
            said = linear(generator(torch.rand(len(each), generator.noise), each), *head)
        made = {"latents": latents, "drawn": drawn}
        made["said"] = said.view(samples, generator.classes, -1)
        made["alpha"] = torch.tensor(about["alpha"])
        return {name: tensor.to(device) for name, tensor in made.items()}

    replies = train_parameters(clients, requests, contexts, device, OBJECTIVE, anchors)
    for learned, reply in zip(own, replies, strict=True):
        if not isinstance(reply, Exception):
            counts = np.bincount(learned, minlength=generator.classes).astype(np.float32)
            reply.content["counts"] = write_arrays({"by-class": counts})
        yield reply


def fault(request, reply):
    """Look for what cannot be averaged, or says nothing of labels."""
    classes = request.content["arrays"][HEAD[0]].shape[0]
    counts = read_arrays(reply.content["counts"]).get("by-class", np.zeros(0))
    said = reply.content["metrics"]["num-examples"]
    if counts.shape != (classes,) or counts.min() < 0 or abs(counts.sum() - said) > 0.5:
        return f"its counts are no counts of {said} examples of {classes} classes"
    names = {*request.content["arrays"]}
    return None if {*reply.content["arrays"]} == names else "it sent other arrays than it got"


class FedGen(BaseStrategy):
    """Averages parameters; teaches a generator what the cohort's classifiers agree about."""

    averages = True

    def __init__(
        self, *, student, seed, alpha=1.0, decay=0.98, diversity=1.0, epochs=50, lr=3e-4,
        weight_decay=0.01, batch_size=32, samples=128, mixed_shares=False, fraction=1.0,
    ):  # fmt: skip
        if HEAD[0] not in student.state_dict():
            raise ValueError(f"student: expected a linear classifier of the name {HEAD[0][:-7]}")
        shape = student.state_dict()[HEAD[0]].shape
        with seeded_torch(named_generator(seed, Purpose.STUDENT, "fedgen")):
            self.generator = Generator(*shape)
        self.alpha, self.decay, self.diversity, self.epochs = alpha, decay, diversity, epochs
        adam = partial(torch.optim.Adam, lr=lr, weight_decay=weight_decay)
        self.lr, self.optimizer = lr, adam(self.generator.parameters())
        self.mixed_shares = mixed_shares
        self.batch_size, self.fraction, self.seed = batch_size, fraction, seed
        self.labels = []
        self.train = Handler(
            "train.fedgen",
            partial(train, samples=samples),
            keys=("server-round", "alpha", "labels"),
            records=("arrays", "generator"),
            replies={"arrays": ArrayRecord, "counts": ArrayRecord, "metrics": MetricRecord},
            fault=fault,
            multiplications=local_training,
        )
        self.handlers = (self.train,)

    def configure_train(self, server_round, arrays, config, grid):
        alpha = max(1e-4, self.alpha * self.decay ** (server_round - 1)) if self.labels else 0.0
        about = {"server-round": server_round, "alpha": alpha, "labels": self.labels or [0]}
        made = write_arrays(parameters_of(self.generator))
        content = RecordDict({"arrays": arrays, "generator": made, "config": ConfigRecord(about)})
        rng = named_generator(self.seed, Purpose.COHORT, str(server_round))
        cohort = draw(grid.get_node_ids(), self.fraction, rng)
        return [Message(content, node_id, self.train.kind) for node_id in cohort]

    def aggregate_train(self, server_round, replies):
        usable = [reply.content for reply in replies if reply.has_content()]
        if not usable:
            return None, None
        mean, heads, counts = WeightedSum(), [], []
        for content in usable:
            arrays = read_arrays(content["arrays"])
            mean.add(arrays, content["metrics"]["num-examples"])
            heads.append([torch.tensor(arrays[name]) for name in HEAD])
            counts.append(torch.tensor(read_arrays(content["counts"])["by-class"]))
        seen = torch.stack(counts).sum(0)
        now = seen.nonzero()[:, 0]
        self.labels = sorted({*self.labels, *now.tolist()})  # that anybody ever had
        shares = torch.stack(counts) / seen.clamp_min(1)  # [K, C]: w_k of each label
        with seeded_torch(named_generator(self.seed, Purpose.DISTILLATION, str(server_round))):
            last = self.teach(heads, shares, now, self.lr * self.decay ** (server_round - 1))
        return write_arrays(mean.mean()), MetricRecord({"generator-loss": last})

    def teach(self, heads, shares, seen, lr):
        """min_G sum_k mean w_k(y) CE(head_k(G(noise, y)), y) + diversity * D(G), y of `seen`."""
        weights, biases = (torch.stack(each) for each in zip(*heads, strict=True))
        self.generator.train()
        self.optimizer.param_groups[0]["lr"] = lr
        for _ in range(self.epochs):
            labels = seen[torch.randint(len(seen), (self.batch_size,))]
            noise = torch.rand(self.batch_size, self.generator.noise)
            latents = self.generator(noise, labels)
            said = torch.einsum("sd,kcd->ksc", latents, weights) + biases[:, None]
            apart = cross_entropy(said.flatten(0, 1), labels.repeat(len(said)), reduction="none")
            of_each = shares[:, labels]  # [K, S]
            if self.mixed_shares:
                of_each = of_each.mean(1, keepdim=True)
            loss = (of_each * apart.view(len(said), -1)).sum(0).mean()
            loss = loss + self.diversity * alike(latents, noise)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return float(loss.detach())

    def state(self):
        moments = self.optimizer.state_dict()["state"]
        adam = {f"{i} {n}": t.numpy() for i, own in moments.items() for n, t in own.items()}
        made = write_arrays(parameters_of(self.generator))
        seen = ConfigRecord({"labels": self.labels})
        return RecordDict({"generator": made, "adam": write_arrays(adam), "seen": seen})

    def restore(self, state):
        load_parameters(self.generator, read_arrays(state["generator"]))
        moments = {}
        for name, array in read_arrays(state["adam"]).items():
            moments.setdefault(int(name.split()[0]), {})[name.split()[1]] = torch.tensor(array)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.labels = [*state["seen"]["labels"]]


def alike(latents, noise):
    """Return exp(-mean of |G - G'| (noise - noise')^2), 1 where all noise gives the same."""
    of_latents = (latents[:, None] - latents).abs().mean(-1)
    of_noise = (noise[:, None] - noise).square().mean(-1)
    return (-of_latents * of_noise).mean().exp()
