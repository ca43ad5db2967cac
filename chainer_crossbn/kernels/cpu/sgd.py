"""Updates of parameters on CPUs: one pass over memory."""

from chainer_crossbn.kernels.cpu.compilation import compiled


@compiled({"contract"})
def _momentum_sgd(w, g, v, lr, momentum, decay):
    for i in range(w.size):
        v[i] = momentum * v[i] - lr * (g[i] + decay * w[i])
        w[i] += v[i]


def momentum_sgd(w, g, v, lr, momentum, decay):
    """Set ``v`` to ``momentum * v - lr * (g + decay * w)``, and add it to ``w``.

    Args:
        w: C-contiguous array, float32 or float64: the parameter, changed in place.
        g: C-contiguous array of the same shape and dtype: its gradient.
        v: Likewise: its momentum, changed in place.
        lr (float): Learning rate.
        momentum (float): Share of the momentum that is kept.
        decay (float): Rate of weight decay.
    """
    lr, momentum, decay = (w.dtype.type(rate) for rate in (lr, momentum, decay))
    _momentum_sgd(w.ravel(), g.ravel(), v.ravel(), lr, momentum, decay)
