"""Clients that do not run as the others do: each alone, or not at all."""

from sim.workers.group_recovery import failed, singles
from sim.workers.tasks import Group, Outcome


class Suspects:
    """Which clients killed their workers or hung, in this run; a resumed run forgets them."""

    def __init__(self) -> None:
        """Suspect nobody."""
        self._alone: set[int] = set()
        self._quarantined: dict[int, str] = {}

    def run_alone(self, group: Group) -> None:
        """Let no client of a group share one from now on."""
        self._alone.update(task.client_id for task in group.tasks)

    def quarantine(self, group: Group, deaths: int, cause: str) -> Outcome:
        """Run a client no more, and say so now and whenever it would be run.

        In the same words, without the round: a resumed run finds out anew, and has the same table.

        Args:
            group: Of this client alone.
            deaths: How many workers it took with it.
            cause: Why they died.

        Returns:
            What comes of the group.
        """
        why = f"quarantined: its worker died {deaths} times running it alone: {cause}"
        self._quarantined[group.tasks[0].client_id] = why
        return failed(group, why)

    def cut(self, group: Group) -> list[Group]:
        """Cut a group in which somebody is suspect into groups of one.

        What the others come to is then that of a group whose worker dies, so that a resumed run,
        which finds the suspect anew, has the same bits.
        """
        return singles(group) if any(self._is_known(t.client_id) for t in group.tasks) else [group]

    def refused(self, group: Group) -> Outcome | None:
        """Say what comes of the group of a client that is run no more; None if it is run."""
        cause = self._quarantined.get(group.tasks[0].client_id, "")
        return failed(group, cause) if cause and len(group.tasks) == 1 else None

    def judge(self, group: Group) -> None:
        """See to it that a group which could not be run together, but one by one, is so again."""
        if not any(self._is_known(task.client_id) for task in group.tasks):
            self.run_alone(group)

    def _is_known(self, client_id: int) -> bool:
        return client_id in self._alone or client_id in self._quarantined


def timed_out(group: Group, seconds: float) -> Outcome:
    """Say that a client, which ran alone, took too long."""
    phase = group.tasks[0].metadata.message_type
    return failed(group, f"timed out after {seconds:g} s in {phase} (sim.client_timeout_s)")
