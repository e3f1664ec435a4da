"""Views: what a client sees of an input, as it trains, answers and is measured.

A camera that is turned, dirty or coarse, or augmentation of one's own examples. A view of a user's
own is a function of the inputs of a batch that gets what it names of `client_id`, `phase` and
`rng`; those that are shipped are of images.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from clients.data import Dataset, normalised, viewed
from clients.execution.isolation import keeps_nothing
from clients.signatures import named_of, require_given
from clients.training.local_context import array_of

Inputs = npt.NDArray[Any]
Seeing = Literal["train", "answer", "test"]
PHASES: tuple[Seeing, ...] = ("train", "answer", "test")
View = Callable[..., Inputs]
"""(inputs [B, ...] as networks get them, what it names of OFFERED) -> the same, of that shape."""

OFFERED = ("client_id", "phase", "rng")


def flipped(
    inputs: Inputs,
    *,
    phase: Seeing,
    rng: np.random.Generator,
    share: Annotated[float, "in [0, 1]"] = 0.5,
) -> Inputs:
    """View in which images are mirrored, left to right, at random in training.

    Args:
        inputs: Images [B, channels, height, width].
        phase: Nothing is done but in "train".
        rng: Says which.
        share: Of the images, in [0, 1].

    Returns:
        The images.
    """
    _require_images(inputs, "flipped")
    if phase != "train":
        return inputs
    chosen = rng.random(len(inputs)) < share
    inputs[chosen] = inputs[chosen, :, :, ::-1]
    return inputs


def shifted(
    inputs: Inputs, *, phase: Seeing, rng: np.random.Generator, pixels: Annotated[int, ">= 0"] = 2
) -> Inputs:
    """View in which images are moved at random in training: padded by their edges, and cropped.

    Args:
        inputs: Images [B, channels, height, width].
        phase: Nothing is done but in "train".
        rng: Says how far each is moved.
        pixels: At most so many on each axis, >= 0.

    Returns:
        The images.

    Reference: He et al., "Deep residual learning", 2016, sec. 4.2, whose padding is of zeros.
    """
    _require_images(inputs, "shifted")
    if phase != "train":
        return inputs
    height, width = inputs.shape[2:]
    padded = np.pad(inputs, [(0, 0), (0, 0), (pixels, pixels), (pixels, pixels)], mode="edge")
    for image, wide, (down, right) in zip(
        inputs, padded, rng.integers(2 * pixels + 1, size=(len(inputs), 2)), strict=True
    ):
        image[:] = wide[:, down : down + height, right : right + width]
    return inputs


def rotated(inputs: Inputs, *, client_id: int, turns: Sequence[int] = (0, 1, 2, 3)) -> Inputs:
    """View in which a client's images are turned by quarters of a turn, its own number of them.

    Args:
        inputs: Square images [B, channels, height, width].
        client_id: k, who sees `turns[k % len(turns)]` of them, against the clock.
        turns: One for each kind of client.

    Returns:
        The images.

    Reference: Ghosh et al., "An efficient framework for clustered federated learning", NeurIPS 2020
    (arXiv:2006.04088), sec. 6: rotated MNIST.
    """
    _require_images(inputs, "rotated")
    if inputs.shape[2] != inputs.shape[3]:
        raise ValueError(f"rotated takes square images, and these are of {inputs.shape[2:]}")
    return np.rot90(inputs, turns[client_id % len(turns)], axes=(2, 3))


def occluded(
    inputs: Inputs,
    *,
    client_id: int,
    rng: np.random.Generator,
    share: Annotated[float, "in [0, 1]"] = 0.25,
    clients: Sequence[Annotated[int, ">= 0"]] | None = None,
) -> Inputs:
    """View in which a square of each image is hidden, at a place drawn for each image.

    Args:
        inputs: Images [B, channels, height, width].
        client_id: Who looks.
        rng: Says where.
        share: Of the image that is hidden, in [0, 1]; it becomes 0, the mean of its channel.
        clients: Ids of the clients that see so; None = all.

    Returns:
        The images.

    Reference: DeVries and Taylor, "Improved regularization of CNNs with cutout"
    (arXiv:1708.04552); there the square may lie over the edge.
    """
    _require_images(inputs, "occluded")
    if clients is not None and client_id not in clients:
        return inputs
    height, width = (round(size * share**0.5) for size in inputs.shape[2:])
    tops = rng.integers(inputs.shape[2] - height + 1, size=len(inputs))
    lefts = rng.integers(inputs.shape[3] - width + 1, size=len(inputs))
    for image, top, left in zip(inputs, tops, lefts, strict=True):
        image[:, top : top + height, left : left + width] = 0
    return inputs


def low_resolution(
    inputs: Inputs,
    *,
    client_id: int,
    factor: Annotated[int, ">= 1"] = 2,
    clients: Sequence[Annotated[int, ">= 0"]] | None = None,
) -> Inputs:
    """View in which blocks of pixels are one: their mean.

    Args:
        inputs: Images [B, channels, height, width].
        client_id: Who looks.
        factor: Height and width of a block, >= 1; blocks at the edge may be smaller.
        clients: Ids of the clients that see so; None = all.

    Returns:
        The images.
    """
    _require_images(inputs, "low_resolution")
    if clients is not None and client_id not in clients:
        return inputs
    for axis in (2, 3):
        size = inputs.shape[axis]
        starts = np.arange(0, size, factor)
        lengths = np.diff([*starts, size])
        shape = [-1 if each == axis else 1 for each in range(inputs.ndim)]
        sums = np.add.reduceat(inputs, starts, axis=axis)
        means = (sums / lengths.reshape(shape)).astype(inputs.dtype)
        inputs = means.repeat(lengths, axis=axis)
    return inputs


# --- how a client is given its view ---


def seen_by(
    view: View, dataset: Dataset, client_id: int, phase: Seeing, key: np.random.SeedSequence
) -> Dataset:
    """Return a data set as a client sees it.

    Args:
        view: What is done to its inputs.
        dataset: Not changed; shares its memory with what is returned.
        client_id: Who looks.
        phase: For what.
        key: Of the view's generator, which goes on from batch to batch.

    Returns:
        It.
    """
    return viewed(dataset, eyes_of(view, dataset, client_id, phase, key))


def eyes_of(
    view: View, dataset: Dataset, client_id: int, phase: Seeing, key: np.random.SeedSequence
) -> Callable[[Inputs], Inputs]:
    """Return what a client's view does to inputs [B, ...]; arguments as in `seen_by`.

    Inputs that come back of another shape, or are no inputs of the task, are a ValueError.
    """
    made = {
        "client_id": lambda: client_id,
        "phase": lambda: phase,
        "rng": lambda: np.random.default_rng(key),
    }
    return partial(_seen, view, named_of(view, made), dataset.task.num_tokens)


def require_view(view: View, dataset: Dataset) -> None:
    """Try a view on two examples in every phase.

    Args:
        view: Anyone's.
        dataset: Where the examples are.

    Raises:
        ValueError: It cannot, or needs what nobody gives it; names the key.
    """
    require_given(view, 1, OFFERED, "clients.view")
    for phase in PHASES:
        try:
            tried = seen_by(view, dataset, 0, phase, np.random.SeedSequence(0))
            normalised(tried, np.zeros(2, np.int64))
        except ValueError:
            raise
        except Exception as error:  # anyone's code
            raise ValueError(f"clients.view: {type(error).__name__}: {error}") from error


def _seen(view: View, named: dict[str, Any], num_tokens: int | None, inputs: Inputs) -> Inputs:
    shape, dtype = inputs.shape, inputs.dtype
    with keeps_nothing(**{"clients.view": view}):
        given = view(inputs, **named)
    is_array = isinstance(given, np.ndarray) and given.dtype != object
    found = given if is_array else array_of("clients.view: what it gave", "inputs", given)
    if found.shape != shape or found.dtype.kind != dtype.kind:
        raise ValueError(
            f"clients.view gave inputs of {found.dtype} {found.shape}, expected {dtype} {shape}"
        )
    if num_tokens is not None and found.size and not 0 <= found.min() <= found.max() < num_tokens:
        raise ValueError(f"clients.view gave tokens beyond 0..{num_tokens - 1}")
    if num_tokens is None and not np.isfinite(found).all():
        raise ValueError("clients.view gave inputs that are not finite")
    return np.ascontiguousarray(found, dtype=dtype)


def _require_images(inputs: Inputs, name: str) -> None:
    if inputs.ndim != 4:
        raise ValueError(
            f"{name} takes images [B, channels, height, width], and these inputs are "
            f"{list(inputs.shape[1:])}"
        )
