"""What VGG16 consists of, counted: parameters, multiplications, values, messages.

The network is :class:`chainer_crossbn.models.VGG16`; Chainer is not needed to count it.
"""

from typing import NamedTuple

# Of multigpuBN in a step: one a normalization forward and one backward.
MESSAGES = 26

_STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))


class Convolution(NamedTuple):
    """A 3x3 convolution with stride 1 and pad 1.

    Attributes:
        inputs (int): Channels that it reads.
        outputs (int): Channels that it makes.
        side (int): Height and width of the maps.
        last (bool): Whether max pooling follows.
    """

    inputs: int
    outputs: int
    side: int
    last: bool

    @property
    def multiplications(self):
        """Multiply-adds of the forward pass of an image."""
        return 9 * self.inputs * self.outputs * self.side**2

    @property
    def values(self):
        """Values that it makes of an image."""
        return self.outputs * self.side**2


def convolutions(width=64, side=32):
    """Return the 13 convolutions.

    Args:
        width (int): Channels of the first stage.
        side (int): Height and width of the images.

    Returns:
        list of Convolution: In their order.
    """
    found, inputs = [], 3
    for multiples in _STAGES:
        for index, multiple in enumerate(multiples, 1):
            last = index == len(multiples)
            found.append(Convolution(inputs, multiple * width, side, last))
            inputs = multiple * width
        side //= 2
    return found


def linear_layers(width=64, fc_units=4096, n_class=10, side=32):
    """Return inputs and outputs of the three fully connected layers.

    Args:
        width (int): Channels of the first stage.
        fc_units (int): Units of the two hidden ones.
        n_class (int): Number of classes.
        side (int): Height and width of the images.
    """
    inputs = 8 * width * (side // 32) ** 2
    return [(inputs, fc_units), (fc_units, fc_units), (fc_units, n_class)]


def parameters(width=64, fc_units=4096, n_class=10, normalized=True):
    """Return the number of parameters, which is that of the gradients.

    With F units and n classes it is 9 ΣCC' + 2ΣC' + (8w + 1)F + (F + 1)F + (F + 1)n
    over convolutions from C to C' channels; without normalization ΣC' biases stand in
    the place of the 2ΣC' scales and shifts.

    Args:
        width (int): w, channels of the first stage.
        fc_units (int): F.
        n_class (int): n.
        normalized (bool): Whether batch normalization follows each convolution.
    """
    found = convolutions(width)
    weights = sum(9 * c.inputs * c.outputs for c in found)
    others = sum(c.outputs for c in found) * (2 if normalized else 1)
    linear = linear_layers(width, fc_units, n_class)
    return weights + others + sum((inputs + 1) * outputs for inputs, outputs in linear)


def step_flops(width=64, fc_units=4096, n_class=10, side=32):
    """Return the floating-point operations of a training step, for each image.

    A multiply-add counts 2. A layer makes as many again for the gradient of its weights
    and for that of its input, which the first convolution does not need.

    Args:
        width, fc_units, n_class, side: As :func:`linear_layers`.
    """
    found = convolutions(width, side)
    linear = linear_layers(width, fc_units, n_class, side)
    forward = sum(c.multiplications for c in found) + sum(i * o for i, o in linear)
    return 2 * (3 * forward - found[0].multiplications)


def message_bytes(width=64):
    """Return the bytes of all :data:`MESSAGES` together.

    A normalization of C channels sends 2C + 3 float64 forward and 2C + 2 backward
    (:mod:`chainer_crossbn.collectives`).

    Args:
        width (int): Channels of the first stage.
    """
    return sum(8 * (4 * c.outputs + 5) for c in convolutions(width))
