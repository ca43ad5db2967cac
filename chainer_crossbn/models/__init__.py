"""Networks that take their normalization as an argument."""

from chainer_crossbn.models.vgg import VGG16

MODELS = {"vgg16": VGG16}

__all__ = ["MODELS", "VGG16"]
