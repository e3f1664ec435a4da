"""Rules' arguments: what a scorer or a combiner gets by name beside answers and weights.

`ids` [N], of the proxy examples that are answered, or of test examples; `phase`, "distil" or
"test"; `calibration`, the same clients' answers to a labelled share of the proxy set that is never
distilled; `labels` [N] of the distilled examples, where the proxy set is declared to be labelled,
and None in the phase "test"; and a combiner `teachers`, all that the cohort said. A rule that names
one of them needs all answers in one place.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.data import Dataset
from clients.messages.answers import Answers, stack
from clients.signatures import names, needs, require_given

OFFERED = ("ids", "phase", "calibration", "labels")
CALIBRATION, LABELS = "calibration", "labels"
Known = Mapping[str, Any]
"""Some of OFFERED, by name."""

Ids = npt.NDArray[np.int64]

NOTHING: Known = {}


@dataclass(frozen=True, eq=False)
class Calibration:
    """Answers to labelled proxy examples, on which teachers can be measured.

    Attributes:
        answers: Of the cohort's K clients, as of the examples that are distilled [K, M, ...].
        labels: As the task has them, one for each row: int64 [M], of several sites [M*S], where
            -1 is none; of a regression float32 [M, C].
    """

    answers: Answers
    labels: Tensor

    @property
    def logits(self) -> Tensor:
        """Raw answers [K, M, C]."""
        return self.answers.logits

    def among(self, client_ids: Collection[int]) -> "Calibration":
        """Return those of some of the clients, as of a later chunk that fewer answered."""
        return replace(self, answers=of_clients(self.answers, client_ids))


def of_clients(answers: Answers, client_ids: Collection[int]) -> Answers:
    """Return the answers of some clients, ascending by id."""
    if tuple(client_ids) == answers.client_ids:
        return answers
    places = [k for k, client_id in enumerate(answers.client_ids) if client_id in client_ids]

    def some(array: Any) -> Any:
        return stack([array[k] for k in places])

    own = answers.own_probs
    return replace(
        answers,
        client_ids=tuple(answers.client_ids[k] for k in places),
        logits=answers.logits[places],
        mask=answers.mask[places],
        own_probs=None if own is None else own[places],
        num_examples=answers.num_examples[places],
        per_input={name: some(array) for name, array in answers.per_input.items()},
        per_client={name: some(array) for name, array in answers.per_client.items()},
    )


def calibrated(rules: Mapping[str, Callable[..., Any]], ids: Ids, labelled: bool) -> Ids:
    """Return which calibration examples rules want answered [M]: all there are, or none.

    Args:
        rules: By the name of their axis.
        ids: Of the calibration examples there are.
        labelled: Whether the server knows the labels of all others too.

    Returns:
        Those, if a rule names `calibration`.

    Raises:
        ValueError: One needs it, or labels, and there are none; names the key.
    """
    for axis in (axis for axis, rule in rules.items() if names(rule, LABELS) and not labelled):
        raise ValueError(
            f"strategy.{axis} looks at labels of what is distilled: expected "
            "strategy.proxy_split.labelled=true, if the server is to know them"
        )
    wants = {axis: rule for axis, rule in rules.items() if names(rule, CALIBRATION)}
    for axis, rule in wants.items():
        if not len(ids) and needs(rule, CALIBRATION):
            raise ValueError(
                f"strategy.{axis} measures teachers on labelled proxy examples: expected "
                "strategy.proxy_split.calibration_share > 0, of which the server knows the labels"
            )
    return ids if wants else ids[:0]


def parted(answers: Answers, proxy: Dataset, ids: Ids) -> tuple[Answers, Calibration | None]:
    """Part the answers to calibration examples, which are the last ones, from the others.

    Args:
        answers: To both.
        proxy: The proxy set.
        ids: Of the calibration examples [M]; none: there are none.

    Returns:
        The others, and the calibration.
    """
    if not len(ids):
        return answers, None
    inputs = answers.mask.shape[1] // answers.sites
    labels = labels_of(proxy, ids)
    first = inputs - len(ids)
    return answers.at(slice(0, first)), Calibration(answers.at(slice(first, inputs)), labels)


def labels_of(proxy: Dataset, ids: Ids) -> Tensor:
    """Return labels of some proxy examples: one for each row of answers, numbers as they are."""
    labels = torch.from_numpy(proxy.labels[ids])
    return labels.flatten() if proxy.task.soft else labels


def told(rule: Callable[..., Any], known: Known) -> dict[str, Any]:
    """Pick what a rule names of what is known."""
    return {name: value for name, value in known.items() if names(rule, name)}


def wanted(*rules: Callable[..., Any]) -> set[str]:
    """Return the names of OFFERED that rules name."""
    return {name for name in OFFERED for rule in rules if names(rule, name)}


def require_offered(rule: Callable[..., Any], places: int, key: str, *more: str) -> None:
    """Refuse a rule that needs what nobody gives it.

    Args:
        rule: Anyone's.
        places: How many arguments it gets by position.
        key: Of the config.
        *more: Names of what it is offered beside OFFERED.

    Raises:
        ValueError: It has such an argument; names it.
    """
    require_given(rule, places, (*more, *OFFERED), key)


def require_none(rules: Mapping[str, Callable[..., Any]], why: str) -> None:
    """Refuse rules that name any of OFFERED.

    Args:
        rules: By the name of their axis.
        why: There is none of it.

    Raises:
        ValueError: One does; names key and argument.
    """
    for axis, rule in rules.items():
        for name in sorted(wanted(rule)):
            raise ValueError(f"strategy.{axis} asks for '{name}': {why}")


def made_up_arguments(answers: Answers) -> Known:
    """Make up what rules may name, beside made-up answers, to try them on."""
    inputs = answers.mask.shape[1] // answers.sites
    few = answers.at(slice(0, min(8, inputs)))
    rows, classes = few.logits.shape[1:]
    labels = torch.arange(rows) % classes if few.soft else torch.zeros(rows, classes)
    every = torch.arange(answers.logits.shape[1])
    return {
        "ids": np.arange(inputs),
        "phase": "distil",
        CALIBRATION: Calibration(few, labels),
        LABELS: every % classes if few.soft else torch.zeros(len(every), classes),
    }
