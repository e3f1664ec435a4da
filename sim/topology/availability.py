"""Which peers are there in a round, and which messages arrive: from seed and round alone."""

from typing import Annotated

import numpy as np
import numpy.typing as npt

from clients.seeding import Purpose, stream

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

LOST = -1
"""In place of a delay."""

CHURN, SLEEP, DELAY = 0, 1, 2
"""Streams of their own (`turn` of the stream), so that one does not shift another."""


class Availability:
    """Churn, sleep, loss and delay of a federation's peers.

    Peers leave and join by a two-state Markov chain each, whose long-run share of presence is
    join / (join + leave). A round may find everybody asleep, but never everybody gone: where the
    draws would have it so, the peer whose draw was nearest to presence is there.
    """

    def __init__(
        self,
        *,
        num_peers: int,
        seed: int,
        sleep_probability: Annotated[float, "in [0, 1]"] = 0.0,
        drop_probability: Annotated[float, "in [0, 1]"] = 0.0,
        late_probability: Annotated[float, "in [0, 1]"] = 0.0,
        late_rounds: Annotated[int, ">= 1"] = 1,
        leave_probability: Annotated[float, "in [0, 1]"] = 0.0,
        join_probability: Annotated[float, "in [0, 1]"] = 0.0,
        present_share: Annotated[float, "in (0, 1]"] = 1.0,
    ) -> None:
        """Bind the numbers to a federation.

        Args:
            num_peers: n >= 1.
            seed: The run's seed, >= 0.
            sleep_probability: That a peer that is present does not take part in a round.
            drop_probability: That a message is lost.
            late_probability: That a message that is not lost arrives in a later round.
            late_rounds: How many rounds later at most, >= 1; 1..late_rounds are equally likely.
            leave_probability: That a peer that is present is gone in the next round.
            join_probability: That a peer that is gone is present in the next round.
            present_share: Probability of presence in round 1, in (0, 1].

        Raises:
            ValueError: A number is out of range; names the key.
        """
        probabilities = {
            "sleep_probability": sleep_probability,
            "drop_probability": drop_probability,
            "late_probability": late_probability,
            "leave_probability": leave_probability,
            "join_probability": join_probability,
        }
        for key, value in probabilities.items():
            if not 0 <= value <= 1:
                raise ValueError(f"availability.{key}={value}: expected a probability in [0, 1]")
        if not 0 < present_share <= 1:
            raise ValueError(f"availability.present_share={present_share}: expected in (0, 1]")
        if late_rounds < 1:
            raise ValueError(f"availability.late_rounds={late_rounds}: expected an integer >= 1")
        self.num_peers, self.seed = num_peers, seed
        self._sleep, self._drop, self._late = sleep_probability, drop_probability, late_probability
        self._late_rounds = late_rounds
        self._leave, self._join = leave_probability, join_probability
        self._present: list[Bools] = [self._begin(present_share)]  # of the rounds 1, 2, ...

    def present(self, server_round: int) -> Bools:
        """Tell who belongs to the federation in a round.

        Args:
            server_round: 1..R.

        Returns:
            [n]; at least one peer is present.

        Raises:
            ValueError: The round is below 1.
        """
        _require_round(server_round)
        while len(self._present) < server_round:
            self._present.append(self._next(self._present[-1], len(self._present) + 1))
        return self._present[server_round - 1].copy()

    def awake(self, server_round: int) -> Bools:
        """Tell who takes part in a round.

        Args:
            server_round: 1..R.

        Returns:
            [n]: present and not asleep; it can be nobody.

        Raises:
            ValueError: The round is below 1.
        """
        present = self.present(server_round)
        if not self._sleep:
            return present
        awake: Bools = self._draw(server_round, SLEEP) >= self._sleep
        return present & awake

    def delays(self, server_round: int, senders: Ints, receivers: Ints) -> Ints:
        """Tell when messages of a round arrive, whoever is there.

        What becomes of a message depends on seed, round, sender and receiver, not on which others
        there are, nor on their order.

        Args:
            server_round: In which they are sent, 1..R.
            senders: [E], in 0..n-1.
            receivers: [E], in 0..n-1.

        Returns:
            [E]: 0 = in this round, d > 0 = d rounds later, -1 = never.

        Raises:
            ValueError: The round is below 1.
        """
        _require_round(server_round)
        delays = np.zeros(len(senders), dtype=np.int64)
        if not self._drop and not self._late:
            return delays
        order = np.argsort(senders, kind="stable")
        distinct, starts = np.unique(np.asarray(senders)[order], return_index=True)
        for sender, edges in zip(distinct.tolist(), np.split(order, starts[1:]), strict=False):
            delays[edges] = self._fates(server_round, sender, np.asarray(receivers)[edges])
        return delays

    def _fates(self, server_round: int, sender: int, receivers: Ints) -> Ints:
        """Draw for all receivers up to the largest, so that each has its own two numbers."""
        rng = np.random.default_rng(
            stream(self.seed, Purpose.AVAILABILITY, server_round, sender, DELAY)
        )
        lost, late = rng.random((int(receivers.max()) + 1, 2))[receivers].T
        # Given that it is late, late / probability is uniform in [0, 1).
        later = 1 + np.floor(late / (self._late or 1) * self._late_rounds).astype(np.int64)
        later = np.minimum(later, self._late_rounds)
        return np.where(lost < self._drop, LOST, np.where(late < self._late, later, 0))

    def _begin(self, share: float) -> Bools:
        return _some_below(self._draw(1, CHURN) - share)

    def _next(self, before: Bools, server_round: int) -> Bools:
        if not self._leave and not self._join:
            return before
        stays = np.where(before, 1 - self._leave, self._join)
        return _some_below(self._draw(server_round, CHURN) - stays)

    def _draw(self, server_round: int, turn: int) -> npt.NDArray[np.float64]:
        keyed = stream(self.seed, Purpose.AVAILABILITY, server_round, 0, turn)
        return np.random.default_rng(keyed).random(self.num_peers)


def _some_below(margins: npt.NDArray[np.float64]) -> Bools:
    """Tell which are negative; the least one, if none is."""
    below = margins < 0
    below[margins.argmin()] = True
    return below


def _require_round(server_round: int) -> None:
    if server_round < 1:
        raise ValueError(f"server_round={server_round}: expected an integer >= 1")
