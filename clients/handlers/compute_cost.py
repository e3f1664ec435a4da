"""The costs that handlers share: multiplications of networks' passes, for the virtual clock.

Counted are those of forward passes, `model_cache.work_of` each; a training step is three of them,
the backward pass being twice the forward one (Kaplan et al., "Scaling Laws for Neural Language
Models", 2020, arXiv:2001.08361, sec. 2.1). Left out, as small beside a network's passes: optimiser
steps, losses, heads, mixtures of what neighbours sent, the logistic regression of a discriminator
on features or pixels that are there; and the networks that a method's own objective asks.
"""

from flwr.app import RecordDict

from clients.execution.model_cache import work_of
from clients.execution.shape_variants import Variant
from clients.population.clients import STUDENT, SimulatedClients
from clients.training.batches import examples_learned
from clients.training.loop import PASSES
from clients.training.objective import as_objective


def forward(clients: SimulatedClients, client_id: int, trained: bool = False) -> float:
    """Count a forward pass of one example through a client's network, as in `network_of`."""
    name = clients.network_of(client_id, trained)
    if isinstance(name, Variant) and name not in clients.forward:
        # By its text, not by the variant, which holds its plan's arrays: there may be many.
        clients.forward[str(name)] = work_of(name, name.model, clients.splits.private.task)
    return clients.forward[name]


def local_training(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    """Count training on private examples; with a messenger it and the client's own network."""
    examples, once = len(clients.partitions[client_id]), forward(clients, client_id, trained=True)
    if (how := clients.messenger) is not None:
        return PASSES * how.epochs * examples * (once + clients.forward[STUDENT])
    passes = PASSES + len(as_objective(clients.objective).networks)  # these answer every batch too
    return passes * (examples_learned(clients.local_training, examples) or 0) * once
