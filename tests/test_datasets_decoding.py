"""Decoding of image files of all kinds to squares of RGB."""

import re

import numpy as np
import pytest
from image_trees import picture, truncate
from PIL import Image

from chainer_crossbn.datasets import decoding


def resized(image, side):
    """Return the centre crop, by resizing all of the image first."""
    short = decoding.short_side(side)
    scale = short / min(image.size)
    image = image.resize(
        [round(length * scale) for length in image.size], Image.Resampling.BILINEAR
    )
    left, top = ((length - side) // 2 for length in image.size)
    return np.asarray(image.crop((left, top, left + side, top + side))).astype(int)


def pixels(path, side, random=None):
    return decoding.read(str(path), side, random).transpose(1, 2, 0).astype(int)


def test_short_side():
    short = {side: decoding.short_side(side) for side in (32, 112, 224, 240, 256, 384)}
    assert short == {32: 37, 112: 128, 224: 256, 240: 256, 256: 256, 384: 384}


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (50, 60)])
@pytest.mark.parametrize("side", [224, 256])
def test_centre_crop(tmp_path, size, side):
    image = picture(*size, 0)
    image.save(tmp_path / "a.png")
    # read() rounds once less, because it resizes only the crop.
    assert abs(pixels(tmp_path / "a.png", side) - resized(image, side)).max() <= 1


@pytest.mark.parametrize("side", [32, 224, 300])
def test_images_of_the_requested_size_keep_their_pixels(tmp_path, side):
    image = np.random.RandomState(0).randint(0, 256, (side, side, 3)).astype(np.uint8)
    path = str(tmp_path / "image.png")
    Image.fromarray(image).save(path)
    expected = image.transpose(2, 0, 1)
    np.testing.assert_array_equal(decoding.read(path, side), expected)
    for seed in range(4):
        drawn = decoding.read(path, side, np.random.RandomState(seed))
        assert (drawn == expected).all() or (drawn == expected[..., ::-1]).all()


def test_large_jpeg_files_are_decoded_at_a_fraction(tmp_path):
    # No detail is lost when it is reduced.
    picture(100, 81, 1).resize((1600, 1300)).save(tmp_path / "a.jpg", quality=95)
    whole = resized(Image.open(tmp_path / "a.jpg"), 64)
    difference = pixels(tmp_path / "a.jpg", 64) - whole
    assert 0 < abs(difference).mean() < 2


def test_a_long_thin_image_takes_no_more_memory_than_its_file(tmp_path):
    picture(2, 30000, 0).save(tmp_path / "a.png")
    # Resized as a whole it would have 256 x 3,840,000 pixels.
    assert pixels(tmp_path / "a.png", 256).shape == (256, 256, 3)


def test_random_crops_and_flips(tmp_path):
    image = picture(64, 37, 0)
    image.save(tmp_path / "a.png")
    whole = np.asarray(image).astype(int)  # needs no resizing for crops of 32 pixels
    crops = set()
    for seed in range(100):
        got = pixels(tmp_path / "a.png", 32, np.random.RandomState(seed))
        for flipped in (False, True):
            for left in range(64 - 32 + 1):
                for top in range(37 - 32 + 1):
                    crop = whole[top : top + 32, left : left + 32]
                    if (got == crop[:, :: -1 if flipped else 1]).all():
                        crops.add((left, top, flipped))
                        break
    assert len(crops) > 70
    lefts, tops, flips = map(set, zip(*crops))
    assert min(lefts) < 4 and max(lefts) > 28
    assert tops == set(range(6)) and flips == {False, True}


@pytest.mark.parametrize(
    "mode,colour",
    [
        ("RGB", (200, 100, 50)),
        ("L", (124, 124, 124)),
        ("1", (255, 255, 255)),
        ("P", (200, 100, 50)),
        ("RGBA", (200, 100, 50)),
        ("LA", (124, 124, 124)),
        ("I;16", (77, 77, 77)),
    ],
)
def test_png_modes(tmp_path, mode, colour):
    plain = Image.new("RGB", (40, 40), (200, 100, 50))
    if mode == "I;16":
        image = Image.fromarray(np.full((40, 40), 77 * 256 + 9, np.uint16))
    else:
        image = plain.convert(mode)
    if mode == "P":
        image = plain.quantize(2)
    if mode == "1":
        image = Image.new("1", (40, 40), 1)
    if mode in ("RGBA", "LA"):
        image.putalpha(3)
    image.save(tmp_path / "a.png")
    got = pixels(tmp_path / "a.png", 32).reshape(-1, 3)
    assert abs(got - colour).max() <= 1


def test_cmyk(tmp_path):
    plain = Image.new("RGB", (40, 40), (200, 100, 50))
    plain.convert("CMYK").save(tmp_path / "a.JPEG", quality=100)
    got = pixels(tmp_path / "a.JPEG", 32).reshape(-1, 3)
    assert abs(got - (200, 100, 50)).max() <= 8


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_exif_orientation(tmp_path, orientation, kind):
    upright = picture(96, 64, 0)
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"a.{kind}", exif=exif, quality=100, subsampling=0)
    difference = pixels(tmp_path / f"a.{kind}", 32) - resized(upright, 32)
    assert abs(difference).mean() < 2


def test_damaged_exif_is_ignored(tmp_path):
    exif = b"Exif\0\0II*\0" + b"\xff" * 40
    picture(60, 40, 0).save(tmp_path / "a.jpg", exif=exif)
    picture(60, 40, 0).save(tmp_path / "b.jpg")
    assert (pixels(tmp_path / "a.jpg", 32) == pixels(tmp_path / "b.jpg", 32)).all()


def write_broken(folder):
    """Write broken files; return a dict from their names to the reasons."""
    picture(60, 40, 0).save(folder / "cut.jpg")
    picture(60, 40, 0).save(folder / "cut.png")
    for name in ("cut.jpg", "cut.png"):
        truncate(folder / name)
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.jpg").write_bytes(b"")
    program = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9"
    (folder / "program.eps").write_text(program)
    (folder / "here.jpg").symlink_to("nowhere.jpg")
    (folder / "folder.jpg").mkdir()
    return {
        "cut.jpg": "(?i)truncated",
        "cut.png": "(?i)truncated|broken",
        "text.jpg": "not an image",
        "empty.jpg": "not an image",
        "program.eps": "not an image",
        "here.jpg": "No such file",
        "folder.jpg": "Is a directory",
    }


def test_broken_files_have_a_reason(tmp_path):
    for name, reason in write_broken(tmp_path).items():
        with pytest.raises(decoding.BrokenImage, match=reason):
            decoding.read(str(tmp_path / name), 32)
        assert re.search(reason, decoding.check(str(tmp_path / name)))
    picture(60, 40, 0).save(tmp_path / "sound.jpg")
    assert decoding.check(str(tmp_path / "sound.jpg")) is None


def test_any_bytes_are_an_image_or_broken(tmp_path, monkeypatch):
    # A changed size in a header then takes no time.
    monkeypatch.setattr(decoding, "PIXEL_LIMIT", 10000)
    state = np.random.RandomState(0)
    path = tmp_path / "a"
    n_broken = 0
    for kind in ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP"):
        picture(48, 40, 0).save(path, kind)
        sound = path.read_bytes()
        for _ in range(100):
            changed = bytearray(sound)
            for place in state.randint(0, min(len(sound), 400), 4):
                changed[place] = state.randint(256)
            path.write_bytes(changed)
            try:
                assert decoding.read(str(path), 8).shape == (3, 8, 8)
            except decoding.BrokenImage as error:
                n_broken += 1
                assert str(error)
    assert n_broken > 100


def test_too_many_pixels(tmp_path):
    # A header without pixels.
    (tmp_path / "a.pbm").write_text("P4 30000 3000 ")
    with pytest.raises(decoding.BrokenImage, match="30000 x 3000 pixels"):
        decoding.read(str(tmp_path / "a.pbm"), 32)
