"""Parameters, operations and values of :class:`chainer_crossbn.models.VGG16`."""

from typing import NamedTuple


class Convolution(NamedTuple):
    """A 3x3 convolution with stride 1 and pad 1.

    Attributes:
        in_channels (int): Channels of its input.
        out_channels (int): Channels of its output.
        side (int): Height and width of the maps.
        pooled (bool): Whether max pooling follows.
    """

    in_channels: int
    out_channels: int
    side: int
    pooled: bool

    @property
    def weights(self) -> int:
        """Number of weights, without a bias."""
        return 9 * self.in_channels * self.out_channels

    @property
    def values(self) -> int:
        """Number of output values per image."""
        return self.out_channels * self.side**2


def convolutions(width: int = 64, side: int = 32) -> list[Convolution]:
    """Return the 13 convolutions, in their order.

    Args:
        width (int): Channels of the first stage.
        side (int): Height and width of the images.
    """
    # Imported here because the other parts of experiments need no Chainer.
    from chainer_crossbn.models.vgg import STAGES

    layers, in_channels = [], 3
    for multiples in STAGES:
        for index, multiple in enumerate(multiples, 1):
            pooled = index == len(multiples)
            layers.append(Convolution(in_channels, multiple * width, side, pooled))
            in_channels = multiple * width
        side //= 2
    return layers


def parameters() -> int:
    """Return the number of parameters, with batch normalization, for 10 classes."""
    layers = convolutions()
    scales_and_shifts = 2 * sum(layer.out_channels for layer in layers)
    linear = sum((inputs + 1) * outputs for inputs, outputs in _linear(10, 32))
    return sum(layer.weights for layer in layers) + scales_and_shifts + linear


def step_flops(n_class: int = 10, side: int = 32) -> int:
    """Return the floating-point operations of a training step per image.

    A multiply-add counts as 2. The gradients of the weights and of the input of a layer
    take as many operations as its forward pass each. The first convolution does not
    need the latter.

    Args:
        n_class (int): Number of classes.
        side (int): Height and width of the images.
    """
    layers = convolutions(side=side)
    multiplications = [layer.weights * layer.side**2 for layer in layers]
    linear = sum(inputs * outputs for inputs, outputs in _linear(n_class, side))
    return 2 * (3 * (sum(multiplications) + linear) - multiplications[0])


def _linear(n_class, side):
    """Return pairs of inputs and outputs of the fully connected layers."""
    return [(512 * (side // 32) ** 2, 4096), (4096, 4096), (4096, n_class)]
