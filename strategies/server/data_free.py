"""Data-free distillation of clients' networks: the server generates what the student learns.

DENSE (Zhang et al., NeurIPS 2022, arXiv:2112.12371) and Co-Boosting (Dai et al., ICLR 2024,
arXiv:2402.15070): clients of any architecture train and send their networks, once. In each epoch
the server trains its generator, adds a batch of what it makes to a pool, and teaches the student
the ensemble's logits of the pool. In further rounds clients train on, and the generator too. Other
than in the authors' code an epoch's inputs are those of the generator's last step, not of its best,
the generator goes on from epoch to epoch, and the student's optimiser begins anew in each.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Annotated, cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import Tensor, nn

from clients.data import Dataset
from clients.execution.isolation import same_modules
from clients.execution.trainer_calls import require_offered
from clients.handlers.base import SERVER_ROUND, Handler, Replies
from clients.handlers.compute_cost import local_training
from clients.handlers.parameters import training_metrics
from clients.handlers.peer_parameters import EVALUATE_OWN
from clients.handlers.state import MODEL, client_of, own_network, round_of
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import ARRAYS, CONFIG, METRICS, client_id_of, node_id_of
from clients.models.factory import ModelFunction, build, load_parameters, parameters_of
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, generator, named_generator, seeded_torch
from clients.training.evaluation import measured, predict
from clients.training.loop import Trainer, threads_of_torch
from clients.training.losses import kl
from clients.training.optimizer_steps import stepper
from clients.training.schedules import of_round
from clients.training.taps import evaluating
from strategies.aggregation.parameters import Forms, forms_of, odd_form
from strategies.base import BaseStrategy
from strategies.teaching.synthesis import Synthesis, answers_of, mixed

GENERATOR = "generator"
"""Record of the strategy's state."""


def train(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Replies:
    """Train one's own network, and send it."""
    ids = [client_of(context) for context in contexts]
    starts = [own_network(clients, context, device) for context in contexts]
    trained = clients.train(ids, starts, round_of(requests[0]), device)
    for client_id, request, context, result in zip(ids, requests, contexts, trained, strict=True):
        if isinstance(result, Exception):
            yield result
            continue
        context.state[MODEL] = write_arrays(result.parameters)
        content = RecordDict({ARRAYS: write_arrays(result.parameters)})
        content[METRICS] = training_metrics(clients, client_id, result)
        yield Message(content, reply_to=request)


def fault(
    request: Message, reply: Message, *, architectures: Sequence[str], forms: Forms
) -> str | None:
    """Say which array is not one of the client's architecture; None if all are."""
    own = architectures[client_id_of(request.metadata.dst_node_id)]
    return odd_form(cast(ArrayRecord, reply.content[ARRAYS]), forms[own])


class DataFreeDistillation(BaseStrategy):
    """One student is taught by all clients' networks, on inputs that a generator makes."""

    of_classes = True

    def __init__(
        self,
        *,
        student: nn.Module,
        models: dict[str, ModelFunction],
        architectures: Sequence[str],
        tested: Callable[[int], Dataset],
        seed: int,
        synthesis: Synthesis,
        distil: Trainer,
        temperature: Annotated[float, "> 0"] = 20.0,
        epochs: Annotated[int, ">= 0"] = 200,
        boost: Callable[..., Tensor] | None = None,
        student_threads: int | None = None,
    ) -> None:
        """Build the generator.

        Args:
            student: The global student.
            models: Model functions of the clients' architectures by name.
            architectures: Name of each client's architecture.
            tested: Round -> the test examples on which the ensemble is measured.
            seed: The run's seed.
            synthesis: How inputs are generated.
            distil: Trains the student on the pool in each epoch: `clients.training.loop.train` with
                its numbers bound.
            temperature: T > 0 of that, with T**2.
            epochs: Of the server, >= 0; each adds a batch to the pool.
            boost: (weights [K], logits [K, B, C], labels [B], epoch) -> the ensemble's weights from
                then on, such as `boosted_weights` with its numbers bound; None = they stay 1 / K.
            student_threads: Of this process, with which all that is done.

        Raises:
            ValueError: A number is out of range.
        """
        if not 0 < temperature < math.inf:
            raise ValueError(f"strategy.temperature={temperature}: expected > 0")
        if epochs < 0:
            raise ValueError(f"strategy.epochs={epochs}: expected >= 0")
        require_offered(distil, "strategy.distil")
        test = tested(1)
        self.student, self._models, self._architectures = student, models, architectures
        self._tested, self._seed, self._task = tested, seed, test.task
        self._synthesis, self._distil, self._boost = synthesis, distil, boost
        self._temperature, self._epochs, self._threads = temperature, epochs, student_threads
        self._objective = partial(kl, temperature=temperature)
        self._device = next(student.parameters()).device
        with seeded_torch(named_generator(seed, Purpose.STUDENT, "generator")):
            made = synthesis.generator(test.task.input_shape, synthesis.noise_size)
        self.generator = made.to(self._device)
        self._cohort: list[int] = []
        handler = Handler(
            "train.network",
            train,
            replies={ARRAYS: ArrayRecord, METRICS: MetricRecord},
            fault=partial(fault, architectures=architectures, forms=forms_of(models, test)),
            multiplications=local_training,
        )
        self.handlers = (handler, EVALUATE_OWN)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask all clients for their networks."""
        load_parameters(self.student, read_arrays(arrays))
        content = RecordDict({CONFIG: ConfigRecord({SERVER_ROUND: server_round})})
        kind = self.handlers[0].kind
        return [Message(content, node_id, kind) for node_id in sorted(grid.get_node_ids())]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Teach the student by the networks that came."""
        good = (message for message in replies if message.has_content())
        usable = sorted(good, key=lambda message: message.metadata.src_node_id)
        self._cohort = [client_id_of(message.metadata.src_node_id) for message in usable]
        if not usable:
            return None, None
        networks = [self._network(k, m) for k, m in zip(self._cohort, usable, strict=True)]
        test = self._tested(server_round)
        with threads_of_torch(self._threads), same_modules("strategy.distil:", self.student):
            weights, numbers = self._teach(server_round, networks)
            rows = np.arange(len(test))
            said = mixed(weights, torch.stack([predict(each, test, rows) for each in networks]))
        numbers |= {f"ensemble-{name}": value for name, value in measured(said, test).items()}
        metrics = MetricRecord({"num-teachers": len(networks), **numbers})
        return write_arrays(parameters_of(self.student)), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the clients whose networks were used to measure them."""
        content = RecordDict({CONFIG: ConfigRecord({SERVER_ROUND: server_round})})
        return [Message(content, node_id_of(k), EVALUATE_OWN.kind) for k in self._cohort]

    def state(self) -> RecordDict:
        """Return the generator."""
        return RecordDict({GENERATOR: write_arrays(parameters_of(self.generator))})

    def restore(self, state: RecordDict) -> None:
        """Go on with the generator of another."""
        load_parameters(self.generator, read_arrays(cast(ArrayRecord, state[GENERATOR])))

    # --- steps ---

    def _network(self, client_id: int, reply: Message) -> nn.Module:
        """Build the network that a client sent, to be asked and not trained."""
        model = self._models[self._architectures[client_id]]
        network = build(model, self._task, np.random.default_rng(0))
        load_parameters(network, read_arrays(cast(ArrayRecord, reply.content[ARRAYS])))
        return network.to(self._device).eval().requires_grad_(False)

    def _teach(
        self, server_round: int, networks: Sequence[nn.Module]
    ) -> tuple[Tensor, dict[str, float]]:
        """Generate, weigh and distil, epoch by epoch; return the weights [K] and last losses."""
        weights, numbers = torch.full((len(networks),), 1 / len(networks)), dict[str, float]()
        draws = named_generator(self._seed, Purpose.DISTILLATION, f"synthesis {server_round}")
        rng = generator(self._seed, Purpose.DISTILLATION, server_round)
        distil = partial(self._distil, **of_round(self._distil, server_round))
        step = stepper(self._synthesis.optimizer, [*self.generator.train().parameters()])
        pool, answers, wanted = list[Tensor](), list[Tensor](), list[Tensor]()
        for epoch in range(self._epochs):
            with seeded_torch(draws), evaluating(self.student):
                labels = torch.randint(self._task.num_classes, (self._synthesis.batch_size,))
                ensemble = networks, weights.to(self._device)
                inputs, loss = self._synthesis.batch(
                    self.generator, step, *ensemble, self.student, labels.to(self._device)
                )
            with torch.no_grad():
                answers.append(answers_of(networks, inputs).cpu())
            pool, wanted = [*pool, inputs.cpu()], [*wanted, labels]
            if self._boost is not None:
                weights = self._boost(weights, answers[-1], labels, epoch)
            logits = mixed(weights, torch.cat(answers, 1))
            what = self._dataset(torch.cat(pool), torch.cat(wanted)), np.arange(len(logits))
            targets = (logits / self._temperature).softmax(-1)
            try:
                losses = distil(self.student, *what, targets, self._objective, rng)
            except FloatingPointError as error:
                raise FloatingPointError(f"student, round {server_round}: {error}") from error
            numbers = {"generator-loss": loss}
            numbers |= {"distillation-loss": losses[-1]} if losses else {}
        return weights, numbers

    def _dataset(self, inputs: Tensor, labels: Tensor) -> Dataset:
        """Take generated inputs as networks get them."""
        channels = inputs.shape[1]
        mean, std = (0.0,) * channels, (1.0,) * channels
        arrays = inputs.numpy(), labels.numpy()
        return Dataset("generated inputs", *arrays, self._task, mean=mean, std=std)
