"""A run's numbers in Weights & Biases: a callback; only who uses it sends anything anywhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sim.checkpoint.early_stop import Each


@contextmanager
def to_wandb(**options: Any) -> Iterator[Each]:
    """Open a run of Weights & Biases for the block.

    Args:
        **options: Of `wandb.init`, such as `project`.

    Yields:
        The callback for `stillhouse.run`.

    Raises:
        ImportError: wandb is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise ImportError("to_wandb wants wandb: pip install wandb") from error
    with wandb.init(**options) as theirs:  # which marks a run that failed
        yield lambda numbers: theirs.log(dict(numbers), step=int(numbers["round"]))
