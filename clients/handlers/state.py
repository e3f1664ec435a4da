"""What a client has of its own: its id, its network, and the names of its state's records."""

from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from clients.data import Dataset
from clients.execution.model_cache import Tensors, arrays_of, as_tensors
from clients.handlers.base import SERVER_ROUND
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import CONFIG
from clients.models.factory import Parameters, unlike
from clients.mutual.messenger import Messenger, Pair, learn_together
from clients.population.clients import STUDENT, SimulatedClients
from clients.seeding import Purpose, generator, named_generator

MODEL, HEAD = "model", "head"
MESSENGER, PUSH, LOCAL = "messenger", "push", "local"
PLAN, TRAINED_PLAN = "plan", "trained-plan"
"""Names of a client's records in `Context.state`."""

START = "start"
"""Record of a request: the parameters to begin with."""


def client_of(context: Context) -> int:
    """Return the client id, which Flower calls the partition id."""
    return int(context.node_config["partition-id"])


def round_of(request: Message) -> int:
    """Return the round of a request, 1..R."""
    return cast(int, request.content.config_records[CONFIG][SERVER_ROUND])


def round_told(content: RecordDict, otherwise: int = 0) -> int:
    """Return the round of a request's content, or another number if it does not tell."""
    told = content.config_records.get(CONFIG, ConfigRecord())
    return cast(int, told.get(SERVER_ROUND, otherwise))


def kept_arrays(context: Context, name: str) -> Parameters:
    """Return the arrays of a record of a client's state; none if there is no such record."""
    return read_arrays(context.state.array_records.get(name, ArrayRecord()))


def tested(clients: SimulatedClients, content: RecordDict) -> Dataset:
    """Return the test examples of a request's round; of one that names none, all of them."""
    splits = clients.splits
    return splits.tested(round_told(content, otherwise=splits.rounds))


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


def personal_network(
    clients: SimulatedClients, context: Context, received: Tensors, device: str
) -> Tensors:
    """Complete the parameters that a client received by those that its state holds.

    Args:
        clients: All.
        context: The client's.
        received: A part of its network, or all; what its state holds goes before.
        device: Where to compute.

    Returns:
        Its network. What neither has, in its first round, is as in the student, so that all begin
        alike; in a network unlike the student's as all of that architecture begin.
    """
    if kept := kept_arrays(context, MODEL):
        return {**received, **as_tensors(kept, device)}
    networks, name = clients.place(device).networks, clients.architectures[client_of(context)]
    start = networks.fresh(STUDENT, generator(clients.seed, Purpose.STUDENT)).state_dict()
    if unlike(networks.of(name), start):
        start = networks.fresh(
            name, named_generator(clients.seed, Purpose.ARCHITECTURE, name)
        ).state_dict()
    return {**start, **received}


def pair_trained(
    clients: SimulatedClients,
    how: Messenger,
    context: Context,
    start: Parameters | Exception,
    server_round: int,
    device: str,
) -> tuple[Parameters, dict[str, float]] | Exception:
    """Let a client's own network and a messenger teach each other on the client's examples.

    Args:
        clients: All.
        how: They do.
        context: The client's; its own network, and the head, are replaced in its state.
        start: Parameters of the messenger, or why there are none.
        server_round: 1..R.
        device: Where to compute.

    Returns:
        The messenger's parameters and the reply's metrics, or what kept the client from them.
    """
    if isinstance(start, Exception):
        return start
    client_id = client_of(context)
    indices = clients.partitions[client_id]
    try:
        private = own_network(clients, context, device)
        if isinstance(private, Exception):
            return private
        head = context.state.array_records.get(HEAD)
        pair, loss = learn_together(
            how,
            (clients.models[clients.architectures[client_id]], clients.student),
            Pair(arrays_of(private), start, None if head is None else read_arrays(head)),
            clients.seen(clients.splits.private, client_id, "train", server_round),
            indices,
            clients.labels(client_id, server_round),
            clients.seed,
            (server_round, client_id),
            device,
        )
    except Exception as error:  # the client's, not the group's
        return error
    context.state[MODEL] = write_arrays(pair.private)
    if pair.head is not None:
        context.state[HEAD] = write_arrays(pair.head)
    return pair.messenger, {"num-examples": len(indices), "train-loss": loss}


def own_parameters(clients: SimulatedClients, context: Context, request: Message) -> Parameters:
    """Return what a client's state holds; before it holds any, what it is sent to begin with.

    They are its network's, or its messenger's if it has one.
    """
    name = MODEL if clients.messenger is None else MESSENGER
    record = context.state.array_records.get(name)
    if record is None and (record := request.content.array_records.get(START)) is None:
        raise ValueError(f"it has no parameters yet, and was sent none as '{START}'")
    return read_arrays(record)


def keep_parameters(clients: SimulatedClients, context: Context, parameters: Parameters) -> None:
    """Replace them in a client's state."""
    name = MODEL if clients.messenger is None else MESSENGER
    context.state[name] = write_arrays(parameters)
