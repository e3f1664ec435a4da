"""FedGKT: small networks of clients hand their feature maps on to a large one of the server.

He, Annavaram, Avestimehr, "Group Knowledge Transfer: Federated Learning of Large CNNs at the Edge",
NeurIPS 2020 (arXiv:2007.14513). Clients send feature maps, logits **and labels** of their private
examples; the server's network learns on the maps, and its logits of each example go back to whose
it is. Other than in FedML's code the server learns in batches of all clients' examples, and its
optimiser begins anew in each round.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from clients.data import Dataset, Task
from clients.execution.isolation import same_modules
from clients.execution.trainer_calls import require_objectives, require_offered
from clients.handlers.base import SERVER_ROUND
from clients.handlers.private_maps import (
    LABELS,
    LOGITS,
    MAPS,
    NUM_INPUTS,
    SAID,
    handlers,
    transfer,
)
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import CONFIG, client_id_of, node_id_of
from clients.models.factory import ModelFunction, Parameters, build, load_parameters, parameters_of
from clients.seeding import Purpose, generator, named_generator
from clients.training.evaluation import measured, predict
from clients.training.loop import Trainer, threads_of_torch
from clients.training.schedules import of_round
from clients.training.taps import Taps, evaluating
from strategies.base import BaseStrategy
from strategies.cohorts import cohort_of

SERVER = "server"
"""Record of the strategy's state, and name of its model."""


def map_shape(
    models: Mapping[str, ModelFunction], architectures: Sequence[str], task: Task, tap: str
) -> tuple[int, ...]:
    """Return the shape of one example's feature map, which all architectures must share.

    Args:
        models: Model functions by the name of an architecture.
        architectures: Name of each client's.
        task: What they are to predict.
        tap: Place of the map.

    Returns:
        (channels, height, width), or (D,).

    Raises:
        ValueError: A network has no such place, or another shape there; names it.
    """
    shapes: dict[tuple[int, ...], str] = {}
    for name in dict.fromkeys(architectures):
        network = build(models[name], task, np.random.default_rng(0))
        try:
            with torch.no_grad(), evaluating(network), Taps(network, [tap]) as taps:
                network(task.blank(2))
                shapes.setdefault(tuple(taps.take()[tap].shape[1:]), name)
        except ValueError as error:
            raise ValueError(f"strategy.tap: architecture '{name}': {error}") from error
    if len(shapes) > 1:
        found = ", ".join(f"{shape} of '{name}'" for shape, name in shapes.items())
        raise ValueError(f"strategy.tap={tap}: {found}: expected one shape, as with clients=same")
    return next(iter(shapes))


class FedGKT(BaseStrategy):
    """Clients and a large network on the server teach each other about each private example."""

    has_student = False
    of_classes = True
    own_objective = True

    def __init__(
        self,
        *,
        models: dict[str, ModelFunction],
        architectures: Sequence[str],
        tested: Callable[[int], Dataset],
        seed: int,
        server: ModelFunction,
        distil: Trainer,
        tap: str = "features.2",
        temperature: Annotated[float, "> 0"] = 3.0,
        alpha: Annotated[float, ">= 0"] = 1.0,
        fraction: Annotated[float, "in (0, 1]"] = 1.0,
        student_threads: int | None = None,
    ) -> None:
        """Build the server's network.

        Args:
            models: Model functions of the clients' architectures by name.
            architectures: Name of each client's architecture.
            tested: Round -> its test examples.
            seed: The run's seed.
            server: Makes the server's network, from maps to logits.
            distil: Trains it in each round: `clients.training.loop.train` with its numbers bound.
            tap: Module whose output is the feature map that clients send.
            temperature: T > 0 of both sides.
            alpha: The paper's, >= 0: weight of what the server says where clients learn, and of
                labels where the server does.
            fraction: Share of the clients in a round's cohort, in (0, 1].
            student_threads: Of this process, with which the server's network learns.

        Raises:
            ValueError: A number is out of range, or clients' maps are not alike.
        """
        ranges = {
            "temperature": (temperature, 0 < temperature < math.inf, "> 0"),
            "alpha": (alpha, 0 <= alpha < math.inf, ">= 0"),
            "fraction": (fraction, 0 < fraction <= 1, "in (0, 1]"),
        }
        for name, (value, fits, expected) in ranges.items():
            if not fits:
                raise ValueError(f"strategy.{name}={value}: expected {expected}")
        require_offered(distil, "strategy.distil")
        require_objectives(distil, "strategy.distil")
        task = tested(1).task
        shape = map_shape(models, architectures, task, tap)
        self._task = replace(task, input_shape=shape)
        try:
            rng = named_generator(seed, Purpose.STUDENT, "fedgkt")
            self.network = build(server, self._task, rng)
        except ValueError as error:
            raise ValueError(f"strategy.server: maps of {tap} {shape}: {error}") from error
        self.handlers = handlers(tap, transfer(alpha, 1.0, temperature), shape, task)
        self._objective = transfer(1.0, alpha, temperature)
        self._distil, self._seed, self._fraction = distil, seed, fraction
        self._tested, self._threads = tested, student_threads
        self._said: dict[int, Parameters] = {}
        self._cohort: list[int] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Tell each client what the server's network last said of its examples."""
        cohort = cohort_of(
            grid, fraction=self._fraction, seed=self._seed, server_round=server_round
        )
        about = ConfigRecord({SERVER_ROUND: server_round})
        bare, messages = RecordDict({CONFIG: about}), []
        for node_id in cohort:
            content = bare  # one object for all, which go in one group
            if (said := self._said.get(client_id_of(node_id))) is not None:
                content = RecordDict({CONFIG: about, SAID: write_arrays(said)})
            messages.append(Message(content, node_id, self.handlers[0].kind))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Teach the server's network on all maps; keep what it then says of each example."""
        found = _by_client(replies)
        self._cohort = [*found]
        if not found:
            return None, None
        maps, labels, logits = (
            np.concatenate([each[name] for each in found.values()])
            for name in (MAPS, LABELS, LOGITS)
        )
        dataset, rows = self._dataset(maps, labels), np.arange(len(maps))
        rng = generator(self._seed, Purpose.DISTILLATION, server_round)
        distil = partial(self._distil, **of_round(self._distil, server_round))
        what = self.network, dataset, rows, torch.from_numpy(labels), self._objective, rng
        with threads_of_torch(self._threads), same_modules("strategy.distil:", self.network):
            try:
                losses = distil(*what, anchors={SAID: torch.from_numpy(logits)})
            except FloatingPointError as error:
                raise FloatingPointError(f"server, round {server_round}: {error}") from error
            said = predict(self.network, dataset, rows).numpy()
        ends = np.cumsum([len(each[MAPS]) for each in found.values()])[:-1]
        for client_id, own in zip(found, np.split(said, ends), strict=True):
            self._said[client_id] = {SAID: own}
        metrics = MetricRecord({"num-teachers": len(found)})
        if losses:
            metrics["distillation-loss"] = losses[-1]
        return None, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the clients whose maps were used for those of the test set."""
        size = len(self._tested(server_round))
        about = ConfigRecord({SERVER_ROUND: server_round, NUM_INPUTS: size})
        content, kind = RecordDict({CONFIG: about}), self.handlers[1].kind
        return [Message(content, node_id_of(k), kind) for k in self._cohort]

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Measure the server's network behind each client's; the mean over clients."""
        labels, measures = self._tested(server_round).labels, list[dict[str, float]]()
        with threads_of_torch(self._threads):
            for each in _by_client(replies).values():
                dataset = self._dataset(each[MAPS], labels)
                said = predict(self.network, dataset, np.arange(len(labels)))
                measures.append(measured(said, dataset))
        if not measures:
            return None
        names = measures[0]
        return MetricRecord(
            {f"server-{n}": float(np.mean([each[n] for each in measures])) for n in names}
        )

    def state(self) -> RecordDict:
        """Return the server's network, and what it last said of everybody's examples."""
        said = {str(client_id): each[SAID] for client_id, each in self._said.items()}
        return RecordDict({SERVER: write_arrays(self.models()[SERVER]), SAID: write_arrays(said)})

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        load_parameters(self.network, read_arrays(cast(ArrayRecord, state[SERVER])))
        said = read_arrays(cast(ArrayRecord, state[SAID]))
        self._said = {int(client_id): {SAID: each.copy()} for client_id, each in said.items()}

    def models(self) -> dict[str, Parameters]:
        """Return what it leaves: the server's network, which takes maps."""
        return {SERVER: parameters_of(self.network)}

    def _dataset(self, maps: Any, labels: Any) -> Dataset:
        """Take feature maps for inputs, as they are."""
        channels = maps.shape[1]
        mean, std = (0.0,) * channels, (1.0,) * channels
        return Dataset("feature maps", maps, labels, self._task, mean=mean, std=std)


def _by_client(replies: Iterable[Message]) -> dict[int, Parameters]:
    """Read the maps of usable replies, by client."""
    usable = sorted((m for m in replies if m.has_content()), key=lambda m: m.metadata.src_node_id)
    return {
        client_id_of(m.metadata.src_node_id): read_arrays(cast(ArrayRecord, m.content[MAPS]))
        for m in usable
    }
