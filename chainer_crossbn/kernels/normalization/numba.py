"""The kernels for NumPy arrays, compiled by Numba: one pass over memory each.

``reassoc`` lets the sums vectorize. They run along the s positions of a channel or,
where s is 1, along the channels of a row; each row, or block of rows, is summed apart
first, so that rounding errors stay small. Moments are sums about a pivot, the mean of
the first row of the channel.
"""

import numpy

from chainer_crossbn.kernels.cpu.compilation import REORDERED, compiled
from chainer_crossbn.kernels.normalization import array_api
from chainer_crossbn.kernels.normalization.groups import WHOLE

_ROWS = 256  # that are summed apart


@compiled(REORDERED)
def _sums(x, pivot, sums, squares):
    n, c, s = x.shape
    for i in range(n):
        for k in range(c):
            p = pivot[k]
            a = 0.0
            b = 0.0
            for j in range(s):
                d = x[i, k, j] - p
                a += d
                b += d * d
            sums[k] += a
            squares[k] += b


@compiled(REORDERED)
def _sums_of_rows(x, pivot, sums, squares):
    n, c = x.shape
    a, b = numpy.zeros(c), numpy.zeros(c)
    for start in range(0, n, _ROWS):
        stop = min(start + _ROWS, n)
        whole = start + (stop - start) // 4 * 4
        for i in range(start, whole, 4):
            for k in range(c):
                p = pivot[k]
                d, e = x[i, k] - p, x[i + 1, k] - p
                f, g = x[i + 2, k] - p, x[i + 3, k] - p
                a[k] += d + e + f + g
                b[k] += d * d + e * e + f * f + g * g
        for i in range(whole, stop):
            for k in range(c):
                d = x[i, k] - pivot[k]
                a[k] += d
                b[k] += d * d
        for k in range(c):
            sums[k] += a[k]
            squares[k] += b[k]
            a[k] = b[k] = 0


@compiled(REORDERED)
def _moments_of_group(x, mean, m2):
    n, c, s = x.shape
    if n * s == 0:
        return
    pivot = numpy.zeros(c)
    for k in range(c):
        for j in range(s):
            pivot[k] += x[0, k, j]
        pivot[k] /= s
    again = True
    while again:
        if s == 1:
            _sums_of_rows(x.reshape((n, c)), pivot, mean, m2)  # contiguous
        else:
            _sums(x, pivot, mean, m2)
        again = False
        for k in range(c):
            shift = mean[k] / (n * s)
            lost = shift * shift * (n * s)
            mean[k] = pivot[k] + shift
            m2[k] -= lost
            # What rounding left below 0; a NaN stays.
            if m2[k] < 0:
                m2[k] = 0
            # The first row was far from all others: the mean is the better pivot.
            if lost > 1e3 * m2[k] and abs(shift) > 1e-9 * abs(mean[k]):
                again = True
        if again:
            pivot[:] = mean
            mean[:] = 0
            m2[:] = 0


@compiled(REORDERED)
def _moments(x, starts, mean, m2):
    c = x.shape[1]
    for g in range(starts.size - 1):
        own = slice(g * c, (g + 1) * c)
        _moments_of_group(x[starts[g] : starts[g + 1]], mean[own], m2[own])


# No fastmath: all ranks must get the same bits, whichever of two comes first.
@compiled(False)
def merge(a, b, tags=0):
    """As :func:`.array_api.merge`."""
    b[:tags] += a[:tags]
    a, b = a[tags:], b[tags:]
    n, m = a[0], b[0]
    if n == 0:
        return
    if m == 0:
        b[:] = a
        return
    total = n + m
    weight = n * m / total
    c = a.size // 2
    for k in range(1, c + 1):
        d = a[k] - b[k]
        b[c + k] = a[c + k] + b[c + k] + d * d * weight
        b[k] = (n * a[k] + m * b[k]) / total
    b[0] = total


all_above = compiled(False)(array_api.all_above)
all_equal = compiled(False)(array_api.all_equal)


@compiled(False)
def sum_rows(rows, total):
    """As :func:`.array_api.sum_rows`."""
    total[:] = 0
    for i in range(len(rows)):
        for k in range(total.size):
            total[k] += rows[i, k]


@compiled(False)
def merge_rows(rows, merged):
    """As :func:`.array_api.merge_rows`."""
    merged[:] = rows[0, : merged.size]
    for i in range(1, len(rows)):
        merge(rows[i, : merged.size], merged, 0)


@compiled(False)
def _add(a, b, factor, total):
    for k in range(total.size):
        total[k] = (a[k] + b[k]) * factor


def mean_rows(rows, factor, mean):
    """As :func:`.array_api.mean_rows`."""
    if len(rows) == 1:
        numpy.multiply(rows[0], factor, out=mean)
        return
    total = rows[0]
    for row in rows[1:-1]:
        _add(total, row, rows.dtype.type(1), mean)
        total = mean
    _add(total, rows[-1], factor, mean)


@compiled(False)
def _rectify(row):
    for j in range(row.size):
        row[j] = 0 if row[j] <= 0 else row[j]  # a NaN stays


# Vectors of statistics hold the channels of the first group, then those of the next.
@compiled({"contract"})
def _normalize(x, starts, means, scales, shift, relu, y):
    _, c, s = x.shape
    for g in range(starts.size - 1):
        own = slice(g * c, (g + 1) * c)
        mean, scale = means[own], scales[own]
        for i in range(starts[g], starts[g + 1]):
            for k in range(c):
                m, a, b = mean[k], scale[k], shift[k]
                for j in range(s):
                    y[i, k, j] = (x[i, k, j] - m) * a + b
                if relu:
                    _rectify(y[i, k])


@compiled({"contract"})
def _normalize_rows(x, starts, means, scales, shift, relu, y):
    c = x.shape[1]
    for g in range(starts.size - 1):
        own = slice(g * c, (g + 1) * c)
        mean, scale = means[own], scales[own]
        for i in range(starts[g], starts[g + 1]):
            for k in range(c):
                y[i, k] = (x[i, k] - mean[k]) * scale[k] + shift[k]
            if relu:
                _rectify(y[i])


# Where ReLU followed, its input is computed again: ReLU passes gradients where that is
# above 0. They are multiplied by 1 or 0, as a load that waits for the comparison comes
# too late. Inner loops are written out, as calls cost as much as a row.
@compiled(REORDERED)
def _gradient_sums(x, gy, starts, means, relu, scales, shift, sums_gy, sums_gy_d):
    _, c, s = x.shape
    for g in range(starts.size - 1):
        own = slice(g * c, (g + 1) * c)
        mean, scale = means[own], scales[own]
        sum_gy, sum_gy_d = sums_gy[own], sums_gy_d[own]
        for i in range(starts[g], starts[g + 1]):
            for k in range(c):
                m, t, u = mean[k], scale[k], shift[k]
                a = 0.0
                b = 0.0
                if relu:
                    for j in range(s):
                        d = x[i, k, j] - m
                        v = gy[i, k, j] * (1.0 if d * t + u > 0 else 0.0)
                        a += v
                        b += v * d
                else:
                    for j in range(s):
                        v = numpy.float64(gy[i, k, j])
                        a += v
                        b += v * (x[i, k, j] - m)
                sum_gy[k] += a
                sum_gy_d[k] += b


@compiled(REORDERED)
def _gradient_sums_of_rows(
    x, gy, starts, means, relu, scales, shift, sums_gy, sums_gy_d
):
    c = x.shape[1]
    a, b = numpy.zeros(c), numpy.zeros(c)
    for g in range(starts.size - 1):
        own = slice(g * c, (g + 1) * c)
        mean, scale = means[own], scales[own]
        sum_gy, sum_gy_d = sums_gy[own], sums_gy_d[own]
        for start in range(starts[g], starts[g + 1], _ROWS):
            for i in range(start, min(start + _ROWS, starts[g + 1])):
                if relu:
                    for k in range(c):
                        d = x[i, k] - mean[k]
                        v = gy[i, k] * (1.0 if d * scale[k] + shift[k] > 0 else 0.0)
                        a[k] += v
                        b[k] += v * d
                else:
                    for k in range(c):
                        v = numpy.float64(gy[i, k])
                        a[k] += v
                        b[k] += v * (x[i, k] - mean[k])
            for k in range(c):
                sum_gy[k] += a[k]
                sum_gy_d[k] += b[k]
                a[k] = b[k] = 0


@compiled({"contract"})
def _input_gradient(
    x, gy, starts, means, slopes, factors, means_gy, relu, scales, shift, gx
):
    _, c, s = x.shape
    for g in range(starts.size - 1):
        own = slice(g * c, (g + 1) * c)
        mean, slope, factor = means[own], slopes[own], factors[own]
        mean_gy, scale = means_gy[own], scales[own]
        for i in range(starts[g], starts[g + 1]):
            for k in range(c):
                m, t, a, b = mean[k], slope[k], factor[k], mean_gy[k]
                if relu:
                    p, q = scale[k], shift[k]
                    for j in range(s):
                        d = x[i, k, j] - m
                        v = gy[i, k, j] * (1.0 if d * p + q > 0 else 0.0)
                        gx[i, k, j] = (v - b - d * t) * a
                else:
                    for j in range(s):
                        gx[i, k, j] = (gy[i, k, j] - b - (x[i, k, j] - m) * t) * a


# A function of its own, as rows of several groups are not vectorized in one loop nest.
@compiled({"contract"})
def _input_gradient_of_rows_of_group(
    x, gy, mean, slope, factor, mean_gy, relu, scale, shift, gx
):
    n, c = x.shape
    for i in range(n):
        if relu:
            for k in range(c):
                d = x[i, k] - mean[k]
                v = gy[i, k] * (1.0 if d * scale[k] + shift[k] > 0 else 0.0)
                gx[i, k] = (v - mean_gy[k] - d * slope[k]) * factor[k]
        else:
            for k in range(c):
                d = x[i, k] - mean[k]
                gx[i, k] = (gy[i, k] - mean_gy[k] - d * slope[k]) * factor[k]


@compiled({"contract"})
def _input_gradient_of_rows(
    x, gy, starts, means, slopes, factors, means_gy, relu, scales, shift, gx
):
    c = x.shape[1]
    for g in range(starts.size - 1):
        rows, own = slice(starts[g], starts[g + 1]), slice(g * c, (g + 1) * c)
        mean, slope, factor = means[own], slopes[own], factors[own]
        mean_gy, scale = means_gy[own], scales[own]
        _input_gradient_of_rows_of_group(
            x[rows],
            gy[rows],
            mean,
            slope,
            factor,
            mean_gy,
            relu,
            scale,
            shift,
            gx[rows],
        )


@compiled({"contract"})
def _update_running(running, fresh, decay):
    for i in range(running.size):
        running[i] = decay * running[i] + (1 - decay) * fresh[i]


def _compilable(x):
    """Return an array as the kernels are compiled for it: usually the array itself."""
    if x.flags.carray and x.dtype.isnative and x.dtype.char in "fd":
        return x
    # Numba has no float16 on CPUs, and would compile again for arrays to read only.
    dtype = numpy.promote_types(x.dtype, numpy.float32)
    return numpy.require(x, dtype, ["C_CONTIGUOUS", "ALIGNED", "WRITEABLE"])


def moments(x, groups=WHOLE):
    """As :func:`.array_api.moments`."""
    mean, m2 = numpy.zeros((2, groups.count * x.shape[1]))
    _moments(_compilable(x), groups.starts(len(x)), mean, m2)
    return mean, m2


def finish_statistics(count, mean, m2, eps, running, decay):
    """As :func:`.array_api.finish_statistics`."""
    var = m2 / count
    running_mean, running_var = running
    if running_mean is not None:
        update_running(running_mean, mean, decay)
        update_running(running_var, var * array_api.correction(count), decay)
    return 1 / (var + eps) ** 0.5


def normalize_batch(
    x, count, mean, m2, eps, gamma, beta, running, decay, relu=False, groups=WHOLE
):
    """As :func:`.array_api.normalize_batch`."""
    count = array_api.counts(x, count, groups)
    inv_std = finish_statistics(count, mean, m2, eps, running, decay)
    return normalize(x, mean, inv_std, gamma, beta, relu, groups), inv_std


def normalize(x, mean, inv_std, gamma, beta, relu=False, groups=WHOLE):
    """As :func:`.array_api.normalize`."""
    source = _compilable(x)
    y = numpy.empty_like(source, subok=False)
    starts = groups.starts(len(x))
    scale, shift = array_api.scale(inv_std, gamma), array_api.wide(beta)
    if x.shape[2] == 1:
        rows = source[:, :, 0]
        _normalize_rows(rows, starts, mean, scale, shift, relu, y[:, :, 0])
    else:
        _normalize(source, starts, mean, scale, shift, relu, y)
    return y.astype(x.dtype, copy=False)


def gradient_sums(x, gy, mean, inv_std, dtype, relu_of=None, groups=WHOLE):
    """As :func:`.array_api.gradient_sums`."""
    c = x.shape[1]
    sums = numpy.zeros((2, mean.size))
    sum_gy, sum_gy_d = sums
    starts = groups.starts(len(x))
    relu, scale, shift = _input_of_relu(inv_std, relu_of)
    x, gy = _compilable(x), _compilable(gy)
    if x.shape[2] == 1:
        x, gy = x[:, :, 0], gy[:, :, 0]
        _gradient_sums_of_rows(
            x, gy, starts, mean, relu, scale, shift, sum_gy, sum_gy_d
        )
    else:
        _gradient_sums(x, gy, starts, mean, relu, scale, shift, sum_gy, sum_gy_d)
    sum_gy_d *= inv_std
    return sums.ravel(), array_api.over_groups(sums, c).astype(dtype)


def input_gradient(
    x, gy, mean, inv_std, gamma, total, count, relu_of=None, groups=WHOLE
):
    """As :func:`.array_api.input_gradient`."""
    source, gy = _compilable(x), _compilable(gy)
    gx = numpy.empty_like(source, subok=False)
    starts = groups.starts(len(x))
    count = array_api.counts(x, count, groups)
    mean_gy, slope = array_api.slopes(inv_std, total, count)
    relu, scale, shift = _input_of_relu(inv_std, relu_of)
    factor = array_api.scale(inv_std, gamma)
    vectors = starts, mean, slope, factor, mean_gy, relu, scale, shift
    if x.shape[2] == 1:
        _input_gradient_of_rows(source[:, :, 0], gy[:, :, 0], *vectors, gx[:, :, 0])
    else:
        _input_gradient(source, gy, *vectors, gx)
    return gx.astype(x.dtype, copy=False)


def _input_of_relu(inv_std, relu_of):
    """Return whether ReLU followed, and the scale and the shift of its input."""
    if relu_of is None:
        return False, inv_std, inv_std
    gamma, beta = relu_of
    return True, array_api.scale(inv_std, gamma), array_api.wide(beta)


def update_running(running, fresh, decay):
    """As :func:`.array_api.update_running`."""
    if running.dtype.char in "fd" and running.dtype.isnative and running.flags.carray:
        _update_running(running.ravel(), fresh.ravel(), decay)
    else:
        array_api.update_running(running, fresh.reshape(running.shape), decay)
