"""Batch normalization of a whole batch in float64, written from its equations.

Ioffe & Szegedy, "Batch Normalization" (2015), algorithm 1 and the derivatives that
follow it, with no shortcut: every quantity is computed from the whole batch.
"""

import numpy as np


def _channels_last(x, axis):
    axis = tuple(range(x.ndim))[:1] + tuple(range(2, x.ndim)) if axis is None else axis
    keys = tuple(i for i in range(x.ndim) if i not in axis)
    moved = np.transpose(x, (*axis, *keys))
    rows = int(np.prod([x.shape[i] for i in axis]))
    return moved.reshape(rows, -1), moved.shape, (*axis, *keys)


def batch_normalization(x, gy, gamma, beta, eps=2e-5, axis=None):
    """Return a dict of y, gx, ggamma, gbeta, mean, var (biased) and n, all float64."""
    gamma, beta = (np.asarray(v, np.longdouble) for v in (gamma, beta))
    rows, moved, order = _channels_last(np.asarray(x, np.longdouble), axis)
    grows, _, _ = _channels_last(np.asarray(gy, np.longdouble), axis)
    n = len(rows)
    mean = rows.sum(axis=0) / n
    centred = rows - mean
    var = (centred**2).sum(axis=0) / n
    std = np.sqrt(var + eps)
    x_hat = centred / std
    y = gamma.ravel() * x_hat + beta.ravel()
    g_x_hat = grows * gamma.ravel()
    g_var = (g_x_hat * centred).sum(axis=0) * -0.5 / std**3
    g_mean = -(g_x_hat / std).sum(axis=0) + g_var * -2 * centred.sum(axis=0) / n
    gx = g_x_hat / std + g_var * 2 * centred / n + g_mean / n

    def back(v):
        return np.transpose(v.reshape(moved), np.argsort(order)).astype(np.float64)

    def per_channel(v):
        return v.reshape(gamma.shape).astype(np.float64)

    return {
        "y": back(y),
        "gx": back(gx),
        "ggamma": per_channel((grows * x_hat).sum(axis=0)),
        "gbeta": per_channel(grows.sum(axis=0)),
        "mean": per_channel(mean),
        "var": per_channel(var),
        "n": n,
    }


def error(actual, expected):
    """Return max |a - b| / max |reference|, or max |a - b| where that is 0."""
    expected = np.asarray(expected, np.float64)
    assert np.shape(actual) == expected.shape
    if expected.size == 0:
        return 0.0
    difference = np.abs(np.asarray(actual, np.float64) - expected).max()
    return float(difference / (np.abs(expected).max() or 1))
