"""Tiers: one builder makes the networks of weak and strong clients, all of one family.

A tier is a share of the full network's channels. It stands in the architecture's entry of
`clients/tiers.yaml`, and the builder gets it by the name of its argument:

    python run.py --config-dir examples/tiers clients=tiers

or it follows from how fast a client is: of a builder that names `profile` there is one network for
each profile that is drawn.

    python run.py --config-dir examples/tiers clients=by_speed
"""

from clients.models import cnn


def slim(image_shape, num_classes, *, tier, channels=(8, 16), hidden=32):
    """Build a convolutional network of which each layer has this share of its channels."""
    if not 0 < tier <= 1:
        raise ValueError(f"tier={tier}: expected a share in (0, 1]")
    narrow = [max(1, round(tier * number)) for number in (*channels, hidden)]
    return cnn(image_shape, num_classes, channels=narrow[:-1], hidden=narrow[-1])


def by_speed(image_shape, num_classes, *, profile, multiplications_per_s):
    """Build the whole network for who computes so fast, and less of it for who is slower."""
    tier = min(1.0, profile.multiplications_per_s / multiplications_per_s)
    return slim(image_shape, num_classes, tier=tier)
