"""How many are right after a small step against them, and after one that is as large but random.

A probe that goes to where each network is: a plain function, and some lines of YAML. The step is
that of FGSM (Goodfellow et al., ICLR 2015); the noise tells whether its direction is what counts.

    python run.py --config-dir examples/attacked probes=attacked
"""

import torch
from torch.nn.functional import cross_entropy


def attacked(network, inputs, labels, *, rng, epsilon):
    """Measure accuracies at x, x + epsilon sign(grad_x loss) and x + epsilon (random signs).

    Inputs are as networks see them, so epsilon is in deviations of a channel.
    """
    x = inputs.requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(network(x), labels), x)
    noise = torch.from_numpy(rng.choice([-1.0, 1.0], tuple(x.shape))).to(x)

    def accuracy(step):
        return (network(x + epsilon * step).argmax(1) == labels).double().mean()

    with torch.no_grad():
        plain, against, random = map(accuracy, (0 * noise, gradient.sign(), noise))
    return {
        "plain_accuracy": plain,
        "attacked_accuracy": against,
        "noised_accuracy": random,
    }
