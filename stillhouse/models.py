"""The model goes home: from a run folder to a network that takes a file's pixels, or to a file."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from clients.data.task import classification
from clients.models.factory import build, load_parameters
from conf.errors import ConfigError
from conf.resume import instantiate_trusted
from sim.tracking.model_file_header import Description, read_description
from sim.tracking.run_files import PEERS, STUDENT

Format = Literal["torchscript", "onnx"]


class FromFile(nn.Module):
    """Turns inputs as the data's file has them into network inputs: (x * scale - mean) / std."""

    def __init__(self, about: Description) -> None:
        """Compute gain and shift of each channel as `clients.data` does, in float64, once."""
        super().__init__()
        std, channels = np.asarray(about["std"]), (-1, *(1 for _ in about["input_shape"][1:]))
        gain, shift = about["scale"] / std, np.asarray(about["mean"]) / std
        self.tokens = about["num_tokens"] is not None
        self.register_buffer("gain", torch.from_numpy(gain).float().reshape(channels))
        self.register_buffer("shift", torch.from_numpy(shift).float().reshape(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Give [B, *input_shape] as float32, normalised; tokens as they are, int64."""
        return inputs.long() if self.tokens else inputs.float() * self.gain - self.shift  # type: ignore[operator]


def load_student(
    folder: str | Path,
    *,
    peer: str | None = None,
    normalised: bool = False,
    trust: Sequence[str] = (),
) -> nn.Module:
    """Build the student of a run folder, or one of its peers, with what it has learned.

    Args:
        folder: The run folder.
        peer: The name of a file in its `peers/`, such as "lenet5"; None = the student.
        normalised: Whether it will be given inputs that are normalised already; else it takes them
            as the data's file has them, [B, *input_shape], uint8 for images of 0 to 255.
        trust: Names of model functions of one's own that may be called; those that are shipped may.

    Returns:
        The network in eval mode, on the CPU: inputs -> outputs, logits of a classification.

    Raises:
        ValueError: There is no such model, or it cannot be built; names the file.
    """
    path = _file_of(folder, peer)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file: expected the folder of a finished run")
    about = read_description(path)
    network = _network(path, about, trust)
    return (network if normalised else nn.Sequential(FromFile(about), network)).eval()


def export(
    folder: str | Path,
    format: Format = "torchscript",
    out: str | Path | None = None,
    *,
    peer: str | None = None,
    trust: Sequence[str] = (),
) -> Path:
    """Write the student, or a peer, as a file that runs without this package.

    It takes inputs as the data's file has them, any number at once.

    Args:
        folder: The run folder.
        format: "torchscript", for `torch.jit.load` and C++, or "onnx".
        out: Where to; None = `student.pt` or `student.onnx` in the folder.
        peer: As in `load_student`, like what follows.
        trust: Likewise.

    Returns:
        The file.

    Raises:
        ValueError: There is no student, or the format is none.
        ImportError: For ONNX there are packages missing.
    """
    if format not in ("torchscript", "onnx"):
        raise ValueError(f"--format {format}: expected torchscript or onnx")
    lacking = [name for name in ("onnx", "onnxscript") if format == "onnx" and not find_spec(name)]
    if lacking:
        raise ImportError(f"--format onnx wants {lacking[0]}: pip install onnx onnxscript")
    model = load_student(folder, peer=peer, trust=trust)
    about = read_description(_file_of(folder, peer))
    ending = "pt" if format == "torchscript" else "onnx"
    path = Path(out or _file_of(folder, peer).with_suffix(f".{ending}"))
    if path.is_symlink():
        raise ValueError(f"{path}: a link, which may lead anywhere: name another file")
    dtype = torch.int64 if about["num_tokens"] is not None else torch.float32
    example = torch.zeros(2, *about["input_shape"], dtype=dtype)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that it is older than torch.export, which C++ cannot load
        if format == "torchscript":
            traced = torch.jit.trace(model, example)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, path)
        else:
            batch = ({0: torch.export.Dim("batch")},)
            log = logging.getLogger("torch.onnx")
            before = log.level
            log.setLevel(logging.ERROR)  # "torchvision is not installed"
            try:
                torch.onnx.export(
                    model,
                    (example,),
                    path,
                    dynamic_shapes=batch,
                    external_data=False,
                    verbose=False,
                )
            finally:
                log.setLevel(before)
    return path


def _file_of(folder: str | Path, peer: str | None) -> Path:
    return Path(folder) / (STUDENT if peer is None else f"{PEERS}/{peer}.safetensors")


def _network(path: Path, about: Description, trust: Sequence[str]) -> nn.Module:
    """Build what a description names, if that may be called, and load the file."""
    outputs = about["output_shape"]
    try:
        task = classification(tuple(about["input_shape"]), max(outputs[0], 1), about["num_tokens"])
        task = replace(task, output_shape=tuple(outputs))
        model = instantiate_trusted("student", about["architecture"], trust)
        network = build(model, task, np.random.default_rng(0))
        load_parameters(network, load_file(path))
    except ConfigError as error:
        story = str(error).replace("resume_targets=", "trust=")
        raise ValueError(f"{path}: {story}") from error
    except Exception as error:  # of anyone's model function, of what anyone may have written
        story = ascii(str(error))[1:-1]  # names in a file may hold a terminal's commands
        raise ValueError(f"{path}: its network cannot be built: {story}") from error
    return network
