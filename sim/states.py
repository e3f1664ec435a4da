"""States of clients as bytes."""

import pickle

from flwr.app import RecordDict


def freeze(state: RecordDict) -> bytes:
    """Freeze."""
    return pickle.dumps(state)


def thaw(frozen: bytes) -> RecordDict:
    """Thaw."""
    state: RecordDict = pickle.loads(frozen)
    return state
