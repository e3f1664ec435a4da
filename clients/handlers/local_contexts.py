"""Local contexts of one call: read from states and requests, and put back when it is done."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Context, Message

from clients.handlers.state import LOCAL, PLAN, TRAINED_PLAN, client_of, kept_arrays, round_told
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import NOTES
from clients.models.factory import Parameters
from clients.population.clients import SimulatedClients
from clients.signatures import names
from clients.training.local_context import LocalContext


def local_contexts(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context]
) -> dict[int, LocalContext]:
    """Begin the local context of each client of a call.

    Args:
        clients: All of the federation's.
        requests: One for each client that answers.
        contexts: Theirs.

    Returns:
        By client id; none where the trainer does not ask for them, and networks keep their shapes.
    """
    if clients.shape is None and not names(clients.local_training, "local"):
        return {}
    return {
        client_of(context): LocalContext(
            client_of(context),
            round_told(request.content),
            state=partial(kept_arrays, context, LOCAL),
            received=partial(_received, request),
            plans=partial(_plans, context),
        )
        for request, context in zip(requests, contexts, strict=True)
    }


def settled(
    answer: Message | Exception, context: Context, local: Mapping[int, LocalContext]
) -> Message | Exception:
    """Put what a client keeps into its state, and what it noted into its reply.

    Args:
        answer: What came of its request; of a failure nothing is kept.
        context: The client's.
        local: Contexts by client id.

    Returns:
        The answer.
    """
    if isinstance(answer, Exception):
        return answer
    own = local[client_of(context)]
    if own.kept is not None:
        context.state[LOCAL] = write_arrays(own.kept)
    for name, plan in zip((PLAN, TRAINED_PLAN), own.planned or (), strict=False):
        if plan or name in context.state:
            context.state[name] = write_arrays({**plan})
    if own.notes:
        take_note(answer, own.notes)
    return answer


def take_note(answer: Message, notes: Mapping[str, float]) -> None:
    """Add numbers to what a reply notes."""
    known = cast(ConfigRecord, answer.content.get(NOTES) or ConfigRecord())
    answer.content[NOTES] = ConfigRecord({**known, **notes})


def _plans(context: Context) -> list[Parameters]:
    return [kept_arrays(context, name) for name in (PLAN, TRAINED_PLAN)]


def _received(request: Message) -> dict[str, Parameters]:
    records = request.content.items()
    return {name: read_arrays(each) for name, each in records if isinstance(each, ArrayRecord)}
