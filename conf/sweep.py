"""What a sweep does with each of its jobs: whatever fails is told, recorded, and ends no other.

A job is skipped where its folder holds the finished run, and goes on where that run stopped.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from conf.errors import ConfigError, Stopped

CONFIG, CHECKPOINT, RESULT, FAILED = "config.yaml", "checkpoint", "result.json", "FAILED"
"""Files of a job's folder, docs/run_folder.md."""

Left = Literal["nothing", "begun", "finished"]


def left_in(folder: Path, config: DictConfig) -> Left:
    """Look at what an earlier sweep into the same folder left of a job.

    A run that kept no checkpoint is taken away: it begins anew.

    Args:
        folder: The job's.
        config: Its composed config.

    Returns:
        What there is of its run.

    Raises:
        ConfigError: There is one of another config.
    """
    if not (folder / CONFIG).exists():
        return "nothing"
    if (folder / CONFIG).read_text() != OmegaConf.to_yaml(config, resolve=True):
        raise ConfigError(f"{folder}: holds a run of another config; name another hydra.sweep.dir")
    if (folder / RESULT).exists():
        return "finished"
    if (folder / CHECKPOINT).exists():
        return "begun"
    for path in folder.iterdir():
        if path.name != ".hydra":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return "nothing"


@contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """Write down why a job of a sweep failed, in its folder, and let the sweep go on.

    Whoever stops a job by a signal stops the sweep.

    Args:
        folder: The job's.

    Yields:
        Nothing.
    """
    (folder / FAILED).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        if not isinstance(error, Stopped):  # a defect, which keeps its traceback
            sys.excepthook(type(error), error, error.__traceback__)
        words = [*HydraConfig.get().overrides.task]
        told = {"overrides": words, "reason": str(error) or type(error).__name__}
        (folder / FAILED).write_text(json.dumps(told) + "\n")


_over: list[Path] = []
"""The folder of the sweep that this process has run, once it is over."""


class Over(Callback):
    """Has Hydra say when a sweep is over, and where it is."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder."""
        _over.append(Path(config.hydra.sweep.dir))


def concluded(write_report: Callable[[Sequence[str]], int]) -> int:
    """End a sweep with one report of its runs, and say what failed.

    Args:
        write_report: What `run.py report` does, with its words.

    Returns:
        The exit code: 1 if a job failed, and 0 where there was no sweep.
    """
    for folder in _over:
        if any(folder.glob(f"*/{RESULT}")):
            write_report([str(folder), "--out", str(folder / "report.html")])
        failed = sorted(folder.glob(f"*/{FAILED}"))
        for path in failed:
            told = json.loads(path.read_text())
            print(f"failed: {' '.join(told['overrides'])}: {told['reason']}", file=sys.stderr)
        if failed:
            again = f"the same command with hydra.sweep.dir={folder} runs what is missing"
            print(f"{len(failed)} failed; {again}", file=sys.stderr)
            return 1
    return 0
