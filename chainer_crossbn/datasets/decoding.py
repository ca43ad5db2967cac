"""Decoding of image files to the square of pixels that a network takes.

Images are turned as their EXIF orientation says, and converted to RGB: grey values and
palettes are expanded, CMYK is converted, 16 bits are reduced to 8, and an alpha channel
is dropped.
"""

from __future__ import annotations

import struct
import warnings
import zlib

import numpy
from PIL import Image

# Formats for pictures that Pillow reads without other programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP")

# Pillow warns of larger images, and refuses them from twice as many pixels.
PIXEL_LIMIT = 89_478_485

_ORIENTATION = 0x0112  # EXIF tag
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# A JPEG file is decoded at 1/2, 1/4 or 1/8 of its size, as long as that is this many
# times the size to which it is then reduced; see Image.thumbnail.
_REDUCING_GAP = 2
# Height and width to which files are decoded to check them.
_CHECK_SIDE = 32

# What Pillow raises on files of other kinds, and on damaged ones.
_PILLOW_ERRORS = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError),
    *(ArithmeticError, RuntimeError, AttributeError, MemoryError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)

# Pillow warns of metadata, in several lines per file.
warnings.filterwarnings("ignore", module=r"PIL\.")


class BrokenImage(Exception):
    """A file can't be decoded. The message says why."""


def short_side(side: int) -> int:
    """Return the short side to which images are resized before they are cropped.

    It is 256 for crops of 224, and in proportion for smaller crops. Crops of 224 to 256
    are taken from 256, and larger crops have the whole short side.

    Args:
        side (int): Height and width of the crop.
    """
    return round(side * 256 / 224) if side <= 224 else max(256, side)


def check(path: str) -> str | None:
    """Return why a file can't be decoded, or None if it can.

    Args:
        path (str): The file.
    """
    try:
        read(path, _CHECK_SIDE)
    except BrokenImage as error:
        return str(error)
    return None


def read(
    path: str, side: int, random: numpy.random.RandomState | None = None
) -> numpy.ndarray:
    """Return a square of an image, with its short side resized to :func:`short_side`.

    An image that has the requested size is neither resized nor cropped.

    Resizing is bilinear with Pillow's antialiasing. Only the pixels of the crop are
    computed.

    Args:
        path (str): The file.
        side (int): Height and width of the square.
        random (numpy.random.RandomState or None): Draws the place of the crop, and
            whether it is mirrored, with probability 1/2. Without it, the crop is the
            centre.

    Returns:
        numpy.ndarray: uint8 of shape (3, side, side), not contiguous.

    Raises:
        BrokenImage: If the file can't be read, is not an image, or is damaged.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise ValueError(
                    f"{image.width} x {image.height} pixels are more than {PIXEL_LIMIT}"
                )
            pixels = _cropped(_decoded(image, side), side, random)
    except Image.UnidentifiedImageError:
        raise BrokenImage(f"not an image ({', '.join(FORMATS)})") from None
    except _PILLOW_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BrokenImage(reason or type(error).__name__) from None
    return pixels.transpose(2, 0, 1)


def _decoded(image, side):
    """Return the upright RGB image, possibly at a fraction of its size."""
    factor = _REDUCING_GAP * short_side(side) / min(image.size)
    image.draft(None, tuple(-int(-length * factor // 1) for length in image.size))
    image.load()
    method = _transposition(image)
    if image.mode.startswith("I"):
        wide = numpy.asarray(image).astype(numpy.int32) >> 8
        image = Image.fromarray(wide.clip(0, 255).astype(numpy.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    image = image.convert("RGB")
    return image if method is None else image.transpose(method)


def _transposition(image):
    """Return how to turn an image upright, or None if it is."""
    # ImageOps.exif_transpose also rewrites the metadata, and fails if it can't.
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except _PILLOW_ERRORS:  # damaged metadata; the pixels need not be damaged
        return None
    return _TRANSPOSITIONS.get(orientation) if isinstance(orientation, int) else None


def _cropped(image, side, random):
    """Return the square, uint8 of shape (side, side, 3)."""
    # An image of the requested size is not resampled.
    short = side if image.size == (side, side) else short_side(side)
    scale = short / min(image.size)
    sizes = [max(side, round(length * scale)) for length in image.size]
    if random is None:
        left, top = ((size - side) // 2 for size in sizes)
        mirrored = False
    else:
        left, top = (int(random.randint(size - side + 1)) for size in sizes)
        mirrored = bool(random.randint(2))
    x, y = (length / size for length, size in zip(image.size, sizes))
    box = (
        left * x,
        top * y,
        min((left + side) * x, image.width),
        min((top + side) * y, image.height),
    )
    square = image.resize((side, side), Image.Resampling.BILINEAR, box)
    pixels = numpy.asarray(square)
    return pixels[:, ::-1] if mirrored else pixels
