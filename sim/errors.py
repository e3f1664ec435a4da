"""Errors that end a run, and say themselves all that there is to say."""


class PoolLost(RuntimeError):
    """What runs the clients has ended by itself: no round can be done any more."""


class ProbeError(ValueError):
    """A probe that did what no probe may; the message names it, and its value."""


class NoSuchNumber(ValueError):
    """A run is to end by a number that its rounds do not have; the message says which they have."""
