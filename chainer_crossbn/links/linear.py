"""Linear link that is fast on CPUs."""

from __future__ import annotations

import math

import chainer
import chainer.links as L
import numpy

from chainer_crossbn.functions.linear import linear


class Linear(L.Linear):
    """Linear link that is fast on CPUs.

    It has the arguments, parameters and serialized names of
    :class:`chainer.links.Linear`, and computes ``y = x W' + b`` by :func:`linear`.

    Args:
        in_size (int or None): Units of the input; ``None`` takes them from the first
            mini-batch.
        out_size (int): Units of the output.
        nobias, initialW, initial_bias: As :class:`chainer.links.Linear`.

    Attributes:
        W (chainer.Parameter): Shape (out_size, in_size).
        b (chainer.Parameter or None): Shape (out_size,).

    Example:
        >>> import numpy as np
        >>> from chainer_crossbn.links import Linear
        >>> fc = Linear(4, 2, initialW=1)
        >>> fc(np.array([[1, 2, 3, 4]], np.float32)).array
        array([[10., 10.]], dtype=float32)
    """

    def forward(
        self, x: chainer.Variable | numpy.ndarray, n_batch_axes: int = 1
    ) -> chainer.Variable:
        """Apply the linear map.

        Args:
            x (Variable or array): Shape (N, ...) with ``in_size`` elements per sample,
                of the dtype of ``W``.
            n_batch_axes (int): Number of batch axes; Chainer computes more than one.

        Returns:
            Variable: Shape (N, out_size).

        Raises:
            chainer.utils.type_check.InvalidType: If shapes or dtypes do not match.
        """
        if self.xp is not numpy or n_batch_axes != 1:
            return super().forward(chainer.as_variable(x), n_batch_axes)
        if self.W.array is None:
            self._initialize_params(math.prod(x.shape[1:]))
        return linear(x, self.W, self.b)
