"""Averaging over a graph: peers of one architecture mix their parameters with their neighbours'."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from clients.data import Dataset
from clients.handlers.base import Handler
from clients.handlers.peer_parameters import (
    EVALUATE_OWN,
    SEND_OWN,
    SHOW_OWN,
    TAKE_MIXED,
    TRAIN_MIXED,
    TRAIN_OWN,
)
from clients.messages.accumulator import Folding, Intake, Keep, Reducer, is_part
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.round_views import GraphView
from clients.models.factory import ModelFunction, buffer_names, build
from clients.mutual.messenger import Messenger
from clients.population.rehearsal import require_like
from strategies.aggregation.parameters import forms_of
from strategies.base import BaseStrategy
from strategies.decentralised.delivery import Availability, Mixing, Neighbours, payload_name
from strategies.decentralised.mixed_parameters import (
    Spread,
    fault_in_own,
    mean_and_distance,
    mixed_parameters,
    without_arrays,
)
from strategies.decentralised.mixing import Missing
from strategies.decentralised.peer_round import Meeting

OWN = "own"


class ParameterGossip(BaseStrategy):
    """D-PSGD, adapt-then-combine and push-sum, of networks or of messengers.

    What is called the student is the mean of all peers that are present; no peer ever sees it.
    """

    handlers = (TRAIN_OWN, TAKE_MIXED, SEND_OWN, TRAIN_MIXED, SHOW_OWN, EVALUATE_OWN)

    def __init__(
        self,
        *,
        num_clients: int,
        mixing: Mixing,
        availability: Availability,
        student_model: ModelFunction,
        models: dict[str, ModelFunction],
        messenger: Messenger | None,
        test: Dataset,
        order: Literal["adapt_then_combine", "combine_then_adapt"] = "adapt_then_combine",
        push: bool = False,
        missing: Missing = "own",
        watch: Callable[[GraphView], None] = lambda view: None,
    ) -> None:
        """Compose a method.

        Args:
            num_clients: n.
            mixing: Round -> W [n receivers, n senders].
            availability: Who is there in a round, and what arrives.
            student_model: Model function of the mean.
            models: Model functions of the clients' architectures by name.
            messenger: How messengers are taught, which are then what is mixed; None = networks are.
            test: Gives image shape and classes.
            order: Whether peers train and then mix, x_i <- sum_j W_ij (x_j + d_j), or mix and add
                what training changes, x_i <- sum_j W_ij x_j + d_i (D-PSGD).
            push: Whether weights are pushed along, for a W whose columns sum to 1 and not its rows.
            missing: What becomes of the weight of a neighbour that does not answer; see
                `Neighbours`.
            watch: Receives each round's graph.

        Raises:
            ValueError: Architectures differ, or the order or W do not suit; says what to set.
        """
        if order not in ("adapt_then_combine", "combine_then_adapt"):
            raise ValueError(
                f"strategy.order={order}: expected adapt_then_combine or combine_then_adapt"
            )
        if push and order != "adapt_then_combine":
            raise ValueError("strategy.push: expected strategy.order=adapt_then_combine")
        if (missing == "sender") != push or missing == "drop":
            which = "sender" if push else "renormalise or own"
            raise ValueError(f"strategy.missing={missing}: expected {which}, with push={push}")
        if messenger is None:
            require_like(student_model, models, test, "averaging over a graph")
        _require_sums(mixing, push, 1)
        self._mixing, self._push = mixing, push
        like = student_model if messenger is not None else next(iter(models.values()))
        self._forms = forms_of({OWN: like}, test)[OWN]
        self._buffers = frozenset(buffer_names(build(like, test.task, np.random.default_rng(0))))
        self._first, self._second = (
            (TRAIN_OWN, TAKE_MIXED) if order == "adapt_then_combine" else (SEND_OWN, TRAIN_MIXED)
        )
        self._meeting = Meeting(Neighbours(mixing, availability, num_clients, missing), watch)

    # --- Flower's five methods, and what our engine asks beside them ---

    def intake(self, server_round: int, phase: str) -> Intake:
        """Leave parameters where they were made."""
        return self._keep(server_round) if phase == "train" else None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask everyone who is awake, and has a weight to push, for its parameters."""
        _require_sums(self._mixing, self._push, server_round)
        return self._messages(self._meeting.open(server_round, grid, arrays), self._first)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Deliver parameters, mixed; measure how far all are from their mean."""
        shown = self._meeting.received(replies, self._keep(server_round))
        have = self._meeting.senders(shown)
        delivery = self._meeting.deliver(OWN, have)
        if self._first.kind == TRAIN_OWN.kind:
            self._meeting.began(have)
        mix = partial(mixed_parameters, push=self._push)
        messages = self._messages(sorted(delivery.letters), self._second)
        taken = self._meeting.post(messages, delivery, mix, None)
        took = self._meeting.senders(taken)
        self._meeting.began(took)
        self._meeting.neighbours.taken(server_round, delivery, took)
        metrics = self._meeting.close()
        mean, distance = self._consensus()
        return mean, MetricRecord({**metrics, "consensus-distance": distance})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask everyone who is present, asleep or not, to measure its network."""
        return self._messages(self._meeting.present(), EVALUATE_OWN)

    def end(self) -> None:
        """Drop what is on its way: another strategy follows."""
        self._meeting.end()

    def state(self) -> RecordDict:
        """Return what its meeting keeps between rounds."""
        return self._meeting.state()

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        self._meeting.restore(state)

    # --- steps ---

    def _keep(self, server_round: int) -> Keep:
        fault = partial(fault_in_own, forms=self._forms, push=self._push)
        return Keep(payload_name(OWN, server_round), without_arrays, fault)

    def _messages(self, peers: Sequence[int], asks: Handler) -> list[Message]:
        return self._meeting.ask(peers, asks, push=self._push)

    def _consensus(self) -> tuple[ArrayRecord | None, float]:
        """Return the mean of all who are present and how far they are from it."""
        start = self._meeting.start
        assert start is not None, "configure_train comes first"
        messages = self._messages(self._meeting.present(), SHOW_OWN)
        fault = partial(fault_in_own, forms=self._forms)
        reducer = Reducer(partial(Spread, buffers=self._buffers), fault)
        if isinstance(grid := self._meeting.grid, Folding):
            parts = [r.content for r in grid.send_and_fold(messages, reducer) if is_part(r)]
        else:
            replies = [r for r in grid.send_and_receive(messages) if r.has_content()]
            contents = [reply.content for reply in replies if fault(reply, reply) is None]
            parts = [reducer.fold(contents)] if contents else []
        if not parts:
            return None, 0.0
        mean, distance = mean_and_distance(parts[0], read_arrays(start), self._buffers)
        return write_arrays(mean), distance


def _require_sums(mixing: Mixing, push: bool, server_round: int) -> None:
    """Refuse weights by which parameters would grow or shrink."""
    sums = np.asarray(mixing(server_round).sum(axis=0 if push else 1)).ravel()
    if not np.allclose(sums, 1.0):
        which = "column" if push else "row"
        cure = "false" if push else "true (strategy=push_sum)"
        raise ValueError(
            f"topology.mixing: a {which} of W sums to {sums.max():.3f} in round {server_round}, "
            f"expected 1; strategy.push={cure} is for such weights"
        )
