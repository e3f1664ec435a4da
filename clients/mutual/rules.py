"""Rules of online mutual learning: from what peers said of one batch to what each should change.

A rule is a function (shared, targets, epoch, head) -> `Terms`, with its numbers bound in YAML. It
sees the answers of all peers at once, as leaves of a graph; whoever calls it sends each peer the
gradient with respect to its own. What is a target must be detached, here and nowhere else.

`targets` are soft labels [B, C] whose rows sum to 1, or to 0 where nothing is known: such rows cost
nothing, and all means are over B. A hard label is a one-hot row.
"""

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.mutual.terms import Shared, Terms, imitation, ramp, supervised
from clients.training.losses import kl


def alone(shared: Shared, targets: Tensor, epoch: int, head: nn.Module | None) -> Terms:
    """Let each peer learn from targets [B, C] only: what mutual learning is compared with."""
    return Terms([supervised(own, targets) for own in shared.logits])


def dml(
    shared: Shared,
    targets: Tensor,
    epoch: int,
    head: nn.Module | None,
    *,
    hard_loss_weight: Annotated[float, ">= 0"] = 1.0,
    soft_loss_weight: Annotated[float, ">= 0"] = 1.0,
    temperature: Annotated[float, "> 0"] = 1.0,
) -> Terms:
    """Deep mutual learning: each peer imitates each other one.

    L_k = hard CE(z_k, y) + soft / (K - 1) sum_{l != k} KL(p_l || p_k). With both weights 1/2 and
    two peers it is FML's loss of private model and messenger.

    Args:
        shared: Of K >= 1 peers.
        targets: Soft labels [B, C].
        epoch: From 0.
        head: Not used.
        hard_loss_weight: Of the cross-entropy, >= 0.
        soft_loss_weight: Of the imitation, >= 0.
        temperature: T > 0.

    Returns:
        The terms.

    Reference: Zhang, Xiang, Hospedales, Lu, "Deep Mutual Learning", CVPR 2018 (arXiv:1706.00384);
    Shen et al., "Federated Mutual Learning", 2020 (arXiv:2006.16765).
    """
    losses = []
    for k, own in enumerate(shared.logits):
        others = [imitation(own, z, temperature) for i, z in enumerate(shared.logits) if i != k]
        loss = hard_loss_weight * supervised(own, targets)
        if others:
            loss = loss + soft_loss_weight / len(others) * torch.stack(others).sum()
        losses.append(loss)
    return Terms(losses)


def one(
    shared: Shared,
    targets: Tensor,
    epoch: int,
    head: nn.Module | None,
    *,
    temperature: Annotated[float, "> 0"] = 3.0,
    ramp_epochs: Annotated[int, ">= 0"] = 80,
    soft_loss_weight: Annotated[float, ">= 0"] = 1.0,
) -> Terms:
    """ONE: peers imitate their gated sum, which is taught too.

    z_t = sum_k g_k z_k; L = sum_k CE(z_k, y) + CE(z_t, y)
    + rho(e) sum_k T**2 KL(softmax(z_t / T) || softmax(z_k / T)).

    Args:
        shared: Of K peers, with features.
        targets: Soft labels [B, C].
        epoch: e, from 0.
        head: `clients.mutual.group_heads.Gate`.
        temperature: T > 0.
        ramp_epochs: E of `ramp`.
        soft_loss_weight: Factor of rho.

    Returns:
        The terms; `fused` is z_t.

    Raises:
        ValueError: There is no gate.

    Reference: Lan, Zhu, Gong, NeurIPS 2018 (arXiv:1806.04606).
    """
    gates = _needed(head, "one", "gate")(shared.features)
    mixed = (gates.unsqueeze(-1) * torch.stack(list(shared.logits), 1)).sum(1)
    rho = soft_loss_weight * ramp(epoch, ramp_epochs)
    losses = [
        supervised(own, targets) + rho * imitation(own, mixed, temperature) for own in shared.logits
    ]
    return Terms(losses, supervised(mixed, targets), mixed)


def okddip(
    shared: Shared,
    targets: Tensor,
    epoch: int,
    head: nn.Module | None,
    *,
    temperature: Annotated[float, "> 0"] = 3.0,
    ramp_epochs: Annotated[int, ">= 0"] = 80,
    soft_loss_weight: Annotated[float, ">= 0"] = 1.0,
) -> Terms:
    """OKDDip: auxiliary peers imitate mixtures of each other, the leader, the last, their mean.

    t_a = sum_b alpha_ab softmax(z_b / T); L = sum CE + rho(e) T**2 (sum_a KL(t_a || q_a)
    + KL(mean_a q_a || q_leader)). No gradient reaches what is mixed, but the attention learns from
    the mixtures: which of it the authors' code detaches we know from memory only.

    Args:
        shared: Of K >= 2 peers, with features, the leader last.
        targets: Soft labels [B, C].
        epoch: e, from 0.
        head: `clients.mutual.group_heads.Attention`.
        temperature: T > 0.
        ramp_epochs: E of `ramp`.
        soft_loss_weight: Factor of rho.

    Returns:
        The terms; `fused` is the leader's answer.

    Raises:
        ValueError: There is no attention.

    Reference: Chen, Mei, Wang, Feng, Chen, AAAI 2020.
    """
    *auxiliaries, leader = shared.logits
    attention = _needed(head, "okddip", "attention")(shared.features)
    answers = torch.stack([(z.detach() / temperature).softmax(-1) for z in auxiliaries], 1)
    mixtures = attention @ answers
    rho = soft_loss_weight * ramp(epoch, ramp_epochs)
    losses = [
        supervised(own, targets) + rho * kl(own, mixtures[:, a], temperature).mean()
        for a, own in enumerate(auxiliaries)
    ]
    led = kl(leader, answers.mean(1), temperature).mean()
    return Terms([*losses, supervised(leader, targets) + rho * led], fused=leader)


def ffl(
    shared: Shared,
    targets: Tensor,
    epoch: int,
    head: nn.Module | None,
    *,
    temperature: Annotated[float, "> 0"] = 3.0,
    ramp_epochs: Annotated[int, ">= 0"] = 80,
    soft_loss_weight: Annotated[float, ">= 0"] = 1.0,
    detach_features: bool = False,
) -> Terms:
    """Feature fusion: the fused classifier teaches the peers, and their mean teaches it.

    z_e = mean_k z_k, z_f = F(maps); L = sum_k CE(z_k, y) + CE(z_f, y)
    + rho(e) (sum_k KL_T(z_f || z_k) + KL_T(z_e || z_f)), KL_T = T**2 KL of the softened answers,
    teachers detached. The maps are not: CE(z_f, y) trains the peers too.

    Args:
        shared: Of K peers, with features.
        targets: Soft labels [B, C].
        epoch: e, from 0.
        head: `clients.mutual.group_heads.Fusion`.
        temperature: T > 0.
        ramp_epochs: E of `ramp`.
        soft_loss_weight: Factor of rho.
        detach_features: Let the fused classifier not train the peers.

    Returns:
        The terms; `fused` is z_f.

    Raises:
        ValueError: There is no fusion module.

    Reference: Kim, Hyun, Chung, Kwak, ICPR 2020 (arXiv:1904.09058), and its code; more than two
    peers are ours.
    """
    maps = [m.detach() if detach_features else m for m in shared.features]
    fused = _needed(head, "ffl", "fusion")(maps)
    mean = torch.stack([own.detach() for own in shared.logits]).mean(0)
    rho = soft_loss_weight * ramp(epoch, ramp_epochs)
    losses = [
        supervised(own, targets) + rho * imitation(own, fused, temperature) for own in shared.logits
    ]
    joint = supervised(fused, targets) + rho * imitation(fused, mean, temperature)
    return Terms(losses, joint, fused)


def codistillation(
    shared: Shared,
    targets: Tensor,
    epoch: int,
    head: nn.Module | None,
    *,
    soft_loss_weight: Annotated[float, ">= 0"] = 1.0,
    burn_in_epochs: Annotated[int, ">= 0"] = 1,
) -> Terms:
    """Codistillation: each peer imitates the mean of what the others said some time ago.

    L_k = CE(z_k, y) + soft psi(mean_{l != k} p_l(stale), p_k), psi the cross-entropy, after a
    burn-in.

    Args:
        shared: Of K >= 2 peers, with stale answers.
        targets: Soft labels [B, C].
        epoch: From 0.
        head: Not used.
        soft_loss_weight: Of psi, >= 0.
        burn_in_epochs: Epochs without it, >= 0.

    Returns:
        The terms.

    Raises:
        ValueError: The burn-in is over and there are no stale answers.

    Reference: Anil et al., "Large scale distributed neural network training through online
    distillation", ICLR 2018 (arXiv:1804.03235), from memory.
    """
    losses = []
    for k, own in enumerate(shared.logits):
        loss = supervised(own, targets)
        if epoch >= burn_in_epochs and len(shared.logits) > 1:
            if not shared.stale:
                raise ValueError("codistillation without stale answers: set refresh_epochs")
            others = [z.detach().softmax(-1) for i, z in enumerate(shared.stale) if i != k]
            mean = torch.stack(others).mean(0)
            loss = loss + soft_loss_weight * functional.cross_entropy(own, mean)
        losses.append(loss)
    return Terms(losses)


def adaptive_mutual(
    shared: Shared,
    targets: Tensor,
    epoch: int,
    head: nn.Module | None,
    *,
    temperature: Annotated[float, "> 0"] = 1.0,
) -> Terms:
    """FedKD: mentor, the first, and mentee, the last, imitate each other less while both are wrong.

    L_k = CE_k + (KL(p_other || p_k) + MSE(h_mentee W, h_mentor)) / (CE_mentor + CE_mentee). The
    divisor is a weight and gets no gradient.

    Args:
        shared: Of two peers, with features if there is a head.
        targets: Soft labels [B, C].
        epoch: Not used.
        head: `clients.mutual.group_heads.Projection`, or None for no hidden loss.
        temperature: T > 0.

    Returns:
        The terms.

    Raises:
        ValueError: There are not two peers.

    Reference: Wu et al., Nature Communications 13 (2022) (arXiv:2108.13323).
    """
    if len(shared.logits) != 2:
        raise ValueError(f"adaptive_mutual: {len(shared.logits)} peers, expected 2")
    mentor, mentee = shared.logits
    losses = [supervised(own, targets) for own in (mentor, mentee)]
    # Both right: float32 cannot tell their losses from 0, and the weight must stay finite.
    weight = 1.0 / (losses[0] + losses[1]).detach().clamp_min(1e-6)
    terms = [
        losses[0] + weight * imitation(mentor, mentee, temperature),
        losses[1] + weight * imitation(mentee, mentor, temperature),
    ]
    return Terms(terms, None if head is None else weight * head(shared.features))


def _needed(head: nn.Module | None, rule: str, name: str) -> nn.Module:
    if head is None:
        raise ValueError(f"the rule '{rule}' needs a head: '{name}'")
    return head
