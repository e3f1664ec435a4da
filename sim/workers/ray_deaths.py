"""Why a worker is lost, from what Ray says of it; and what Ray says that is no worker's loss."""

from ray import exceptions

from sim.errors import PoolLost

MACHINES = (exceptions.NodeDiedError, exceptions.ObjectLostError, exceptions.LocalRayletDiedError)
OF_A_MACHINE = ("node has died", "node died")
"""What Ray raises, or says, where a machine was lost."""

GONE = (
    *(exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.OutOfMemoryError),
    *MACHINES,
)
"""What Ray raises where a worker, or what it made, is gone, or the way to it."""

UNREADABLE = (exceptions.RayTaskError, exceptions.RaySystemError)
"""Where an answer cannot be sent, or not be read here: its worker lives."""

FULL = (exceptions.ObjectStoreFullError, exceptions.OutOfDiskError)
"""Where there is no room for an object, in memory or on disk."""

SILENT = (
    "its process ended without a word: killed, as the system does where memory is short, or "
    "crashed, or left by os._exit"
)


def machine_lost(death: exceptions.RayError) -> bool:
    """Tell whether a machine, or what lay on it, is gone: that is no client's fault."""
    return isinstance(death, MACHINES) or any(words in str(death) for words in OF_A_MACHINE)


def connection_lost(death: exceptions.RayError) -> bool:
    """Tell whether only the way to a worker is gone: it may live, and nobody is to blame."""
    return isinstance(death, exceptions.ActorUnavailableError)


def ended_by(error: exceptions.RayError) -> PoolLost:
    """Say what keeps Ray from going on, as a full store or disk does, where no worker died of it.

    Args:
        error: What Ray raised.

    Returns:
        What is to be raised in its place, in one line.
    """
    said = " ".join(str(error).split()) or "it says no more"
    return PoolLost(f"sim=ray: {type(error).__name__}: {said}")


def cause_of(death: exceptions.RayError) -> str:
    """Say in one line why a worker is lost."""
    text = str(death)
    if machine_lost(death):
        return "its machine was lost"
    if connection_lost(death):
        return "the connection to it was lost"
    if isinstance(death, exceptions.OutOfMemoryError) or "low on memory" in text:
        return "out of memory: Ray ended it before the machine had none left"
    if "connection error code" in text:
        return SILENT
    return (text.strip().splitlines() or [type(death).__name__])[-1].strip()
