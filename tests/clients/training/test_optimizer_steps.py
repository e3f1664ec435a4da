"""Steps over plain lists give the bits of torch's own optimisers."""

import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from clients.training.optimizer_steps import elementwise, stepper

KINDS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.SGD, {"lr": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": True}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    (torch.optim.Adam, {}),
    (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
    (torch.optim.AdamW, {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-6}),
    (torch.optim.RMSprop, {"lr": 0.01}),  # by its object, as are all that follow
    (torch.optim.NAdam, {"lr": 0.01}),
    (torch.optim.Rprop, {}),
    (torch.optim.Adagrad, {"lr": 0.01, "foreach": False}),
    (torch.optim.SGD, {"lr": 0.1, "maximize": True}),  # an option that only the object knows
]


def parameters(seed: int = 0) -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=rng)) for shape in ((5, 7), (9,), (3,))]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_twenty_steps_are_torchs_own_to_the_bit(kind: Any, options: dict[str, Any]) -> None:
    ours, theirs = parameters(), parameters()
    step, optimizer = stepper(partial(kind, **options), ours), kind(theirs, **options)
    rng = torch.Generator().manual_seed(1)
    for turn in range(20):
        # The second parameter gets a gradient only now and then, the third never.
        gradients = [torch.randn(p.shape, generator=rng) for p in ours]
        given = [gradients[0], gradients[1] if turn % 3 == 1 else None, None]
        for parameter, gradient in zip(theirs, given, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        step(given)
        optimizer.step()
    for mine, its, start in zip(ours, theirs, parameters(), strict=True):
        assert torch.equal(mine, its)
        assert torch.equal(mine, start) == (mine.shape == (3,))


def test_the_first_velocity_by_hand() -> None:
    [parameter] = [nn.Parameter(torch.tensor([1.0]))]
    step = stepper(partial(torch.optim.SGD, lr=0.5, momentum=0.5), [parameter])
    step([torch.tensor([1.0])])  # velocity 1, 1 - 0.5 * 1
    assert parameter.item() == 0.5
    step([torch.tensor([1.0])])  # velocity 0.5 + 1, 0.5 - 0.5 * 1.5
    assert parameter.item() == -0.25


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (torch.optim.SGD, {"lr": -1}, "optimizer.lr=-1"),
        (torch.optim.SGD, {"momentum": -0.1}, "optimizer.momentum=-0.1"),
        (torch.optim.SGD, {"weight_decay": float("nan")}, "optimizer.weight_decay=nan"),
        (torch.optim.SGD, {"nesterov": True}, "optimizer.nesterov"),
        (torch.optim.Adam, {"betas": (0.9, 1.0)}, "optimizer.betas"),
        (torch.optim.AdamW, {"eps": -1e-9}, "optimizer.eps"),
    ],
)
def test_what_torch_refuses_is_refused_by_name(
    kind: Any, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        stepper(partial(kind, **options), parameters())
    if options.get("weight_decay") is None:  # torch lets one of NaN pass
        with pytest.raises(ValueError, match=r".+"):
            kind(parameters(), **options)


def test_two_trainings_share_no_state() -> None:
    first, second = parameters(), parameters()
    optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    gradients = [torch.ones_like(p) for p in first]
    warm, cold = stepper(optimizer, first), stepper(optimizer, second)
    warm(gradients)
    warm(gradients)
    cold(gradients)
    fresh = parameters()
    stepper(optimizer, fresh)(gradients)
    assert all(torch.equal(a, b) for a, b in zip(second, fresh, strict=True))


def test_only_elementwise_optimisers_may_be_stacked() -> None:
    assert elementwise(partial(torch.optim.Adam, lr=0.1))
    assert not elementwise(torch.optim.LBFGS)
    assert not elementwise(partial(torch.optim.Muon, lr=0.1))


def test_hooks_of_a_users_optimiser_are_called() -> None:
    seen: list[str] = []

    def hooked(parameters: Any) -> torch.optim.Optimizer:
        made = torch.optim.RMSprop(parameters, lr=0.1)
        made.register_step_pre_hook(lambda *_: seen.append("before"))
        made.register_step_post_hook(lambda *_: seen.append("after"))
        return made

    stepper(hooked, [nn.Parameter(torch.zeros(2))])([torch.ones(2)])
    assert seen == ["before", "after"]


def test_a_users_subclass_takes_its_own_step() -> None:
    class Halting(torch.optim.RMSprop):
        def step(self, closure: Any = None) -> Any:
            return None

    parameter = nn.Parameter(torch.zeros(2))
    stepper(Halting, [parameter])([torch.ones(2)])
    assert parameter.tolist() == [0, 0]


def test_no_optimiser_imports_torchs_compiler() -> None:
    code = (
        "import sys, torch; from functools import partial\n"
        "from clients.training.optimizer_steps import object_step, stepper\n"
        "for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop):\n"
        "    p = [torch.nn.Parameter(torch.zeros(2))]\n"
        "    stepper(partial(kind, lr=0.1), p)([torch.ones(2)])\n"
        "    made = kind(p, lr=0.1)\n"
        "    object_step(p, made)([torch.ones(2)])\n"
        "    made.load_state_dict(made.state_dict())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
