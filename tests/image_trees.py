"""Directories of image files for tests."""

import numpy as np
from PIL import Image


def picture(width, height, seed):
    """Return a smooth RGB image."""
    state = np.random.RandomState(seed)
    small = state.randint(0, 256, (height // 8 + 2, width // 8 + 2, 3))
    small = Image.fromarray(small.astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def write(root, parts, classes=("ant", "bee", "cat")):
    """Write images for each class; ``parts`` maps a split to their number per class."""
    for p, (part, n) in enumerate(parts.items()):
        for c, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                seed = 1000 * p + 100 * c + i
                kind = "jpg" if i % 2 else "png"
                image = picture(40 + 8 * i, 60 - 4 * i, seed)
                image.save(folder / f"{i}.{kind}")
    return root


def truncate(path, left=0.9):
    """Cut off the end of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * left)])
