"""Runs that Python begins: `stillhouse.run("strategy=feddf", "seed=1")`; docs/api.md."""

import io
import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.composing import composed
from conf.error_lines import BUILDING, disk_explained, explained
from conf.errors import Stopped
from conf.resume import resumed_config
from conf.run_lock import claim, leave_nothing, release
from conf.schema import targets_in
from run import federate
from sim.checkpoint.early_stop import Each, stop_reason
from sim.checkpoint.stop_signals import Stop

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


class RunError(RuntimeError):
    """A run that cannot begin or go on: its text is the line that the command prints."""


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        folder: The run folder, docs/run_folder.md.
        numbers: The content of its `result.json`.
        trusted: What the caller's own words named as the student's functions.
    """

    folder: Path
    numbers: dict[str, Any] = field(repr=False)
    trusted: tuple[str, ...] = field(default=(), repr=False)

    @property
    def metrics(self) -> "pd.DataFrame":
        """A row for each round, a column for each number, as `clients/accuracy/mean`."""
        from sim.tracking.round_metrics import flat
        from sim.tracking.run_folder import METRICS, read_lines

        rows = [flat(line) for line in read_lines(self.folder / METRICS)]
        return _pandas("Result.metrics").DataFrame(rows).astype({"round": int})

    @property
    def clients(self) -> "pd.DataFrame":
        """A row for each request to a client, docs/clients_table.md."""
        from sim.tracking.run_folder import CLIENTS

        return _pandas("Result.clients").read_parquet(self.folder / CLIENTS)

    @property
    def student(self) -> "nn.Module":
        """The student as `load_student` builds it: it takes inputs as the data's file has them."""
        from stillhouse.models import load_student

        return load_student(self.folder, trust=self.trusted)


def run(
    *words: str | list[str] | tuple[str, ...],
    config_dir: str | Path | Sequence[str | Path] = (),
    callbacks: Each | Sequence[Each] = (),
    quiet: bool = False,
) -> Result:
    """Run a federation in this process, as `stillhouse run` does with the same words.

    Args:
        *words: Such as "strategy=feddf", "seed=1", "hydra.run.dir=out", "resume=out", or lists of
            them; no sweep.
        config_dir: Folders of YAML and modules of one's own, as after `--config-dir`.
        callbacks: Each is called with a round's numbers by TensorBoard's tags, and `round`, as it
            ends; one that returns True ends the run there.
        quiet: Whether to print nothing.

    Returns:
        What the run came to.

    Raises:
        RunError: The words, the data or a file are not what they ought to be, or the run lost its
            quorum; says what, in a line.
        KeyboardInterrupt: It was interrupted; the round was finished, and committed.
    """
    said = [w for each in words for w in (each if isinstance(each, list | tuple) else [each])]
    if odd := [word for word in said if not isinstance(word, str)]:
        raise RunError(f"{odd[0]!r}: expected words, each a text, such as 'seed=1'")
    callbacks = [callbacks] if callable(callbacks) else [*callbacks]
    if wrong := [each for each in callbacks if not callable(each)]:
        raise RunError(f"callbacks: expected functions of a round's numbers, found {wrong[0]!r}")
    given = [config_dir] if isinstance(config_dir, str | Path) else config_dir
    folders = [Path(folder).expanduser().resolve() for folder in given]
    sys.path[1:1] = [str(folder) for folder in folders if str(folder) not in sys.path]
    with ExitStack() as block:
        block.enter_context(_told())
        if quiet:
            block.enter_context(redirect_stdout(io.StringIO()))
            block.enter_context(redirect_stderr(io.StringIO()))
        with explained(*BUILDING):
            config, place = block.enter_context(composed(said, folders))
        folder = Path(config.resume or place).resolve()
        numbers, student = _federate(config, folder, said, callbacks)
        named = tuple(str(node["_target_"]) for _, node in targets_in(student, ""))
        return Result(folder, numbers, named)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Stopped as stopped:
        raise RunError(str(stopped)) from None


def _federate(
    config: Any, folder: Path, words: Sequence[str], callbacks: Sequence[Each]
) -> tuple[dict[str, Any], Any]:
    """Claim the folder, run, and give it free; return the result, and the student's node."""
    stop, resume = Stop(), config.resume is not None
    try:
        with ExitStack() as block:
            if threading.current_thread() is threading.main_thread():  # else no signal comes
                block.enter_context(stop.listening(folder))
            block.enter_context(disk_explained(folder))
            with explained(*BUILDING):
                if resume:
                    config = resumed_config(config, words)
                claim(folder, begun=resume)
            numbers = federate(config, folder, resume, stop, callbacks)
            return numbers, config.student
    except SystemExit as ended:
        raise KeyboardInterrupt(f"{folder}: stopped; resume={folder} goes on") from ended
    finally:
        release(folder)
        leave_nothing(folder)


def stop_when(
    metric: str,
    *,
    above: float | None = None,
    below: float | None = None,
    patience: int | None = None,
    mode: str = "max",
) -> Callable[[dict[str, float]], bool]:
    """Make a callback that ends a run by one of its numbers, counted from the first that it sees.

    The words `stop.metric=... stop.above=...` do the same, and count on after a resume.

    Args:
        metric: A number's tag, such as "student/accuracy".
        above: End once it is greater.
        below: End once it is less.
        patience: End once so many rounds in a row brought no better one, >= 1.
        mode: Whether better is greater, "max", or less, "min".

    Returns:
        The callback; for one run.

    Raises:
        ValueError: There is nothing to end it, or the mode is none.
    """
    if above is None and below is None and patience is None:
        raise ValueError(f"stop_when({metric!r}): expected above=, below= or patience=")
    if patience is not None and patience < 1:
        raise ValueError(f"stop_when: patience={patience}: expected an integer >= 1")
    if mode not in ("max", "min"):
        raise ValueError(f"stop_when: mode={mode!r}: expected max or min")
    values: list[float] = []

    def each(numbers: dict[str, float]) -> bool:
        if math.isnan(numbers.get(metric, math.nan)):
            return False
        values.append(numbers[metric])
        why = stop_reason(values, above=above, below=below, patience=patience, mode=mode)
        each.reason = f"{metric}: {why}"  # type: ignore[attr-defined]
        return bool(why)

    return each


def _pandas(what: str) -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"{what} wants pandas: pip install pandas") from error
    return pandas
