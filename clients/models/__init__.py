"""Networks built from plain numbers, for any image size and channel count.

Every builder reads ``NAME(image_shape, num_classes, *, numbers)`` and returns a module that maps
float32 images [B, C, H, W] to logits [B, num_classes]. A number outside its documented range
raises ``ValueError`` naming the argument, its value and the range. Every network has two parts,
``features`` and ``classifier``; the classifier is the last ``nn.Linear`` of ``model.modules()``
and its input [B, D] is the penultimate features. Parameters are drawn from torch's global
generator, which the caller seeds; nothing is shared between two calls.
"""

from clients.models.mobile import mobilenet_v2_small, shufflenet_v2_05
from clients.models.resnet import resnet8, resnet18, resnet20
from clients.models.simple import cnn, lenet5, logistic_regression, mlp, vgg9

__all__ = [
    "cnn",
    "lenet5",
    "logistic_regression",
    "mlp",
    "mobilenet_v2_small",
    "resnet8",
    "resnet18",
    "resnet20",
    "shufflenet_v2_05",
    "vgg9",
]
