r"""Networks that grow: a client whose loss stalls adds units to its MLP, and answers as before.

New units have drawn incoming and zero outgoing weights, so that they change no answer until they
have learned (Net2Net, Chen, Goodfellow, Shlens, ICLR 2016, arXiv:1511.05641, there by copies).

    python run.py --config-dir examples/growing clients/shape=growing clients=same student=mlp \
        student.hidden=[4] partition=iid
"""

from itertools import pairwise

import numpy as np
import torch
from torch import nn


def layers_of(network):
    """Return the linear layers in order, with their names; the last one answers."""
    return [each for each in network.named_modules() if isinstance(each[1], nn.Linear)]


def choose(network, inputs, labels, *, plan, losses, units, most, least_gain):
    """Want more units, up to so many, where an epoch's loss fell by less than a share in a round.

    The plan says how many units each hidden layer is to have: as long as nobody grows it stays.
    """
    if losses[-1] < (1 - least_gain) * losses[0]:
        return plan
    return {
        name: np.array(max(layer.out_features, min(most, layer.out_features + units)))
        for name, layer in layers_of(network)[:-1]
    }


def apply(network, plan):
    """Add the units that a network lacks, whether it is just built or has been trained."""
    for (name, layer), (_, after) in pairwise(layers_of(network)):
        more = int(plan[name]) - layer.out_features
        if more > 0:
            fresh = nn.Linear(layer.in_features, more).to(layer.weight.device)
            layer.weight = joined(layer.weight, fresh.weight, 0)
            layer.bias = joined(layer.bias, fresh.bias, 0)
            after.weight = joined(after.weight, after.weight.new_zeros(len(after.weight), more), 1)
            layer.out_features = after.in_features = int(plan[name])
    return network


def joined(old, new, axis):
    """Put numbers beside a parameter's."""
    return nn.Parameter(torch.cat([old.detach(), new.detach()], axis))
