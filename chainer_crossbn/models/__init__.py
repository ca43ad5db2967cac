"""Networks that take their normalization as an argument."""

import inspect

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
    "takers",
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

# Option -> default, for the models that take it.
OPTIONS = {
    name: {
        option: parameter.default
        for option, parameter in inspect.signature(model).parameters.items()
        if parameter.default is not parameter.empty
    }
    for name, model in MODELS.items()
}


def takers(option):
    """Return the names of the models that take an option."""
    return [name for name in MODELS if option in OPTIONS[name]]


def create(name, n_class, normalization, **options):
    """Create the model of a name.

    Args:
        name (str): One of :data:`MODELS`.
        n_class (int): Number of classes.
        normalization: Normalization object (:mod:`.normalizations`).
        **options: Of models, as :data:`OPTIONS` has them; those that this one does not
            take are left out.

    Returns:
        chainer.Chain: The model.
    """
    taken = {k: v for k, v in options.items() if k in OPTIONS[name]}
    return MODELS[name](n_class, normalization, **taken)
