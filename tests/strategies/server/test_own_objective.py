"""Methods whose clients minimise an objective of their own: the config's is refused."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import MetricRecord
from flwr.serverapp.strategy import FedProx

from clients.execution.model_cache import as_tensors
from clients.models import logistic_regression
from clients.models.factory import parameters_of
from clients.training.objective import not_true, proximal
from strategies.base import BaseStrategy
from strategies.server.averaging import Averaging
from strategies.server.federated_distillation import FederatedDistillation
from strategies.server.fedgkt import FedGKT
from strategies.server.requirements import require_fitting
from tests.example_runs import imported
from tests.federations import ALONE, student_of, tiny_clients


class Plain(BaseStrategy):
    """One with nothing to say of objectives."""

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        return []

    def aggregate_train(self, server_round: int, replies: Any) -> tuple[None, MetricRecord]:
        return None, MetricRecord()


def fits(kind: Any, **changes: Any) -> None:
    alike = {"architectures": ["linear"] * 3, "num_clients": 3}
    require_fitting(partial(kind), tiny_clients(**(alike | changes)), 1, False, {})


@pytest.mark.parametrize(
    "kind",
    [
        *(FederatedDistillation, FedGKT),
        *(lambda: imported("moon").Moon, lambda: imported("fedproto").FedProto),
    ],
    ids=["fd", "fedgkt", "moon", "fedproto"],
)
def test_an_objective_of_the_configs_is_refused_before_anything_runs(kind: Any) -> None:
    kind = kind if isinstance(kind, type) else kind()
    fits(kind)
    with pytest.raises(ValueError, match=r"clients\.objective: this method has an objective"):
        fits(kind, objective=not_true(5.0))


@pytest.mark.parametrize("kind", [Plain, Averaging])
def test_others_clients_minimise_what_the_config_says(kind: Any) -> None:
    fits(kind, objective=not_true(5.0))


def trained(clients: Any, *args: Any, **kwargs: Any) -> np.ndarray:
    start = as_tensors(parameters_of(student_of(clients)))
    (done,) = clients.train([0], [start], 1, "cpu", *args, **kwargs)
    return np.concatenate([array.ravel() for array in done.parameters.values()])


def test_one_beside_the_configs_is_refused_by_train_as_by_learn() -> None:
    """It took the config's place without a word."""
    clients, own = tiny_clients(2, objective=not_true(5.0)), not_true(1.0)
    with pytest.raises(ValueError, match=r"clients\.objective: this method has an objective"):
        trained(clients, own)
    with pytest.raises(ValueError, match=r"clients\.objective: this method has an objective"):
        clients.learn(student_of(clients), 0, 1, own)
    np.testing.assert_array_equal(trained(tiny_clients(2), not_true(5.0)), trained(clients))


def test_what_a_method_adds_is_added_to_the_configs() -> None:
    """A proximal term: around the plain loss, and around another."""
    start = as_tensors(parameters_of(student_of(tiny_clients(2))))

    for config in (None, not_true(5.0)):
        clients = tiny_clients(2, objective=config)
        free, held = trained(clients), trained(clients, around=partial(proximal, 5.0))
        begin = np.concatenate([tensor.numpy().ravel() for tensor in start.values()])
        assert np.linalg.norm(held - begin) < 0.5 * np.linalg.norm(free - begin)


def test_a_proximal_term_is_tried_before_anything_runs() -> None:
    """Flower's FedProx takes any number; clients refused it, each by itself."""
    alike: Any = {"architectures": ["linear"] * 3, "num_clients": 3}
    alike |= {"models": {"linear": logistic_regression}}
    for mu, config, said in ((-1.0, None, ">= 0"), (0.1, proximal(1.0), "proximal term already")):
        clients = tiny_clients(**alike, objective=config)
        with pytest.raises(ValueError, match=rf"^strategy\.proximal_mu={mu}: .*{said}"):
            require_fitting(FedProx(proximal_mu=mu, **ALONE), clients, 1, False, {})
    require_fitting(FedProx(proximal_mu=0.1, **ALONE), tiny_clients(**alike), 1, False, {})
