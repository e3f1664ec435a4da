"""What a client has of its own: its id, its network, and the names of its state's records."""

from flwr.app import Context

from clients.arrays import read_arrays
from clients.resident import Tensors, as_tensors
from clients.seeding import Purpose, generator
from clients.simulated import SimulatedClients

MODEL, DISCRIMINATOR, HEAD = "model", "discriminator", "head"
"""Names of a client's records in `Context.state`."""


def client_of(context: Context) -> int:
    """Return the client id, which Flower calls the partition id."""
    return int(context.node_config["partition-id"])


def own_network(clients: SimulatedClients, context: Context, device: str) -> Tensors | Exception:
    """Return the network that a client's state holds; before it has one, what it begins with."""
    try:
        if (stored := context.state.array_records.get(MODEL)) is not None:
            return as_tensors(read_arrays(stored), device)
        client_id = client_of(context)
        rng = generator(clients.seed, Purpose.INITIALISE, 0, client_id)
        networks = clients.place(device).networks
        return dict(networks.fresh(clients.architectures[client_id], rng).state_dict())
    except Exception as error:  # the client's, not the group's
        return error
