"""Linear link that is fast on CPUs."""

import math

import chainer.links as L
import numpy

from chainer_crossbn.functions.linear import linear


class Linear(L.Linear):
    """Linear link that is fast on CPUs.

    As :class:`chainer.links.Linear` in arguments, parameters and files; see
    :func:`linear`.
    """

    def forward(self, x, n_batch_axes=1):
        if self.xp is not numpy or n_batch_axes != 1:
            return super().forward(x, n_batch_axes)
        if self.W.array is None:
            self._initialize_params(math.prod(x.shape[1:]))
        return linear(x, self.W, self.b)
