"""The proximal term of local training by hand, and Flower's FedProx that asks for it."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg, FedProx
from torch import Tensor, nn

from clients.data import normalised
from clients.models.factory import Parameters, parameters_of
from clients.seeding import Purpose, generator, torch_seed
from clients.training.loop import train
from clients.training.objective import START, Objective, OnLogits, proximal
from sim.engine.quorum import QuorumLost
from sim.workers.pools import Pool
from tests.federations import (
    ALONE,
    SEED,
    inline,
    run_ours,
    simulated,
    student_of,
    tiny_clients,
    trainer,
)
from tests.small_problems import BLOBS, fit, half_square, same_bits, scalar_problem, small_mlp
from tests.trained_together import Both, built

MOMENTUM = partial(torch.optim.SGD, lr=0.1, momentum=0.5)


def scalar_fit(**changes: Any) -> float:
    """Fit w = 1 by two steps on the loss (2w - 3)^2 / 2; return w."""
    model, dataset = scalar_problem()
    numbers = {"epochs": 2, "batch_size": 1, "optimizer": MOMENTUM} | changes
    target = torch.tensor([3.0])
    rng = np.random.default_rng(0)
    train(model, dataset, np.array([0]), target, proximal(4.0, half_square), rng, **numbers)
    return float(model[1].weight.item())


def test_two_steps_with_momentum_by_hand() -> None:
    # mu = 4, w0 = 1, rate .1, momentum .5; the gradient is 2 (2w - 3) + 4 (w - 1):
    #   w = 1:    -2 + 0        v = -2                     w = 1.2
    #   w = 1.2:  -1.2 + .8     v = .5 * -2 - .4 = -1.4    w = 1.34
    # (the norm instead of its square would add 2, a v that was added to in place other numbers)
    assert scalar_fit() == pytest.approx(1.34, abs=1e-6)


def test_the_term_is_clipped_with_the_loss_and_decay_comes_after() -> None:
    # No momentum, clipped to .3: -2 is cut to -.3, w = 1.03; 2 (2.06 - 3) + 4 * .03 = -1.76 is
    # cut to -.3, w = 1.06. With decay .5 on top: -.3 + .5 * 1 = .2, w = .98; 2 (1.96 - 3) - .08 is
    # cut to -.3, plus .49, w = .961.
    plain = partial(torch.optim.SGD, lr=0.1)
    assert scalar_fit(optimizer=plain, max_grad_norm=0.3) == pytest.approx(1.06, abs=1e-5)
    decayed = partial(torch.optim.SGD, lr=0.1, weight_decay=0.5)
    assert scalar_fit(optimizer=decayed, max_grad_norm=0.3) == pytest.approx(0.961, abs=1e-5)


def test_a_step_of_a_linear_network_against_numpy() -> None:
    # Two batches of 30: in the second the parameters have moved, and are pulled back.
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).double()
    w0 = {k: v.astype(np.float64) for k, v in parameters_of(model).items()}
    w, b = w0["1.weight"].copy(), w0["1.bias"].copy()
    rng = np.random.default_rng(3)
    torch_seed(rng)
    order = rng.permutation(60)
    for batch in (order[:30], order[30:]):
        x = normalised(BLOBS, batch).reshape(30, -1).astype(np.float64)
        z = x @ w.T + b
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(30), BLOBS.labels[batch]] -= 1
        dw, db = p.T @ x / 30, p.mean(0)
        w, b = (
            w - 0.1 * (dw + 0.7 * (w - w0["1.weight"])),
            b - 0.1 * (db + 0.7 * (b - w0["1.bias"])),
        )

    class Double(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, images: Tensor) -> Tensor:
            return self.inner(images.double())

    fit(Double(), seed=3, epochs=1, batch_size=30, loss=proximal(0.7))
    np.testing.assert_allclose(model[1].weight.detach().numpy(), w, rtol=1e-6)
    np.testing.assert_allclose(model[1].bias.detach().numpy(), b, rtol=1e-6)


def test_the_gradient_is_that_of_mu_half_the_squared_distance() -> None:
    rng = np.random.default_rng(0)
    start = [torch.from_numpy(rng.normal(size=shape)) for shape in ((3, 2), (4,))]
    now = [s + torch.from_numpy(rng.normal(size=s.shape)) for s in start]

    def penalty(parameters: list[Tensor]) -> float:
        return 0.35 * sum(
            float(((p - s) ** 2).sum()) for p, s in zip(parameters, start, strict=True)
        )

    found = corrected([torch.zeros_like(p) for p in now], now, start, 0.7)
    for k, parameter in enumerate(now):
        for index in np.ndindex(*parameter.shape):
            up, down = [p.clone() for p in now], [p.clone() for p in now]
            up[k][index] += 1e-5
            down[k][index] -= 1e-5
            slope = (penalty(up) - penalty(down)) / 2e-5
            assert found[k][index].item() == pytest.approx(slope, rel=1e-6)


def corrected(
    gradients: list[Tensor], parameters: list[Tensor], start: list[Tensor], mu: float
) -> list[Tensor]:
    """Add the term's gradient."""

    def named(tensors: list[Tensor]) -> dict[str, Tensor]:
        return {str(k): tensor for k, tensor in enumerate(tensors)}

    correct = proximal(mu).correct
    assert correct is not None
    return [*correct(named(gradients), named(parameters), {START: named(start)}).values()]


def test_gradients_are_not_changed_in_place() -> None:
    given = [torch.ones(2)]
    (found,) = corrected(given, [torch.full((2,), 2.0)], [torch.ones(2)], 0.5)
    assert found.tolist() == [1.5, 1.5]
    assert given[0].tolist() == [1.0, 1.0]


def test_a_parameter_that_the_loss_does_not_reach_is_not_pulled() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp, self.idle = small_mlp(), nn.Parameter(torch.ones(3))

        def forward(self, images: Tensor) -> Tensor:
            return self.mlp(images)

    model = Idle()
    fit(model, loss=proximal(0.5), optimizer=partial(torch.optim.SGD, lr=0.1, weight_decay=0.9))
    assert model.idle.tolist() == [1.0, 1.0, 1.0]


def test_two_corrections_are_both_made() -> None:
    # 1 + 2 of the first, 3 (w - w0) of the second: at w0 + 1 they add 5.
    def two_more(gradients: Any, parameters: Any, anchors: Any) -> Any:
        return {name: gradient + 2 for name, gradient in gradients.items()}

    both = proximal(3.0, Objective(OnLogits(half_square), correct=two_more))
    assert both.correct is not None
    w, start = {"w": torch.ones(1)}, {START: {"w": torch.zeros(1)}}
    assert both.correct({"w": torch.ones(1)}, w, start)["w"].item() == 6.0
    assert isinstance(both, Objective)
    assert isinstance(both.loss, OnLogits)


def test_two_proximal_terms_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="there is a proximal term already"):
        proximal(0.1, proximal(0.1))
    assert proximal(0.0, proximal(0.1)).correct is not None


def test_mu_zero_is_without_it_bit_for_bit_and_more_stays_nearer() -> None:
    def moved(**changes: Any) -> tuple[nn.Module, float]:
        model = small_mlp()
        before = parameters_of(model)
        fit(model, epochs=5, **changes)
        after = parameters_of(model)
        return model, sum(float(np.square(after[k] - before[k]).sum()) for k in after)

    without, far = moved()
    zero, _ = moved(loss=proximal(0.0))
    assert same_bits(zero, without)
    distances = [far, *(moved(loss=proximal(mu))[1] for mu in (0.1, 1.0, 5.0))]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.1 * far


@pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf")])
def test_a_mu_out_of_range_is_refused_by_name(mu: float) -> None:
    with pytest.raises(ValueError, match=r"proximal_mu=.*expected >= 0 and finite"):
        fit(small_mlp(), loss=proximal(mu))


# --- together ---


@pytest.mark.parametrize("way", ["wide", "vmap"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": partial(torch.optim.SGD, lr=0.05)},  # stepped on the first few
        {"max_grad_norm": 0.1},
    ],
    ids=str,
)
def test_together_is_one_by_one(way: Any, changes: dict[str, Any]) -> None:
    model = built("mlp")
    far, near = (
        Both(model, way, [17, 12, 9, 2], **changes),
        Both(model, way, [17, 12, 9, 2], loss=proximal(5.0), **changes),
    )
    assert near.agree(1e-4), near.errors()
    differences = [
        max(np.abs(a[k] - b[k]).max() for k in a)
        for a, b in zip(near.together, far.together, strict=True)
    ]
    assert min(differences[:3]) > 0  # the last has one step an epoch, and two epochs


# --- Flower's FedProx ---


def test_fedprox_pulls_clients_to_what_they_were_sent(everyone_pool: Pool) -> None:
    clients = tiny_clients(1)  # as `everyone` has them
    runs = {
        mu: run_ours(everyone_pool, clients, FedProx(proximal_mu=mu, **ALONE), rounds=2)
        for mu in (0.0, 3.0)
    }
    plain = run_ours(everyone_pool, clients, FedAvg(**ALONE), rounds=2)
    assert runs[0.0].sha256 == plain.sha256
    assert runs[3.0].sha256 != plain.sha256
    by_hand = one_client_by_hand(3.0)
    for name, array in runs[3.0].parameters.items():
        assert array.tobytes() == by_hand[name].tobytes()


def one_client_by_hand(mu: float) -> Parameters:
    """Train the student of round 0 twice on client 0's data, from where it was each time."""
    clients = tiny_clients(1)
    model, private = student_of(clients), clients.splits.private
    for server_round in (1, 2):
        indices = clients.partitions[0]
        labels = torch.tensor(private.labels[indices])
        rng = generator(SEED, Purpose.LOCAL_TRAINING, server_round, 0)
        trainer()(model, private, indices, labels, proximal(mu), rng)
    return parameters_of(model)


def test_fedprox_is_the_same_together_and_one_by_one() -> None:
    def end(together: bool) -> Parameters:
        clients = tiny_clients(4, architectures=["linear"] * 4, together=together)
        app = inline(simulated(clients))
        return run_ours(app, clients, FedProx(proximal_mu=3.0)).parameters

    alone, together = end(False), end(True)
    for name in alone:
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mu", [-1.0, "much", True])
def test_a_mu_that_is_none_is_a_failed_reply_that_names_it(mu: Any) -> None:
    clients = tiny_clients(2, architectures=["linear"] * 2)
    with pytest.raises(QuorumLost, match=r"proximal.mu.*: expected (a number )?>= 0"):
        run_ours(inline(simulated(clients)), clients, FedProx(proximal_mu=mu))
