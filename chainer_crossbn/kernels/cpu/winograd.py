"""Fast convolution for CPUs by few products: 3x3 filters, stride 1, pad 1.

Winograd's minimal filtering as Lavin & Gray have it, "Fast Algorithms for Convolutional
Neural Networks" (2015): Y = A' [(G g G') * (B' d B)] A for a filter g and a tile d of
the input. The products of all tiles are matrix products over the channels, one for each
element of the transformed tile, which BLAS makes. The transforms around them run over
arrays whose channels come last, a vector of channels at a time: code for them is
generated from the matrices.
"""

from typing import Callable, NamedTuple

import numpy
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from chainer_crossbn.kernels.cpu.compilation import compiled
from chainer_crossbn.kernels.cpu.memory import as_channels_first, channels_last

_VECTOR_BYTES = 64
_LINE_BYTES = 64  # of the cache
_BLOCK = 256  # channels of filters that are transformed together
_CHUNK_BYTES = 3 << 19  # of transformed tiles, in the second-level cache
# With how many tiles it pays, and how many pairs of channels need one more.
_LEAST_TILES = 2
_PAIRS_A_TILE = 20_000

# F(4x4, 3x3): tiles of 6x6, 36 products a channel pair in place of 144.
_B4 = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_G4 = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_A4 = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
# Whole maps of 2x2, without their padding: g1 d0 + g2 d1 and g0 d0 + g1 d1 are made of
# three products, (d0 + d1) g1, d1 (g2 - g1) and d0 (g0 - g1): 9 a channel pair.
_B2 = ((1, 1), (0, 1), (1, 0))
_G2 = ((0, 1, 0), (0, -1, 1), (1, -1, 0))
_A2 = ((1, 1, 0), (1, 0, 1))


def _transposed(matrix):
    return tuple(zip(*matrix))


# The gradients of y = A' [u * v] A by u and by v go through the transposes.
_MATRICES = {
    "B4": _B4,
    "G4": _G4,
    "A4": _A4,
    "A4'": _transposed(_A4),
    "G4'": _transposed(_G4),
    "B2": _B2,
    "G2": _G2,
    "A2": _A2,
    "A2'": _transposed(_A2),
    "G2'": _transposed(_G2),
}


def _combine(builder, row, values):
    """Emit the sum of values, each times its factor in a row of a matrix."""
    flags = ("contract", "nsz")
    total = None
    # What is only added comes first, so that each product can be fused into the sum.
    for factor, value in sorted(zip(row, values), key=lambda pair: abs(pair[0]) != 1):
        if factor == 0:
            continue
        if abs(factor) == 1:
            term = value
        else:
            element = (
                value.type.element if hasattr(value.type, "element") else value.type
            )
            constant = ir.Constant(element, float(abs(factor)))
            if element is not value.type:
                constant = ir.Constant(value.type, [constant] * value.type.count)
            term = builder.fmul(value, constant, flags=flags)
        if total is None:
            total = term if factor > 0 else builder.fneg(term)
        elif factor > 0:
            total = builder.fadd(total, term, flags=flags)
        else:
            total = builder.fsub(total, term, flags=flags)
    return total


@intrinsic(prefer_literal=True)
def _sandwich(typing_context, name, sources, destinations, n, like):
    """Compute L d L' for a matrix L and n tiles d that lie side by side.

    Args:
        name (str): Literal: which of the matrices.
        sources: int64 array: the address of each element of the first tile.
        destinations: Likewise, of the result.
        n (int): Number of tiles; the next has the addresses next to these.
        like: Array of the dtype that the tiles have.
    """
    matrix = _MATRICES[name.literal_value]
    side = len(matrix[0])

    def generate(context, builder, signature, arguments):
        element = context.get_data_type(like.dtype)
        lanes = _VECTOR_BYTES // (like.dtype.bitwidth // 8)
        tables = [
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip((sources, destinations), arguments[1:3])
        ]

        def at(table, place, k, kind):
            address = builder.load(cgutils.gep(builder, table, place))
            pointer = builder.inttoptr(address, element.as_pointer())
            return builder.bitcast(builder.gep(pointer, [k]), kind.as_pointer())

        def transform(k, kind):
            align = like.dtype.bitwidth // 8
            d = [
                builder.load(at(tables[0], place, k, kind), align=align)
                for place in range(side * side)
            ]
            columns = [
                [_combine(builder, row, d[j::side]) for row in matrix]
                for j in range(side)
            ]
            for i in range(len(matrix)):
                line = [column[i] for column in columns]
                for j, row in enumerate(matrix):
                    place = i * len(matrix) + j
                    pointer = at(tables[1], place, k, kind)
                    builder.store(_combine(builder, row, line), pointer, align=align)

        count = arguments[3]
        zero, one, step = (ir.Constant(count.type, v) for v in (0, 1, lanes))
        whole = builder.sub(count, builder.urem(count, step))
        for start, stop, stride, kind in (
            (zero, whole, step, ir.VectorType(element, lanes)),
            (whole, count, one, element),
        ):
            with cgutils.for_range_slice(builder, start, stop, stride) as (k, _):
                transform(k, kind)
        return context.get_dummy_value()

    return types.void(name, sources, destinations, n, like), generate


def _tile_transform(name, size, step, offset, reads):
    """Return a function that transforms the tiles of images to products, or back.

    Tiles of ``size`` positions a side begin every ``step`` positions, the first at
    ``offset``. Outside of the image zeros are read, and nothing is written.

    Args:
        name (str): Which of the matrices.
        size, step, offset (int): Where the tiles are.
        reads (bool): Whether images are transformed to products, or products to images.
    """
    matrix = _MATRICES[name]
    n_products = (len(matrix) if reads else len(matrix[0])) ** 2

    @compiled(False)
    def transform(images, th, tw, products):
        """Transform images (b, h, w, c) to products (n_products, tiles, c), or back."""
        b, h, w, c = images.shape
        outside = numpy.zeros(c, images.dtype)
        tile = numpy.empty(size * size, numpy.int64)
        column = numpy.empty(n_products, numpy.int64)
        sources, destinations = (tile, column) if reads else (column, tile)
        for p in range(n_products):
            column[p] = products.ctypes.data + p * products.strides[0]
        for i in range(b):
            for p in range(th):
                for q in range(tw):
                    place = 0
                    for row in range(p * step + offset, p * step + offset + size):
                        line = images.ctypes.data + i * images.strides[0]
                        line += row * images.strides[1]
                        for col in range(q * step + offset, q * step + offset + size):
                            if 0 <= row < h and 0 <= col < w:
                                tile[place] = line + col * images.strides[2]
                            else:
                                tile[place] = outside.ctypes.data
                            place += 1
                    _sandwich(name, sources, destinations, c, images)
                    column += products.strides[1]

    return transform


def _filter_transform(name, reads):
    """Return a function that transforms filters to products, or back.

    Args:
        name (str): Which of the matrices.
        reads (bool): Whether filters are transformed to products, or products to
            filters.
    """
    matrix = _MATRICES[name]
    n_products = (len(matrix) if reads else len(matrix[0])) ** 2

    @compiled(False)
    def transform(w, turned, products):
        """Transform filters (a, b, 3, 3), turned by 180 degrees or not, or back.

        Products have the shape (n_products, a, b).
        """
        a, b = w.shape[:2]
        g = numpy.empty((9, _BLOCK), w.dtype)
        elements = numpy.empty(9, numpy.int64)
        column = numpy.empty(n_products, numpy.int64)
        sources, destinations = (elements, column) if reads else (column, elements)
        for p in range(9):
            place = 8 - p if turned else p
            elements[p] = g.ctypes.data + place * g.strides[0]
        for k in range(0, b, _BLOCK):
            n = min(_BLOCK, b - k)
            for i in range(a):
                start = products.ctypes.data
                start += i * products.strides[1] + k * products.strides[2]
                for p in range(n_products):
                    column[p] = start + p * products.strides[0]
                if reads:
                    for j in range(n):
                        for p in range(3):
                            for q in range(3):
                                g[3 * p + q, j] = w[i, k + j, p, q]
                _sandwich(name, sources, destinations, n, w)
                if not reads:
                    for j in range(n):
                        for p in range(3):
                            for q in range(3):
                                w[i, k + j, p, q] = g[3 * p + q, j]

    return transform


class _Algorithm(NamedTuple):
    """Transforms of one minimal filtering algorithm."""

    tile: int  # outputs a side
    products: int
    inputs: Callable
    filters: Callable
    outputs: Callable
    gradients: Callable  # of the outputs
    filter_gradients: Callable
    ones: int  # which product goes into every output once


_F4 = _Algorithm(
    tile=4,
    products=36,
    inputs=_tile_transform("B4", size=6, step=4, offset=-1, reads=True),
    filters=_filter_transform("G4", reads=True),
    outputs=_tile_transform("A4", size=4, step=4, offset=0, reads=False),
    gradients=_tile_transform("A4'", size=4, step=4, offset=0, reads=True),
    filter_gradients=_filter_transform("G4'", reads=False),
    ones=7,
)
_F2 = _Algorithm(
    tile=2,
    products=9,
    inputs=_tile_transform("B2", size=2, step=2, offset=0, reads=True),
    filters=_filter_transform("G2", reads=True),
    outputs=_tile_transform("A2", size=2, step=2, offset=0, reads=False),
    gradients=_tile_transform("A2'", size=2, step=2, offset=0, reads=True),
    filter_gradients=_filter_transform("G2'", reads=False),
    ones=0,
)


def _algorithm(shape):
    """Return the algorithm for images (n, h, w, ...)."""
    return _F2 if shape[1] <= 2 and shape[2] <= 2 else _F4


class _Chunks:
    """Cuts images of one convolution into chunks whose tiles the cache holds."""

    def __init__(self, algorithm, shape, inputs, outputs, itemsize):
        n, height, width = shape[:3]
        self.down = -(-height // algorithm.tile)
        self.across = -(-width // algorithm.tile)
        filters = algorithm.products * inputs * outputs * itemsize
        image = self.down * self.across * algorithm.products * (inputs + outputs)
        # Each chunk passes over all filters.
        size = max(1, max(_CHUNK_BYTES, filters) // (image * itemsize))
        self.slices = [slice(i, min(i + size, n)) for i in range(0, n, size)]
        self.tiles = min(size, n) * self.down * self.across


def _matrices(count, rows, columns, dtype):
    """Return an uninitialized array (count, rows, columns) for the transforms.

    They write, or read, all matrices at one place at a time. An odd number of cache
    lines from each to the next lets them lie in different sets of the cache; multiples
    of the size of a page would push each other out, which takes five times as long.
    Some memory lies between any two, so that the transforms are compiled but once.
    """
    size = rows * columns
    a_line = _LINE_BYTES // dtype.itemsize
    lines = (size // a_line + 1) | 1
    whole = numpy.empty((count, lines * a_line), dtype)
    return whole[:, :size].reshape(count, rows, columns)


def pays(x_shape, w_shape):
    """Whether the transforms cost less than the products that they save.

    The transform of the filters is once a call, so there must be tiles enough, and the
    more the less of the filters the cache holds. Measured with AVX-512.
    """
    n, _, height, width = x_shape
    algorithm = _algorithm((n, height, width))
    tiles = n * -(-height // algorithm.tile) * -(-width // algorithm.tile)
    pairs = w_shape[0] * w_shape[1]
    return tiles >= _LEAST_TILES + pairs / _PAIRS_A_TILE


def _convolve(x, w, bias, turned):
    """Convolve (n, h, w, c) with (c, k, 3, 3), turned by 180 degrees or not."""
    algorithm = _algorithm(x.shape)
    inputs, outputs = w.shape[:2]
    u = _matrices(algorithm.products, inputs, outputs, x.dtype)
    algorithm.filters(w, turned, u)
    y = numpy.empty((*x.shape[:3], outputs), x.dtype)
    chunks = _Chunks(algorithm, x.shape, inputs, outputs, x.itemsize)
    v = _matrices(algorithm.products, chunks.tiles, inputs, x.dtype)
    m = _matrices(algorithm.products, chunks.tiles, outputs, x.dtype)
    grid = chunks.down, chunks.across
    for chunk in chunks.slices:
        part = x[chunk]
        t = len(part) * chunks.down * chunks.across
        algorithm.inputs(part, *grid, v)
        numpy.matmul(v[:, :t], u, out=m[:, :t])
        if bias is not None:
            m[algorithm.ones] += bias
        algorithm.outputs(y[chunk], *grid, m)
    return as_channels_first(y)


def convolve(x, w, bias=None):
    """Return the convolution of (n, c, h, w) with (k, c, 3, 3), and add a bias.

    Arrays of images are best channels last in memory; the result is.
    """
    return _convolve(channels_last(x), w.transpose(1, 0, 2, 3), bias, False)


def gradient_of_input(gy, w):
    """Return the gradient of the input: convolution with turned, swapped filters."""
    return _convolve(channels_last(gy), w, None, True)


def gradient_of_filters(x, gy):
    x, gy = channels_last(x), channels_last(gy)
    inputs, outputs = x.shape[3], gy.shape[3]
    algorithm = _algorithm(x.shape)
    gw = numpy.zeros((outputs, inputs, 3, 3), x.dtype)
    chunks = _Chunks(algorithm, x.shape, inputs, outputs, x.itemsize)
    v = _matrices(algorithm.products, chunks.tiles, inputs, x.dtype)
    z = _matrices(algorithm.products, chunks.tiles, outputs, x.dtype)
    grid = chunks.down, chunks.across
    total = None
    for chunk in chunks.slices:
        part = x[chunk]
        t = len(part) * chunks.down * chunks.across
        algorithm.inputs(part, *grid, v)
        algorithm.gradients(gy[chunk], *grid, z)
        s = _matrices(algorithm.products, outputs, inputs, x.dtype)
        numpy.matmul(z[:, :t].transpose(0, 2, 1), v[:, :t], out=s)
        total = s if total is None else numpy.add(total, s, out=total)
    if total is not None:
        algorithm.filter_gradients(gw, False, total)
    return gw
