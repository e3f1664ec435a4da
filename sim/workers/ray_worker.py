"""The process side of a Ray pool.

Whatever needs torch is imported where it is used, so that the driver can name this class without.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.workers.tasks import Group, Program


class Worker:
    """The process side. Keeps the program and the data, nothing of any client."""

    def __init__(self, seed: int, threads: int, device: str) -> None:
        """Set up the process.

        Args:
            seed: The run's seed.
            threads: Threads of this process.
            device: Where clients of ours compute.
        """
        from sim.workers.process_setup import assume_task_identity, keep_memory, pin_threads

        pin_threads(threads)
        keep_memory()
        assume_task_identity(run_id=1)
        self._seed = seed
        self._device = device
        self._program: Program | None = None

    def load(self, program: "Program") -> None:
        """Keep the program; its numpy arrays stay in shared memory, read only."""
        self._program = program

    def run(self, group: "Group", content: bytes, *there: bytes) -> tuple[Any, ...]:
        """Run a group, of which the states that are there, and then the payloads, come one by one.

        Return what came of it and, as objects of their own, the states, and payloads that are kept.
        """
        from clients.messages.accumulator import Keep
        from sim.workers.runner import run_group

        assert self._program is not None, "load the program first"
        given = iter(there)
        states = [next(given) if has_one else None for has_one in group.states]
        payloads = [*given]
        outcome = run_group(
            self._program, group, content, states, payloads, self._seed, self._device
        )
        changed = [state is not None for state in outcome.states]
        kept = [payload is not None for payload in outcome.kept]
        size = len(group.tasks)  # of a broken outcome there are none, and Ray wants as many as said
        objects = [*outcome.states, *[None] * (size - len(outcome.states))]
        if isinstance(group.intake, Keep):
            objects += [*outcome.kept, *[None] * (size - len(outcome.kept))]
        return replace(outcome, states=changed, kept=kept), *objects

    def apply(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call any function with the arguments and this worker's device."""
        return function(*arguments, device=self._device)
