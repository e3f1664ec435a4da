"""How many of those who were asked must give a usable reply, for a round to go on."""

from sim.engine.exchanges import Exchange


class QuorumLost(RuntimeError):
    """Too few usable replies to go on."""

    exit_code = 3


def require_quorum(exchanges: list[Exchange], quorum: float) -> None:
    """See that of each kind of message enough got a usable reply, but what is only watched."""
    phases: dict[str, list[Exchange]] = {}
    for exchange in exchanges:
        if not exchange.measurement:  # whoever watches ends no run
            phases.setdefault(exchange.phase, []).append(exchange)
    for asked in phases.values():
        _require_share(asked, quorum)


def _require_share(exchanges: list[Exchange], quorum: float) -> None:
    failed = [exchange for exchange in exchanges if exchange.failure]
    usable = len(exchanges) - len(failed)
    if usable >= quorum * len(exchanges):
        return
    raise QuorumLost(
        f"only {usable} of {len(exchanges)} replies are usable, quorum is {quorum}. First failure: "
        f"{failed[0]}\n{failed[0].traceback}"
    )
