"""Rules and heads of mutual learning against numbers worked by hand, and their invariances."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clients.mutual import group_heads, rules
from clients.mutual.terms import Shared, imitation, ramp, supervised

RULES: dict[str, tuple[Any, Any]] = {
    "alone": (rules.alone, None),
    "dml": (rules.dml, None),
    "one": (partial(rules.one, ramp_epochs=0), group_heads.Gate),
    "okddip": (partial(rules.okddip, ramp_epochs=0), group_heads.Attention),
    "ffl": (partial(rules.ffl, ramp_epochs=0), group_heads.Fusion),
    "codistillation": (partial(rules.codistillation, burn_in_epochs=0), None),
    "adaptive_mutual": (rules.adaptive_mutual, group_heads.Projection),
}
SHAPES = [(3, 2, 2), (5, 2, 2)]
CLASSES, BATCH = 4, 6


def soft(logits: Any) -> Any:
    shifted = np.exp(np.asarray(logits) - np.max(logits, axis=-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def kl_by_hand(teacher: Any, student: Any) -> Any:
    return (teacher * (np.log(teacher) - np.log(student))).sum(-1)


def shared(
    seed: int = 0, peers: int = 2, shapes: Any = SHAPES, grad: bool = True
) -> tuple[Shared, Tensor]:
    """Random answers of some peers to six examples, and soft labels."""
    rng = torch.Generator().manual_seed(seed)
    logits = [torch.randn(BATCH, CLASSES, generator=rng) for _ in range(peers)]
    features = [torch.randn(BATCH, *shape, generator=rng) for shape in shapes]
    stale = [torch.randn(BATCH, CLASSES, generator=rng) for _ in range(peers)]
    for leaf in [*logits, *features]:
        leaf.requires_grad_(grad)
    return Shared(logits, features, stale), torch.rand(BATCH, CLASSES, generator=rng).softmax(-1)


def head_of(name: str, shapes: Any = SHAPES) -> nn.Module | None:
    torch.manual_seed(0)
    build = RULES[name][1]
    return None if build is None else build(shapes, CLASSES)


def test_the_ramp_is_that_of_the_paper() -> None:
    assert ramp(0, 80) == pytest.approx(math.exp(-5))
    assert ramp(40, 80) == pytest.approx(math.exp(-1.25))
    assert ramp(80, 80) == ramp(200, 80) == ramp(0, 0) == 1.0


def test_the_imitation_is_per_example_and_not_divided_by_classes() -> None:
    student, teacher = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), torch.zeros(2, 3)
    # KL(uniform || softmax(2, 0, 1)): log(1/3) - mean of the log-probabilities, once, once 0.
    log = np.log(soft([2.0, 0.0, 1.0]))
    assert float(imitation(student, teacher, 1.0)) == pytest.approx(
        (math.log(1 / 3) - log.mean()) / 2, rel=1e-6
    )
    warm = np.log(soft([1.0, 0.0, 0.5]))  # T = 2: softened, and times 4
    assert float(imitation(student, teacher, 2.0)) == pytest.approx(
        4 * (math.log(1 / 3) - warm.mean()) / 2, rel=1e-6
    )


def test_a_row_of_zeros_costs_nothing_and_pulls_nowhere() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    targets = torch.zeros(3, 4)
    targets[0, 2] = 1.0
    loss = supervised(logits, targets)
    assert loss.item() == pytest.approx(-logits[0].log_softmax(-1)[2].item() / 3)
    (gradient,) = torch.autograd.grad(loss, [logits])
    assert (gradient[1:] == 0).all()
    assert (gradient[0] != 0).any()


def test_dml_by_hand() -> None:
    z = [[[1.0, 0.0]], [[0.0, 2.0]], [[3.0, 3.0]]]
    p = [soft(each[0]) for each in z]
    targets = torch.tensor([[1.0, 0.0]])
    terms = rules.dml(
        Shared([torch.tensor(each) for each in z]),
        targets,
        0,
        None,
        hard_loss_weight=0.5,
        soft_loss_weight=2.0,
    )
    for k in range(3):
        others = [kl_by_hand(p[i], p[k]) for i in range(3) if i != k]
        wanted = 0.5 * -math.log(p[k][0]) + 2.0 / 2 * sum(others)
        assert (terms.peers[k]).item() == pytest.approx(wanted, rel=1e-6)


def test_one_by_hand() -> None:
    class Constant(nn.Module):
        def forward(self, features: Any) -> Tensor:
            return torch.tensor([[0.25, 0.75]])

    z = [[1.0, -1.0], [2.0, 0.0]]
    mixed = 0.25 * np.array(z[0]) + 0.75 * np.array(z[1])
    rule = partial(rules.one, temperature=2.0, ramp_epochs=4)
    y = torch.tensor([[0.0, 1.0]])
    terms = rule(Shared([torch.tensor([each]) for each in z]), y, 2, Constant())
    rho = math.exp(-5 * 0.25)
    for k in range(2):
        imitated = 4 * kl_by_hand(soft(mixed / 2), soft(np.array(z[k]) / 2))
        wanted = -math.log(soft(z[k])[1]) + rho * imitated
        assert (terms.peers[k]).item() == pytest.approx(wanted, rel=1e-5)
    assert terms.joint is not None
    assert terms.fused is not None
    assert (terms.joint).item() == pytest.approx(-math.log(soft(mixed)[1]), rel=1e-6)
    np.testing.assert_allclose(terms.fused[0].detach(), mixed, rtol=1e-6)


def test_ffl_by_hand() -> None:
    class Constant(nn.Module):
        def forward(self, features: Any) -> Tensor:
            return torch.tensor([[0.5, -0.5]])

    z, fused = [[1.0, -1.0], [2.0, 0.0], [0.0, 3.0]], np.array([0.5, -0.5])
    y = torch.tensor([[1.0, 0.0]])
    rule = partial(rules.ffl, temperature=3.0, ramp_epochs=80)
    terms = rule(Shared([torch.tensor([each]) for each in z]), y, 8, Constant())
    rho = math.exp(-5 * 0.9**2)
    for k in range(3):
        imitated = 9 * kl_by_hand(soft(fused / 3), soft(np.array(z[k]) / 3))
        assert (terms.peers[k]).item() == pytest.approx(
            -math.log(soft(z[k])[0]) + rho * imitated, rel=1e-5
        )
    mean = np.mean(z, axis=0)
    wanted = -math.log(soft(fused)[0]) + rho * 9 * kl_by_hand(soft(mean / 3), soft(fused / 3))
    assert terms.joint is not None
    assert (terms.joint).item() == pytest.approx(wanted, rel=1e-5)


def test_okddip_by_hand() -> None:
    class Constant(nn.Module):
        def forward(self, features: Any) -> Tensor:
            return torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])

    z = [[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]]
    p = [soft(each) for each in z]
    rule = partial(rules.okddip, temperature=1.0, ramp_epochs=0)
    y = torch.tensor([[1.0, 0.0]])
    terms = rule(Shared([torch.tensor([each]) for each in z]), y, 0, Constant())
    mixtures = [(p[0] + p[1]) / 2, p[1], (p[0] + p[1]) / 2]
    for k in range(3):
        wanted = -math.log(p[k][0]) + kl_by_hand(mixtures[k], p[k])
        assert (terms.peers[k]).item() == pytest.approx(wanted, rel=1e-5, abs=1e-7)


def test_codistillation_looks_at_stale_answers_after_the_burn_in() -> None:
    said, targets = shared()
    rule = partial(rules.codistillation, burn_in_epochs=2)
    early, late = rule(said, targets, 1, None), rule(said, targets, 2, None)
    for k in range(2):
        own = soft(said.logits[k].detach().double().numpy())
        other = soft(said.stale[1 - k].double().numpy())
        psi = -(other * np.log(own)).sum(-1).mean()
        assert (early.peers[k]).item() == pytest.approx(supervised(said.logits[k], targets).item())
        assert (late.peers[k] - early.peers[k]).item() == pytest.approx(psi, rel=1e-5)


def test_codistillation_without_a_refresh_says_so() -> None:
    said, targets = shared()
    fresh = Shared(said.logits)
    rules.codistillation(fresh, targets, 0, None)  # the burn-in needs none
    with pytest.raises(ValueError, match="refresh_epochs"):
        rules.codistillation(fresh, targets, 1, None)


def test_fedkd_trusts_less_while_both_are_wrong() -> None:
    z = [[2.0, 0.0], [0.0, 1.0]]
    p = [soft(each) for each in z]
    said = Shared([torch.tensor([each]) for each in z])
    terms = rules.adaptive_mutual(said, torch.tensor([[1.0, 0.0]]), 0, None)
    costs = [-math.log(each[0]) for each in p]
    assert (terms.peers[0]).item() == pytest.approx(
        costs[0] + kl_by_hand(p[1], p[0]) / sum(costs), rel=1e-5
    )
    assert (terms.peers[1]).item() == pytest.approx(
        costs[1] + kl_by_hand(p[0], p[1]) / sum(costs), rel=1e-5
    )
    with pytest.raises(ValueError, match="3 peers, expected 2"):
        rules.adaptive_mutual(shared(peers=3)[0], torch.ones(BATCH, CLASSES), 0, None)


@pytest.mark.parametrize("name", [n for n in RULES if n != "alone"])
def test_no_gradient_reaches_a_target(name: str) -> None:
    """A peer's loss moves nobody else; through the head only what the rule says."""
    said, targets = shared()
    head, rule = head_of(name), RULES[name][0]
    terms = rule(said, targets, 0, head)
    for k in range(2):
        gradients = torch.autograd.grad(
            terms.peers[k], list(said.logits), retain_graph=True, allow_unused=True
        )
        assert gradients[k] is not None
        assert gradients[k].abs().sum() > 0
        assert gradients[1 - k] is None or (gradients[1 - k] == 0).all()


@pytest.mark.parametrize("name", ["alone", "dml", "ffl", "codistillation"])
def test_gradients_agree_with_finite_differences(name: str) -> None:
    """The others have a target, or a weight, that follows from the peer's own answer, detached."""
    said, targets = shared(grad=False)
    head, rule = head_of(name), RULES[name][0]
    if head is not None:
        head.double()
    frozen = Shared(
        [z.double() for z in said.logits],
        [m.double() for m in said.features],
        [z.double() for z in said.stale],
    )
    y, step = targets.double(), 1e-6
    own = frozen.logits[0].clone().requires_grad_()

    def loss(z: Tensor, **changes: Any) -> Tensor:
        terms = rule(Shared([z, frozen.logits[1]], frozen.features, frozen.stale), y, 0, head)
        return terms.peers[0]

    (gradient,) = torch.autograd.grad(loss(own), [own])
    for place in [(0, 0), (3, 2), (5, 3)]:
        up, down = own.detach().clone(), own.detach().clone()
        up[place] += step
        down[place] -= step
        slope = (loss(up) - loss(down)).item() / (2 * step)
        assert float(gradient[place]) == pytest.approx(slope, rel=1e-5, abs=1e-9)


@given(st.permutations(range(4)), st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_dml_does_not_care_who_sits_where(order: list[int], seed: int) -> None:
    said, targets = shared(seed, peers=4, grad=False)
    here = rules.dml(said, targets, 0, None)
    there = rules.dml(Shared([said.logits[i] for i in order]), targets, 0, None)
    for place, i in enumerate(order):
        assert float(there.peers[place]) == pytest.approx(float(here.peers[i]), rel=1e-5)


def test_equal_peers_have_nothing_to_teach_each_other() -> None:
    z = torch.randn(BATCH, CLASSES, requires_grad=True)
    terms = rules.dml(Shared([z, z.detach()]), torch.zeros(BATCH, CLASSES), 0, None)
    (gradient,) = torch.autograd.grad(terms.peers[0], [z])
    assert (terms.peers[0].detach()).item() == pytest.approx(0.0, abs=1e-6)
    assert gradient.abs().max() < 1e-7


def test_the_fused_loss_trains_the_peers_unless_it_is_cut_off() -> None:
    said, targets = shared()
    head = head_of("ffl")
    for detach in (False, True):
        terms = rules.ffl(said, targets, 0, head, detach_features=detach)
        assert terms.joint is not None
        found = torch.autograd.grad(terms.joint, list(said.features), allow_unused=True)
        assert all((each is None) == detach for each in found)


# --- heads ---


def test_the_fusion_module_of_the_paper_has_16228_parameters() -> None:
    head = group_heads.Fusion([(64, 8, 8), (64, 8, 8)], 100)
    assert sum(p.numel() for p in head.parameters()) == 16_228


def test_gates_and_attention_lie_on_the_simplex() -> None:
    features = [torch.randn(BATCH, *shape) for shape in [*SHAPES, (2, 2, 2)]]
    gates = group_heads.Gate([*SHAPES, (2, 2, 2)], CLASSES)(features)
    looks = group_heads.Attention([*SHAPES, (2, 2, 2)], CLASSES)(features)
    assert gates.shape == (BATCH, 3)
    assert looks.shape == (BATCH, 2, 2)
    for weights in (gates, looks):
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))
    with pytest.raises(ValueError, match="expected 2 or more"):
        group_heads.Attention([(3, 1, 1)], CLASSES)


def test_a_perfect_projection_costs_nothing() -> None:
    head = group_heads.Projection([(2, 1, 1), (2, 1, 1)], CLASSES)
    with torch.no_grad():
        head.linear.weight.copy_(2 * torch.eye(2))
    mentee = torch.randn(BATCH, 2, 3, 3)
    assert head([2 * mentee, mentee]).item() == pytest.approx(0.0, abs=1e-12)
    assert head([2 * mentee + 1, mentee]).item() == pytest.approx(1.0, rel=1e-5)
