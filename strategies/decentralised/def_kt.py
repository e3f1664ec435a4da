"""Def-KT: pairs of peers, in which the receiver learns with the network that the sender tuned."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from scipy.sparse import csr_array

from clients.data import Dataset
from clients.handlers.peer_parameters import EVALUATE_OWN, TRAIN_OWN
from clients.handlers.transfer import train_received
from clients.messages.accumulator import Intake, Keep
from clients.messages.round_views import GraphView
from clients.models.factory import ModelFunction
from clients.mutual.messenger import Messenger
from clients.population.rehearsal import rehearse_messenger, require_like
from clients.seeding import Purpose, generator
from strategies.aggregation.parameters import forms_of
from strategies.base import BaseStrategy
from strategies.decentralised.delivery import Availability, Mixing, Neighbours, payload_name
from strategies.decentralised.mixed_parameters import fault_in_own, only_received, without_arrays
from strategies.decentralised.peer_round import Meeting

TUNED = "tuned"
LOOK_AHEAD = 32
"""Rounds whose pairs are looked at before the first."""


class MutualTransfer(BaseStrategy):
    """Decentralised federated learning via mutual knowledge transfer.

    A round: one of each pair trains on its own data and sends its network; on the other's data both
    networks teach each other, and that peer goes on with one of them.

    Reference: Li, Li, Varshney, IEEE Internet of Things Journal 9 (2022) (arXiv:2012.13063).
    """

    has_student = False
    of_classes = True

    def __init__(
        self,
        *,
        num_clients: int,
        mixing: Mixing,
        availability: Availability,
        student_model: ModelFunction,
        models: dict[str, ModelFunction],
        test: Dataset,
        seed: int,
        how: Messenger,
        keep: Literal["received", "own", "mean"] = "received",
        watch: Callable[[GraphView], None] = lambda view: None,
    ) -> None:
        """Compose the method.

        Args:
            num_clients: n.
            mixing: Round -> W [n, n], of pairs: who is paired is all that is looked at.
            availability: Who is there in a round, and what arrives.
            student_model: Model function of the one architecture.
            models: Model functions of the clients' architectures by name.
            test: Gives image shape and classes.
            seed: The run's seed; a draw says which of a pair sends.
            how: The receiver's own network and the one received teach each other.
            keep: Which one the receiver goes on with; the paper's choice we know from memory only.
            watch: Receives each round's graph.

        Raises:
            ValueError: Architectures differ, or somebody has two partners.
        """
        if keep not in ("received", "own", "mean"):
            raise ValueError(f"strategy.keep={keep}: expected received, own or mean")
        require_like(student_model, models, test, "mutual transfer")
        rehearse_messenger(how, student_model, models, test, "strategy.how")
        for server_round in range(1, LOOK_AHEAD + 1):
            one_way(mixing, seed, server_round)
        self._forms = forms_of({TUNED: student_model}, test)[TUNED]
        self._learning = train_received(how, keep)
        self.handlers = (TRAIN_OWN, self._learning, EVALUATE_OWN)
        pairs = partial(one_way, mixing, seed)
        self._meeting = Meeting(Neighbours(pairs, availability, num_clients, "drop"), watch)

    # --- Flower's five methods, and what our engine asks beside them ---

    def intake(self, server_round: int, phase: str) -> Intake:
        """Leave networks where they were tuned."""
        return self._keep(server_round) if phase == "train" else None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the sender of each pair to train."""
        awake = self._meeting.open(server_round, grid, arrays)
        sending = set(self._meeting.neighbours.mixing(server_round).tocoo().col.tolist())
        return self._meeting.ask([peer for peer in awake if peer in sending], TRAIN_OWN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Let each receiver learn with what it is sent."""
        shown = self._meeting.received(replies, self._keep(server_round))
        have = self._meeting.senders(shown)
        self._meeting.began(have)
        delivery = self._meeting.deliver(TUNED, have, with_own=False)
        messages = self._meeting.ask(sorted(delivery.letters), self._learning)
        taken = self._meeting.post(messages, delivery, only_received, None)
        self._meeting.began(self._meeting.senders(taken))
        return None, MetricRecord({**self._meeting.close()})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask everyone who is present, asleep or not, to measure its network."""
        return self._meeting.ask(self._meeting.present(), EVALUATE_OWN)

    def state(self) -> RecordDict:
        """Return what its meeting keeps between rounds."""
        return self._meeting.state()

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        self._meeting.restore(state)

    # --- steps ---

    def _keep(self, server_round: int) -> Keep:
        fault = partial(fault_in_own, forms=self._forms)
        return Keep(payload_name(TUNED, server_round), without_arrays, fault)


def one_way(mixing: Mixing, seed: int, server_round: int) -> csr_array:
    """Draw which of each pair sends.

    Args:
        mixing: Round -> W of pairs.
        seed: The run's seed.
        server_round: 1..R.

    Returns:
        [n receivers, n senders], 1 where one sends to the other.

    Raises:
        ValueError: Somebody has two partners.
    """
    matrix = mixing(server_round).tocoo()
    pairs = sorted(
        {(min(i, j), max(i, j)) for i, j in zip(matrix.row, matrix.col, strict=True) if i != j}
    )
    everyone = [peer for pair in pairs for peer in pair]
    if len(set(everyone)) < len(everyone):
        twice = min(peer for peer in everyone if everyone.count(peer) > 1)
        raise ValueError(
            f"topology: peer {twice} has several neighbours in round {server_round}; mutual "
            "transfer is between pairs: topology=random_matchings"
        )
    coins = generator(seed, Purpose.PEERS, server_round).random(len(pairs)) < 0.5
    ends = [(i, j) if coin else (j, i) for (i, j), coin in zip(pairs, coins, strict=True)]
    receivers, senders = np.array(ends, dtype=np.int64).reshape(-1, 2).T
    return csr_array((np.ones(len(ends)), (receivers, senders)), shape=matrix.shape)
