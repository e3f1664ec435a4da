"""Fields that are shipped: what clients can be asked for about inputs beside their logits."""

from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.codecs import Codec, Precision
from clients.messages.field import TAKEN, Field, Fields
from clients.messages.field_source import Asked
from clients.training.evaluation import predict_and_tap
from clients.training.taps import PENULTIMATE

LOGITS, OWN_PROBS = "logits", "own_probs"

MAX_COUNT = 1e12
"""As many as a client may claim to have."""


def logits(codec: Codec | str = "float32") -> Field:
    """What the network says of each input, raw [N, C] (of several sites [R, C]): asked always."""
    return Field(_logits, ("R", "C"), codec=codec)


def logits_of(fields: Fields, answers: str) -> Field:
    """Return the field of logits: the one that has a codec of its own, or that of a precision."""
    return fields.get(LOGITS) or logits(answers)


def others_of(fields: Fields) -> Fields:
    """Return the fields beside logits and own_probs, which answers have places for."""
    return {name: each for name, each in fields.items() if name not in (LOGITS, OWN_PROBS)}


def features(
    tap: str = PENULTIMATE,
    shape: tuple[int | None, ...] = (None,),
    codec: Codec | str = "float32",
    tested: bool = False,
) -> Field:
    """Features of each input at a place of the network [N, ...], FitNets' hints.

    Args:
        tap: A module's name, or "penultimate": what the last linear layer receives.
        shape: Of one input's features; null = any size. [null] takes features flat.
        codec: How they travel.
        tested: Whether the test set is asked about too.

    Returns:
        The field.

    Reference: Romero et al., "FitNets", ICLR 2015 (arXiv:1412.6550).
    """
    if isinstance(shape, int):
        raise ValueError(f"strategy.ask.features.shape={shape}: expected a list, [{shape}]")
    flat = len(shape) == 1
    of = partial(_features, tap=tap, flat=flat)
    return Field(of, ("N", *shape), codec=codec, taps=(tap,), tested=tested)


def class_means(tap: str | None = None, codec: Codec | str = "float32") -> Field:
    """Mean of what the network says of the client's own examples of each class [C, D].

    Examples with soft labels count in each class by its share.
    Rows of classes of which it has none are 0; `class_counts` tells which.

    Args:
        tap: A place whose features are averaged, flat (prototypes); null = logits.
        codec: How they travel.

    Returns:
        The field.

    Reference: of logits Jeong et al., "Federated distillation" (arXiv:1811.11479), of features Tan
    et al., "FedProto", AAAI 2022 (arXiv:2105.00243), eq. 3.
    """
    of, size = partial(_class_means, tap=tap), "C" if tap is None else None
    return Field(of, ("C", size), codec=codec, more_examples=_own_examples)


def class_counts(codec: Codec | str = "float32") -> Field:
    """How many examples of each class a client has [C], of those that it learns from.

    Of soft labels it is their sum: how many are to be expected.
    """
    return Field(_class_counts, ("C",), codec=codec, fault=_no_counts)


def check_names(fields: Fields, section: str) -> None:
    """Refuse what cannot be asked for.

    Args:
        fields: By name.
        section: Of the config, for errors.

    Raises:
        ValueError: A name is none, or taken, or something is no field; names it.
    """
    for name, each in fields.items():
        if not str(name).isidentifier() or name in TAKEN:
            raise ValueError(
                f"{section}.{name}: expected a name of letters, digits and _ that is none of "
                f"{', '.join(TAKEN)}"
            )
        if not isinstance(each, Field):
            raise ValueError(f"{section}.{name}: {each!r}, expected a clients.messages.field.Field")


def rehearse_codec(name: str, field: Field, num_classes: int, key: str) -> None:
    """See that the codec of a field, if it is a user's own, gives back what it is given.

    Args:
        name: Of the field.
        field: It.
        num_classes: C.
        key: Of the config, for errors.

    Raises:
        ValueError: It does not, by its form; says what it gave.
    """
    if isinstance(field.codec, Precision):
        return
    array = field.made_up(1, 4, num_classes)[0].numpy()
    about = {"client_id": lambda: 0, "server_round": lambda: 0, "note": lambda: _unnoted}
    rng = np.random.default_rng(0)
    try:
        sent = field.encode(name, array, lambda stream: rng, about)
        back = field.decode(name, read_arrays(write_arrays(sent)))
    except Exception as error:  # anyone's code
        raise ValueError(f"{key}: {type(error).__name__}: {error}") from error
    if (back.shape, back.numpy().dtype) != (array.shape, array.dtype):
        found = f"{back.numpy().dtype} {tuple(back.shape)}"
        raise ValueError(f"{key}: decode gave {found}, expected {array.dtype} {array.shape}")


def _unnoted(**numbers: float) -> None:
    """Note nothing of what is only tried."""


# --- what clients say ---


def _logits(asked: Asked) -> Tensor:
    return asked.logits


def _features(asked: Asked, *, tap: str, flat: bool) -> Tensor:
    return asked.features(tap).flatten(1) if flat else asked.features(tap)


def _require_classes(asked: Asked, name: str) -> None:
    task = asked.private.task
    if not task.has_classes:
        raise ValueError(f"{name} are of classes, and the task is {task.name}")


def _class_means(asked: Asked, *, tap: str | None) -> Tensor:
    _require_classes(asked, "means")
    if tap is not None and asked.private.task.sites > 1:
        raise ValueError(f"tap={tap}: features are of inputs, which have many classes each")
    taps = () if tap is None else (tap,)
    said, seen = predict_and_tap(asked.network(), asked.private, asked.indices, taps)
    values = said if tap is None else seen[tap].flatten(1)
    known, members = _members(asked)
    sums = members.T.to(values) @ values[known]
    total = members.sum(0)[:, None]
    return sums / total.where(total > 0, 1)


def _class_counts(asked: Asked) -> Tensor:
    _require_classes(asked, "counts")
    return _members(asked)[1].sum(0)


def _members(asked: Asked) -> tuple[Tensor, Tensor]:
    """Say which rows have labels [R], and how much each of these is of a class [M, C]."""
    labels = torch.tensor(asked.labels())
    if labels.is_floating_point():
        return torch.ones(len(labels), dtype=torch.bool), labels
    known = labels.flatten() >= 0
    members = torch.nn.functional.one_hot(labels.flatten()[known], asked.logits.shape[1])
    return known, members


def _no_counts(array: npt.NDArray[np.float32]) -> str | None:
    return None if ((array >= 0) & (array <= MAX_COUNT)).all() else f"leaves [0, {MAX_COUNT:.0e}]"


def _own_examples(private: int, negatives: int) -> int:
    return private
