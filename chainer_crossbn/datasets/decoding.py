"""Image files: whether they are sound, and the square of pixels that training takes.

Images are turned as their EXIF orientation says, as viewers show them, and made RGB:
grey ones and palettes are expanded, CMYK converted, 16 bits reduced to 8, and an alpha
channel is left out.
"""

import struct
import warnings
import zlib

import numpy
from PIL import Image

# Of what Pillow reads, formats that are for pictures and read without other programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP")

# What Pillow itself deems an attack begins at twice as many.
PIXEL_LIMIT = 89_478_485

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A JPEG file is decoded at 1/2, 1/4 or 1/8 of its size where that leaves so many times
# what it is then reduced to, as Image.thumbnail does.
_GAP = 2

# What Pillow raises on files that are none of these, or damaged.
_OF_FILES = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError),
    *(ArithmeticError, RuntimeError, AttributeError, MemoryError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)

# It warns of metadata and of large images, from threads, in several lines each.
warnings.filterwarnings("ignore", module=r"PIL\.")


class BrokenImage(Exception):
    """A file can't be had as an image; the message says why."""


def short_side(side):
    """Return the short side to which images are resized before they are cropped.

    It is 256 for crops of 224, and for smaller crops less in proportion. Larger crops
    up to 256 still come from 256, so that one of 256 has the whole short side; those
    above have it, too.

    Args:
        side (int): Height and width of the crop.
    """
    return round(side * 256 / 224) if side <= 224 else max(256, side)


def check(path):
    """Check by its first bytes that a file is an image.

    Args:
        path (str): The file.

    Raises:
        BrokenImage: If it is none.
    """
    try:
        with _opened(path):
            pass
    except _OF_FILES as error:
        raise BrokenImage(_reason(error)) from None


def read(path, side, random=None):
    """Return a square of an image, with its short side resized to :func:`short_side`.

    Resizing is bilinear, with Pillow's antialiasing, and of those pixels alone that are
    in the crop.

    Args:
        path (str): The file.
        side (int): Height and width of the square.
        random (numpy.random.RandomState or None): Where to take the square, and whether
            it is mirrored, each as likely as the other; None: from the centre, as it
            is.

    Returns:
        numpy.ndarray: uint8 of shape (3, side, side), not contiguous.

    Raises:
        BrokenImage: If the file can't be read, is no image, or is damaged.
    """
    try:
        with _opened(path) as image:
            pixels = _cropped(_decoded(image, side), side, random)
    except _OF_FILES as error:
        raise BrokenImage(_reason(error)) from None
    return pixels.transpose(2, 0, 1)


def _opened(path):
    image = Image.open(path, formats=FORMATS)
    if image.width * image.height > PIXEL_LIMIT:
        image.close()
        raise ValueError(
            f"{image.width} x {image.height} pixels are more than {PIXEL_LIMIT}"
        )
    return image


def _reason(error):
    if isinstance(error, Image.UnidentifiedImageError):
        return f"no image ({', '.join(FORMATS)})"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _decoded(image, side):
    # Where the file can be decoded at a fraction of its size.
    factor = _GAP * short_side(side) / min(image.size)
    image.draft(None, tuple(-int(-length * factor // 1) for length in image.size))
    image.load()
    turn = _turn(image)
    if image.mode.startswith("I"):
        wide = numpy.asarray(image).astype(numpy.int32) >> 8
        image = Image.fromarray(wide.clip(0, 255).astype(numpy.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _turn(image):
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except _OF_FILES:  # damaged, where the pixels need not be
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _cropped(image, side, random):
    """Return the square, uint8 of shape (side, side, 3)."""
    scale = short_side(side) / min(image.size)
    sizes = [max(side, round(length * scale)) for length in image.size]
    if random is None:
        left, top = ((size - side) // 2 for size in sizes)
        mirrored = False
    else:
        left, top = (int(random.randint(size - side + 1)) for size in sizes)
        mirrored = bool(random.randint(2))
    x, y = (length / size for length, size in zip(image.size, sizes))
    box = (
        *(left * x, top * y),
        min((left + side) * x, image.width),
        min((top + side) * y, image.height),
    )
    square = image.resize((side, side), Image.Resampling.BILINEAR, box)
    pixels = numpy.asarray(square)
    return pixels[:, ::-1] if mirrored else pixels
