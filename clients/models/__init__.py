"""Networks built from plain numbers, for any image size and channel count.

Every builder of images reads ``NAME(image_shape, num_classes, *, numbers)`` and returns a module
that maps float32 images [B, C, H, W] to logits [B, num_classes], ``fcn`` to logits of each pixel;
those of tokens read ``NAME(input_shape, num_classes, num_tokens, *, numbers)``. A number outside
its documented range raises ``ValueError`` naming the argument, its value and the range. Every
network has two parts, ``features`` and ``classifier``; the last ``nn.Linear`` of
``model.modules()`` is (in) the classifier, and its input is the penultimate features, [B, D], of
``fcn`` [B, H, W, D].
Parameters are drawn from torch's global generator, which the caller seeds; nothing is shared
between two calls.
"""

from clients.models.dense_labelling import fcn
from clients.models.mobile import mobilenet_v2_small, shufflenet_v2_05
from clients.models.resnet import cifar_resnet, resnet8, resnet18, resnet20
from clients.models.simple import cnn, lenet5, logistic_regression, mlp, vgg9
from clients.models.strided import strided_cnn
from clients.models.text import bag_of_embeddings, transformer

__all__ = [
    "bag_of_embeddings",
    "cifar_resnet",
    "cnn",
    "fcn",
    "lenet5",
    "logistic_regression",
    "mlp",
    "mobilenet_v2_small",
    "resnet8",
    "resnet18",
    "resnet20",
    "shufflenet_v2_05",
    "strided_cnn",
    "transformer",
    "vgg9",
]
