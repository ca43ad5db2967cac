"""Networks that take their normalization as an argument."""

from __future__ import annotations

import inspect

import chainer

from chainer_crossbn.models import normalizations
from chainer_crossbn.models.alexnet import AlexNet
from chainer_crossbn.models.cifar_resnet import ResNet20, ResNet56, ResNet110
from chainer_crossbn.models.googlenet import GoogLeNet
from chainer_crossbn.models.resnet import ResNet50, ResNet101, ResNet152
from chainer_crossbn.models.vgg import VGG16

__all__ = [
    "MODELS",
    "OPTIONS",
    "AlexNet",
    "GoogLeNet",
    "ResNet20",
    "ResNet50",
    "ResNet56",
    "ResNet101",
    "ResNet110",
    "ResNet152",
    "VGG16",
    "create",
    "supporting",
]

MODELS = {
    "alexnet": AlexNet,
    "googlenet": GoogLeNet,
    "resnet20": ResNet20,
    "resnet50": ResNet50,
    "resnet56": ResNet56,
    "resnet101": ResNet101,
    "resnet110": ResNet110,
    "resnet152": ResNet152,
    "vgg16": VGG16,
}

# Model -> the options that it supports, with their defaults.
OPTIONS = {
    name: {
        option: parameter.default
        for option, parameter in inspect.signature(model).parameters.items()
        if parameter.default is not parameter.empty
    }
    for name, model in MODELS.items()
}


def supporting(option: str) -> list[str]:
    """Return the names of the models that support an option."""
    return [name for name in MODELS if option in OPTIONS[name]]


def create(
    name: str, n_class: int, normalization: normalizations.Normalization, **options
) -> chainer.Chain:
    """Create the model of a name.

    Args:
        name (str): A key of :data:`MODELS`.
        n_class (int): Number of classes.
        normalization (Normalization): Makes the links (:mod:`.normalizations`).
        **options: Options of models (:data:`OPTIONS`); those that this model does not
            support are ignored.

    Returns:
        chainer.Chain: The model.

    Raises:
        KeyError: If there is no such model.
    """
    supported = {k: v for k, v in options.items() if k in OPTIONS[name]}
    return MODELS[name](n_class, normalization, **supported)
