"""Trust by mutual information: a teacher counts where its answer does not hang on which units drop.

Networks of one's own with dropout, and a function of one's own in the place of a discriminator: of
draws p_t of the softmax it gives 1 - I / log C, I = H(mean_t p_t) - mean_t H(p_t), which is 0 where
all draws agree, be they sure or not.

    python run.py --config-dir examples/mc_dropout clients=dropping strategy/discriminator=unsure

Reference: Houlsby et al., "Bayesian active learning for classification" (arXiv:1112.5745); with
dropout Gal, Islam, Ghahramani, ICML 2017 (arXiv:1703.02910).
"""

import math

import torch
from torch import nn

from clients.seeding import seeded_torch


def dropping(input_shape, num_classes, hidden, rate):
    """Make a network of one hidden layer, half of whose units may be dropped."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(input_shape), hidden),
        nn.ReLU(),
        nn.Dropout(rate),
        nn.Linear(hidden, num_classes),
    )


def unsure(network, inputs, *, rng, draws=32):
    """Ask a network, which is in eval mode, with its dropout on; what is done to it is undone."""
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.train()
    with seeded_torch(rng), torch.inference_mode():
        probs = torch.stack([network(inputs).softmax(-1) for _ in range(draws)])
    entropy = torch.special.entr(probs).sum(-1).mean(0)
    information = torch.special.entr(probs.mean(0)).sum(-1) - entropy
    return (1 - information / math.log(probs.shape[-1])).clamp(0, 1)
