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

from conf.error_lines import tell_raised
from conf.errors import ConfigError, Stopped
from conf.run_lock import has, release

CONFIG, CHECKPOINT, RESULT, FAILED = "config.yaml", "checkpoint", "result.json", "FAILED"
FILES = (
    *(CONFIG, "metrics.jsonl", "failures.jsonl", "clients.parquet", "student.safetensors", "peers"),
    *("partition.parquet", "partition_summary.json", "events", "states"),
)
"""What a run leaves in its folder, docs/run_folder.md."""

Left = Literal["nothing", "begun", "finished"]


def left_in(folder: Path, config: DictConfig) -> Left:
    """Look at what an earlier sweep into the same folder left of a job.

    What a run left that kept no checkpoint is taken away: it begins anew.

    Args:
        folder: The job's, which this process has claimed.
        config: Its composed config.

    Returns:
        What there is of its run.

    Raises:
        ConfigError: There is one of another config; the folder is free again.
    """
    text = OmegaConf.to_yaml(config, resolve=True)
    if (folder / CONFIG).exists() and (folder / CONFIG).read_text() != text:
        release(folder)
        raise ConfigError(f"{folder}: holds a run of another config; name another hydra.sweep.dir")
    (folder / FAILED).unlink(missing_ok=True)
    if not (folder / CONFIG).exists():
        return "nothing"
    if (folder / RESULT).exists():
        return "finished"
    if (folder / CHECKPOINT).exists():
        return "begun"
    for path in map(folder.joinpath, FILES):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return "nothing"


_failed: list[tuple[str, str]] = []
"""The jobs of this process's sweep that failed: what each was told, and why."""


@contextmanager
def recorded(folder: Path, config: DictConfig) -> Iterator[None]:
    """Write down why a job of a sweep failed, in its folder, and let the sweep go on.

    Whoever stops a job by a signal stops the sweep. Of a folder that another run has nothing is
    written there.

    Args:
        folder: The job's.
        config: Its composed config.

    Yields:
        Nothing.
    """
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, Stopped) else tell_raised(error, config)
        words = [*HydraConfig.get().overrides.task]
        told = {"overrides": words, "reason": reason}
        _failed.append((" ".join(words), str(told["reason"])))
        if has(folder):
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
        if any(folder.rglob(RESULT)):
            write_report([str(folder), "--out", str(folder / "report.html")])
        for words, reason in _failed:
            print(f"failed: {words}: {reason}", file=sys.stderr)
        if _failed:
            again = f"the same command with hydra.sweep.dir={folder} runs what is missing"
            print(f"{len(_failed)} failed; {again}", file=sys.stderr)
            return 1
    return 0
