"""AdaBoost fusion: teachers are weighed one after another, by what those before them got wrong.

SAMME, Zhu et al., "Multi-class AdaBoost", Statistics and Its Interface 2 (2009), algorithm 2, with
teachers that are given: the next one is that with the least weighted error on labelled proxy
examples, and what it gets wrong weighs more from then on. The ensemble is a weighted vote. It helps
where clients have much or little data, and not where each knows two classes: it boosts what is
better than chance on all.

    python run.py --config-dir examples/adaboost strategy=distillation strategy/scorer=samme \
        strategy/combiner=votes strategy.proxy_split.calibration_share=0.2 partition=quantity_skew
"""

import torch
from torch.nn.functional import one_hot


def samme(teachers, *, calibration):
    """Weigh each teacher by alpha = ln((1 - error) / error) + ln(C - 1), >= 0, on all examples."""
    wrong = (calibration.logits.argmax(-1) != calibration.labels).double()  # [K, M]
    classes = calibration.logits.shape[-1]
    examples = torch.full(wrong.shape[1:], 1 / wrong.shape[1], dtype=torch.float64)
    alphas, left = torch.zeros(len(wrong), dtype=torch.float64), list(range(len(wrong)))
    while left:
        errors = (wrong[left] @ examples).clamp(1e-6, 1 - 1e-6)
        best = int(errors.argmin())
        error, k = errors[best], left.pop(best)
        alphas[k] = (torch.log((1 - error) / error) + torch.log(torch.tensor(classes - 1.0))).relu()
        examples *= torch.exp(alphas[k] * wrong[k])
        examples /= examples.sum()
    return alphas.float()[:, None].expand(teachers.mask.shape)


def votes(logits, weights, temperature):
    """Give each class the weight of those who vote for it: soft labels [N, C]."""
    ballots = one_hot(logits.argmax(-1), logits.shape[-1])  # [K, N, C]
    return (weights[..., None] * ballots).sum(0)
