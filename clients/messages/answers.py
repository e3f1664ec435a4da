"""The answers of a cohort: named arrays that clients say about shared inputs, [K, N, ...]."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

Inputs = slice | Tensor
"""Positions of inputs."""

Stacked = Tensor | tuple[Tensor, ...]
"""One array per client: [K, ...], or K of them where they are of unlike shapes."""


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a cohort, ordered by client id. `answers["features"]` is a field of them.

    N is the number of rows of answers: of inputs, but where a task has S sites in each, of those.

    Attributes:
        client_ids: Who answered, ascending (K of them).
        logits: [K, N, C] float32; of a regression its numbers.
        mask: Who answered for what [K, N] bool.
        own_probs: Discriminators' probabilities [K, N] in [0, 1], or None if not asked for.
        num_examples: Size of each private set [K] float32, > 0.
        per_input: Other fields that were asked for, with a row for each input [K, N, ...]. With
            several sites one number for each input is there for each site; more are [K, N/S, ...].
        per_client: And those that say something of the client [K, ...].
        sites: S, rows of answers of each input.
        soft: Whether the softmax of a row is what a client believes; else it is numbers.
    """

    client_ids: tuple[int, ...]
    logits: Tensor
    mask: Tensor
    own_probs: Tensor | None
    num_examples: Tensor
    per_input: Mapping[str, Stacked] = field(default_factory=dict)
    per_client: Mapping[str, Stacked] = field(default_factory=dict)
    sites: int = 1
    soft: bool = True

    @property
    def fields(self) -> dict[str, Stacked]:
        """All fields by name."""
        own = {} if self.own_probs is None else {"own_probs": self.own_probs}
        return {"logits": self.logits, **own, **self.per_input, **self.per_client}

    def __getitem__(self, name: str) -> Tensor:
        """Return a field of all clients.

        Args:
            name: Of the field.

        Returns:
            [K, N, ...], or [K, ...] of what says something of the client.

        Raises:
            ValueError: It was not asked for, or clients' are of unlike shapes.
        """
        if (found := self.fields.get(name)) is None:
            raise ValueError(
                f"answers have no '{name}', only {', '.join(self.fields)}: ask for it with "
                f"strategy/ask=[{name}], and of the test set too with tested=true of that field"
            )
        if isinstance(found, tuple):
            shapes = ", ".join(str(tuple(each.shape)) for each in found)
            raise ValueError(
                f"clients' '{name}' are of unlike shapes, {shapes}: take answers.of(k)['{name}']"
            )
        return found

    def of(self, k: int) -> "Answers":
        """Return the answers of the k-th client alone, K = 1."""
        one = slice(k, k + 1)
        return Answers(
            self.client_ids[one],
            self.logits[one],
            self.mask[one],
            None if self.own_probs is None else self.own_probs[one],
            self.num_examples[one],
            {name: _one(each, k) for name, each in self.per_input.items()},
            {name: _one(each, k) for name, each in self.per_client.items()},
            self.sites,
            self.soft,
        )

    def at(self, inputs: Inputs) -> "Answers":
        """Return the answers to some of the inputs; what says something of a client stays."""
        rows, length = rows_at(inputs, self.sites), self.mask.shape[1]

        def which(number: int) -> Inputs:  # of so many: rows, or with several sites inputs
            return rows if number == length else inputs

        return replace(
            self,
            logits=self.logits[:, rows],
            mask=self.mask[:, rows],
            own_probs=None if self.own_probs is None else self.own_probs[:, rows],
            per_input={
                name: tuple(own[which(len(own))] for own in each)
                if isinstance(each, tuple)
                else each[:, which(each.shape[1])]
                for name, each in self.per_input.items()
            },
        )

    def beside(self, first: "Answers") -> "Answers":
        """Return them with what the same clients said of themselves in a round's first answers."""
        places = [first.client_ids.index(client_id) for client_id in self.client_ids]
        said = {name: rows_of(array) for name, array in first.per_client.items()}
        return replace(
            self,
            per_client={name: stack([rows[k] for k in places]) for name, rows in said.items()},
        )


def rows_at(inputs: Inputs, sites: int) -> Inputs:
    """Return which rows of answers are those of some inputs, of S sites each."""
    if sites == 1:
        return inputs
    if isinstance(inputs, slice):
        start = None if inputs.start is None else inputs.start * sites
        return slice(start, None if inputs.stop is None else inputs.stop * sites)
    return (inputs[:, None] * sites + torch.arange(sites)).flatten()


def stack(arrays: Sequence[Tensor]) -> Stacked:
    """Put one array of each client together, at least one: [K, ...], or K where shapes differ."""
    alike = len({each.shape for each in arrays}) == 1
    return torch.stack([*arrays]) if alike else tuple(arrays)


def rows_of(array: Stacked) -> tuple[Tensor, ...]:
    """Take apart again what `stack` put together."""
    return array if isinstance(array, tuple) else tuple(array)


def _one(array: Stacked, k: int) -> Tensor:
    return array[k][None] if isinstance(array, tuple) else array[k : k + 1]
