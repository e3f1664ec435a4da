"""A run's numbers in MLflow: a callback; only who uses it sends anything anywhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sim.checkpoint.early_stop import Each


@contextmanager
def to_mlflow(**options: Any) -> Iterator[Each]:
    """Open a run of MLflow for the block.

    Args:
        **options: Of `mlflow.start_run`, such as `run_name`.

    Yields:
        The callback for `stillhouse.run`.

    Raises:
        ImportError: mlflow is not installed.
    """
    try:
        import mlflow
    except ImportError as error:
        raise ImportError("to_mlflow wants mlflow: pip install mlflow") from error
    with mlflow.start_run(**options):
        yield lambda numbers: mlflow.log_metrics(dict(numbers), step=int(numbers["round"]))
