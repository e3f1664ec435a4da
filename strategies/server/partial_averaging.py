"""Federated averaging of a part of the parameters; the rest stays with each client.

Which part is published under many names: normalisation layers stay (FedBN, Li et al., ICLR 2021,
arXiv:2102.07623), their statistics alone (SiloBN, Andreux et al., DCL 2020, arXiv:2008.07424), the
classifier (FedPer, Arivazhagan et al., 2019, arXiv:1912.00818), all but the classifier (LG-FedAvg,
Liang et al., 2020, arXiv:2001.01523), the classifier, which is trained first (FedRep, Collins et
al., ICML 2021, arXiv:2102.07078), everything (local training alone).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from torch import nn

from clients.data import Dataset
from clients.handlers.personal_parameters import sharing
from clients.models.factory import ModelFunction, build
from clients.models.parameter_patterns import chosen, require_matches
from strategies.server.averaging import Averaging, WeighBy

KEY = "strategy.own"


class PartialAveraging(Averaging):
    """Averages what clients share; what is their own is neither sent nor averaged.

    Its global model has the mean of what is shared, and the rest as it was drawn. Where nothing is
    shared there is none.

    Attributes:
        shared: Names of the parameters and buffers that are sent.
    """

    def __init__(
        self,
        *,
        student: nn.Module,
        models: Mapping[str, ModelFunction],
        test: Dataset,
        seed: int,
        own: Sequence[str],
        own_epochs: Annotated[int, ">= 1"] | None = None,
        keep_trained: bool = False,
        fraction_train: Annotated[float, "in (0, 1]"] = 1.0,
        fraction_evaluate: Annotated[float, "in [0, 1]"] = 1.0,
        weigh_by: WeighBy = "examples",
    ) -> None:
        """Choose what is shared, and how many clients take part.

        Args:
            student: Of the architecture that the global model has.
            models: Model functions of the clients' architectures by name.
            test: Gives the task.
            seed: The run's seed.
            own: Patterns of what stays with the client, as of `clients.models.parameter_patterns`.
            own_epochs: Epochs of local training in which what is one's own is trained and the rest
                held, >= 1; then the rest is trained, as `clients.training` has it. None = all is
                trained together.
            keep_trained: Whether what is measured of a client is its network as it last trained it,
                what is shared included, and not with what is shared now.
            fraction_train: As in `Averaging`.
            fraction_evaluate: Share of the clients in [0, 1] that measure their own networks.
            weigh_by: As in `Averaging`.

        Raises:
            ValueError: A pattern matches nothing, what is shared is not alike in all networks, or a
                number is out of range.
        """
        super().__init__(
            seed=seed,
            fraction_train=fraction_train,
            fraction_evaluate=fraction_evaluate,
            weigh_by=weigh_by,
        )
        rng, task = np.random.default_rng(0), test.task
        networks = {name: build(model, task, rng) for name, model in models.items()}
        patterns = [own] if isinstance(own, str) else own
        self.shared = shared_by_all(patterns, student, networks)
        self.has_student = bool(self.shared)
        if own_epochs is not None:
            require_two_parts(own_epochs, self.shared, networks)
        self.handlers, self._before = sharing(own_epochs, keep_trained), ArrayRecord()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send what is shared to the round's cohort."""
        self._before = arrays
        return super().configure_train(server_round, self.shared_of(arrays), config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average what is shared, and metrics."""
        if not self.shared:
            return None, self.aggregate_evaluate(server_round, replies)
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None:
            return None, metrics
        return ArrayRecord({n: mean.get(n, a) for n, a in self._before.items()}), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send what is shared to clients that measure their networks with it."""
        return super().configure_evaluate(server_round, self.shared_of(arrays), config, grid)

    def shared_of(self, arrays: ArrayRecord) -> ArrayRecord:
        """Return of a global model's arrays what clients are sent, with which theirs are whole."""
        return ArrayRecord({name: a for name, a in arrays.items() if name in self.shared})


def shared_by_all(
    own: Sequence[str], student: nn.Module, networks: Mapping[str, nn.Module]
) -> frozenset[str]:
    """Name what no pattern matches, which must be of the same names and shapes in all networks.

    Args:
        own: Patterns, as of `clients.models.parameter_patterns.chosen`.
        student: The global model.
        networks: One of each architecture, by its name.

    Returns:
        Names of parameters and buffers.

    Raises:
        ValueError: A pattern matches nothing; or names the architecture that differs, and in what.
    """
    require_matches(KEY, own, [student, *networks.values()])
    wanted = _shapes_of_shared(own, student)
    for name, network in networks.items():
        found = _shapes_of_shared(own, network)
        for odd in sorted({*wanted, *found}):
            if wanted.get(odd) != found.get(odd):
                raise ValueError(
                    f"{KEY}={[*own]}: '{odd}' would be shared, and is {found.get(odd, 'absent')} "
                    f"in architecture '{name}' and {wanted.get(odd, 'absent')} in the student: "
                    "expected a pattern that matches it, or clients=same"
                )
    return frozenset(wanted)


def require_two_parts(
    own_epochs: int, shared: frozenset[str], networks: Mapping[str, nn.Module]
) -> None:
    """Refuse to train one part after the other where there is one only; ValueError says so."""
    if not isinstance(own_epochs, int) or own_epochs < 1:
        raise ValueError(f"strategy.own_epochs={own_epochs}: expected >= 1, or null")
    for name, network in networks.items():
        learned = {each for each, _ in network.named_parameters()}
        if learned <= shared or not learned & shared:
            raise ValueError(
                f"strategy.own_epochs={own_epochs}: of architecture '{name}' all parameters are "
                f"{'shared' if learned <= shared else 'own'}: expected some of both"
            )


def _shapes_of_shared(own: Sequence[str], network: nn.Module) -> dict[str, tuple[int, ...]]:
    kept = {name for pattern in own for name in chosen(pattern, network)}
    state = network.state_dict().items()
    return {name: tuple(tensor.shape) for name, tensor in state if name not in kept}
