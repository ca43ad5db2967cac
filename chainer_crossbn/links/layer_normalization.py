"""Layer normalization of feature maps."""

import chainer.functions as F
import chainer.links as L


class LayerNormalization(L.LayerNormalization):
    """Layer normalization over all C * H * W units of one image.

    Ba, Kiros and Hinton, "Layer Normalization" (2016), equations 3 and 4: each image is
    normalized by the mean and the variance of its own units, and each unit has a gain
    and a bias of its own. So the paper has it in its section 2.2, but for the bias,
    which is Ba et al.'s.

    Arguments are those of :class:`chainer.links.LayerNormalization`, which is for
    vectors. ``size`` is C * H * W, or ``None`` to take it from the first mini-batch.
    """

    def forward(self, x):
        """Normalize each image.

        Args:
            x (Variable or array): Shape (N, ...), N at least 1.

        Returns:
            Variable: Same shape and dtype as ``x``.
        """
        return F.reshape(super().forward(F.reshape(x, (len(x), -1))), x.shape)
