"""An exchange with a client."""

from typing import Any

from sim.engine.grid import Exchange


def exchange(client_id: int, phase: str = "train", **changes: Any) -> Exchange:
    """One client's successful exchange of 100 bytes down and 10 up in round 3."""
    fields: dict[str, Any] = {
        "server_round": 3,
        "client_id": client_id,
        "phase": phase,
        "architecture": f"arch-{client_id}",
        "request_bytes": 100,
        "reply_bytes": 10,
        "metrics": {},
        "failure": "",
        "traceback": "",
    }
    return Exchange(**(fields | changes))
