"""Views of a round for whoever watches: what was answered, and what was made of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from clients.messages.answers import Answers
from clients.models.factory import Parameters


@dataclass(frozen=True, eq=False)
class Features:
    """What classifiers saw of P examples, in the order of the ids.

    Attributes:
        student: The student's penultimate features, after its lesson [P, D].
        clients: Those of the clients that answered, by client id [P, D_k].
    """

    student: Tensor
    clients: Mapping[int, Tensor]


@dataclass(frozen=True, eq=False)
class ClientParameters:
    """The parameters of a cohort of one architecture, as Flower's averaging sends them.

    Attributes:
        before: What all were sent.
        after: What each sent back, in the order of the view's client ids; names and shapes as
            `before`.
    """

    before: Parameters
    after: Sequence[Parameters]


@dataclass(frozen=True, eq=False)
class RoundView:
    """What happened in a round, for whoever watches. Read only.

    Everything but the losses is on P of the distilled proxy examples, the same in every round: a
    watcher's work and memory do not grow with the proxy set, and the answers to all of it need
    never be in one place. In a round that averages parameters nobody answers: P = 0.

    Attributes:
        server_round: 1..R.
        proxy_ids: Which proxy examples these are, ascending (P of them).
        teachers: The answers on them; a teacher that did not answer an example is masked there.
        weights: Trust [K, P]; sums to 1 over K, or to 0 where nobody covers the example.
        targets: What the student imitated [P, C]; rows that nobody covers were dropped.
        losses: The student's mean loss in each epoch, over all distilled examples.
        student_before: The student's logits [P, C] before its lesson; None where there is none.
        student_after: And after it [P, C].
        labels: Classes [P], if the proxy set has some. No strategy sees them: whoever hands the
            view on to probes puts them in.
        features: Asks clients, by their ids, and the student what their classifiers see of the P
            examples. Costs those clients' time and P x D float32 each on the wire, and must be
            called before the round goes on; None where nobody can be asked.
        parameters: What the cohort sent back, where that is parameters; else None.
    """

    server_round: int
    proxy_ids: tuple[int, ...]
    teachers: Answers
    weights: Tensor
    targets: Tensor
    losses: list[float]
    student_before: Tensor | None = None
    student_after: Tensor | None = None
    labels: Tensor | None = None
    features: Callable[[Sequence[int]], Features] | None = None
    parameters: ClientParameters | None = None


@dataclass(frozen=True, eq=False)
class GraphView:
    """Who heard of whom in a round of a federation without a server, for whoever watches.

    Attributes:
        server_round: 1..R.
        senders: Of each message that arrived from another peer [E]; with several sweeps there are
            several of a pair.
        receivers: Of the same messages [E].
        present: Who belonged to the federation [n].
        awake: Who took part [n].
        teachers: Answers of those who did on the probe examples; None where none are given.
    """

    server_round: int
    senders: npt.NDArray[np.int64]
    receivers: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]
    awake: npt.NDArray[np.bool_]
    teachers: Answers | None
