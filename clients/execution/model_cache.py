"""Networks that stay in a process, one per architecture, and take in one client after the other."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.data import Dataset, Task
from clients.execution.isolation import Original, foreign, keeps_nothing
from clients.execution.shape_variants import Variant, keep_last
from clients.models.factory import ModelFunction, Parameters, build, parameters_of, unlike
from clients.training.evaluation import predict_and_tap
from clients.training.single_gradients import Precision, half_precision

Tensors = dict[str, Tensor]


def as_tensors(parameters: Parameters, device: str = "cpu") -> Tensors:
    """Copy arrays into tensors, once for all clients that start from them."""
    return {
        name: torch.from_numpy(np.array(value)).to(device) for name, value in parameters.items()
    }


def arrays_of(tensors: Tensors) -> Parameters:
    """Return tensors as arrays, on the memory of those that are on the CPU."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


class Networks:
    """One network per architecture, built once: building one costs more than a client's round trip.

    Of variants, which may be as many as there are clients, the last few.

    Whatever a client leaves in one, the next does not see: see `isolation.Original`.
    """

    def __init__(
        self,
        models: Mapping[str, ModelFunction],
        task: Task,
        device: str,
        by_others: bool = True,
        autocast: Precision | None = None,
    ) -> None:
        """Describe the architectures; each is built when it is first asked for.

        Args:
            models: Model functions by name.
            task: What they are to predict.
            device: Where the networks live.
            by_others: Whether code that is neither ours nor torch's trains them.
            autocast: Half precision in which they answer, or None.
        """
        self._autocast = autocast
        self._by_others = by_others
        self._models = models
        self._task = task
        self._device = device
        self._built: dict[str, tuple[nn.Module, Original | None, Tensors, Tensors]] = {}

    def fresh(self, name: str, rng: np.random.Generator) -> nn.Module:
        """Build a new network of an architecture, its parameters drawn from `rng`."""
        model = name.model if isinstance(name, Variant) else self._models[name]
        with keeps_nothing(**{f"clients.architectures.{name}": model}):
            network = build(model, self._task, rng)
        return network.to(self._device)

    def of(self, name: str) -> nn.Module:
        """Return an architecture's network with whatever parameters it has now."""
        if name not in self._built:
            network = self.fresh(name, np.random.default_rng(0))
            stored = dict(network.state_dict())
            hidden = {k: v.clone() for k, v in network.named_buffers() if k not in stored}
            original = Original(network) if self._by_others or foreign(network) else None
            self._built[name] = (network, original, stored, hidden)
        keep_last(self._built, name)
        network, original, _, _ = self._built[name]
        if original is not None:
            original.put_back()
        return network

    def loaded(self, name: str, parameters: Mapping[str, Tensor]) -> nn.Module:
        """Return the architecture's network with these parameters and buffers.

        Args:
            name: Of the architecture.
            parameters: All that is in its state dict; copied.

        Returns:
            The network, in train mode; the same object for every call.

        Raises:
            ValueError: Names or shapes are those of another architecture.
        """
        network = self.of(name)
        _, _, stored, hidden = self._built[name]
        if _shapes(stored) != _shapes(parameters):
            difference = unlike(network, parameters)
            raise ValueError(f"parameters do not fit {type(network).__name__}: {difference}")
        with torch.no_grad():
            torch._foreach_copy_(list(stored.values()), [parameters[key] for key in stored])
            for key, value in hidden.items():
                network.get_buffer(key).copy_(value)
        return network.train()

    def parameters_of(self, name: str) -> Parameters:
        """Copy the parameters and buffers that an architecture's network has now.

        Args:
            name: Of the architecture.

        Returns:
            All that is in its state dict.

        Raises:
            ValueError: Its modules are not those that it was built of, or their shapes.
        """
        self.require_same(name)
        network, original, stored, _ = self._built[name]
        if original is None:  # these are still its tensors; asking it takes 10 to 60 us
            return {key: array.copy() for key, array in arrays_of(stored).items()}
        if difference := unlike(network, stored):
            raise ValueError(f"'{name}' was trained to another shape: {difference}")
        return parameters_of(network)

    def predict(
        self,
        name: str,
        parameters: Mapping[str, Tensor],
        dataset: Dataset,
        indices: npt.NDArray[np.int64],
    ) -> Tensor:
        """Let an architecture's network answer examples, as `predict_and_tap` does: rows."""
        return self.predict_and_tap(name, parameters, dataset, indices)[0]

    def predict_and_tap(
        self,
        name: str,
        parameters: Mapping[str, Tensor],
        dataset: Dataset,
        indices: npt.NDArray[np.int64],
        taps: Sequence[str] = (),
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Let an architecture's network answer examples with these parameters and buffers.

        Args:
            name: Of the architecture.
            parameters: As in `loaded`.
            dataset: Where the inputs are.
            indices: Which of its examples [N].
            taps: Places whose features are wanted, too.

        Returns:
            Rows [N*S, C] and features [N, ...] by place, float32 on the CPU.

        Raises:
            ValueError: As in `loaded`, or there is no such place, or it exchanged its modules as
                it answered.
        """
        network = self.loaded(name, parameters)
        with half_precision(self._autocast, torch.device(self._device)):
            answered = predict_and_tap(network, dataset, indices, taps)
        self.require_same(name)
        return answered

    def require_same(self, name: str) -> None:
        """Raise ValueError if an architecture's network has exchanged modules; names the first."""
        original = self._built[name][1]
        if original is not None and (fault := original.exchanged()):
            raise ValueError(
                f"'{name}': {fault}: whatever trains or answers must leave a network the modules "
                "that its architecture has; clients.shape is for networks that change"
            )


def work_of(name: str, model: ModelFunction, task: Task) -> float:
    """Estimate the multiplications of one forward pass of one input.

    Each parameter counts once for each place of its module's output where it is used: exact for
    linear layers and convolutions, and it need be no better to schedule by. What has no parameters,
    such as the products of attention, counts nothing.

    Args:
        name: Of the architecture.
        model: Its model function.
        task: What it is to predict.

    Returns:
        Their number, >= 1.

    Raises:
        ValueError: It cannot answer one input alone; names it.
    """
    network = build(model, task, np.random.default_rng(0)).eval()
    counts = [1.0]

    def count(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(module, nn.Embedding):  # it is looked up
            return
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        places = output.shape[2:].numel() if isinstance(output, Tensor) else 1
        if isinstance(module, nn.Linear) and isinstance(output, Tensor):
            places = output[0].numel() // module.out_features
        counts.append(float(own * places))

    for module in network.modules():
        module.register_forward_hook(count)
    try:
        with torch.inference_mode():
            network(task.blank(1))
    except Exception as error:  # anyone's code
        raise ValueError(
            f"architecture '{name}' cannot answer one input alone: {type(error).__name__}: {error}"
        ) from error
    return sum(counts)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
