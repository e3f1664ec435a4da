"""Cameras with dirt at places of their own: half of the clients never see one half of the world.

The dirt stays where it is, in training and after, on the proxy and the test set too; what the
server itself looks at is clean. All clients together see everything.

    python run.py --config-dir examples/occlusion clients/view=dirt
"""

SIDES = ("left", "right", "top", "bottom", "none")


def dirt(images, *, client_id, phase, sides=SIDES, trains_only=False):
    """Hide a side of all images [B, channels, height, width], the client's own one."""
    height, width = images.shape[2] // 2, images.shape[3] // 2
    side = sides[client_id % len(sides)]
    if side == "none" or (trains_only and phase != "train"):
        return images
    images[
        :,
        :,
        {"top": slice(height), "bottom": slice(height, None)}.get(side, slice(None)),
        {"left": slice(width), "right": slice(width, None)}.get(side, slice(None)),
    ] = 0  # inputs are normalised: the mean of a channel
    return images
