"""Why a worker is lost, from what Ray says of it."""

import ray

OF_A_MACHINE = ("node has died", "node died", "is unavailable")
"""What Ray says where a machine was lost, or the way to it."""

SILENT = (
    "its process ended without a word: killed, as the system does where memory is short, or "
    "crashed, or left by os._exit"
)


def machine_lost(death: ray.exceptions.RayError) -> bool:
    """Tell whether a machine, or what lay on it, is gone: that is no client's fault."""
    kinds = (ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError)
    return isinstance(death, kinds) or any(words in str(death) for words in OF_A_MACHINE)


def cause_of(death: ray.exceptions.RayError) -> str:
    """Say in one line why a worker is lost."""
    text = str(death)
    if machine_lost(death):
        return "its machine was lost"
    if isinstance(death, ray.exceptions.OutOfMemoryError) or "low on memory" in text:
        return "out of memory: Ray ended it before the machine had none left"
    if "connection error code" in text:
        return SILENT
    return (text.strip().splitlines() or [type(death).__name__])[-1].strip()
