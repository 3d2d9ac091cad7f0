"""Convert any picture of a digit to MNIST's format; on anything else, even a well-trained network fails."""

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from configs.errors import UserError
from configs.files import require_file
from data.digits import SIDE

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
LARGEST, MOST_PIXELS = 2**26, 2**25  # bytes and pixels of a file; a 24-megapixel photo fits


def read_image(path: Path) -> Float[Tensor, "784"]:
    """A picture of a digit in MNIST's format: white on black, 20 pixels high or wide, centred by its mass.

    A 28x28 picture on black is used unchanged. Raises UserError for a picture that cannot be read, is too large
    or is blank.
    """
    require_file(path)
    if (size := path.stat().st_size) > LARGEST:
        raise UserError(f"{path} is too large: {size:,} bytes; the limit is {LARGEST:,}")
    try:
        with open_picture(path) as picture:
            if picture.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip at 255
                picture = Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
            flat = Image.new("RGBA", picture.size, "white")
            flat.alpha_composite(picture.convert("RGBA"))
            grey = np.asarray(flat.convert("L"), dtype=np.float32) / 255
    except Exception as error:  # every decoder raises exceptions of its own
        if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno):  # missing or unreadable file
            raise
        raise UserError(f"{path} is not a readable picture ({error})") from error
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if grey.shape == (SIDE, SIDE) and np.median(border) == 0 and grey.any():
        return torch.from_numpy(grey).flatten()
    ink = 1 - grey if np.median(border) > 0.5 else grey
    ink[ink < 0.1] = 0  # paper is never quite white
    if not ink.any():
        raise UserError(f"{path} is blank")
    return centre(ink)


def open_picture(path: Path) -> Image.Image:
    """The picture, with only its header read yet. Raises UserError if it has too many pixels.

    Only `FORMATS` are accepted: Pillow knows others, and for one of them it would start an external program.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is stricter
        picture = Image.open(path, formats=FORMATS)
    if picture.width * picture.height > MOST_PIXELS:
        picture.close()
        raise UserError(
            f"{path} is too large: {picture.width} x {picture.height} pixels; the limit is {MOST_PIXELS:,} in all"
        )
    return picture


def centre(ink: np.ndarray) -> Float[Tensor, "784"]:
    """Crop to the ink, scale its longer side to 20 pixels, and move its centre of mass to the middle."""
    rows, columns = np.nonzero(ink.any(axis=1))[0], np.nonzero(ink.any(axis=0))[0]
    crop = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = 20 / max(crop.shape)
    size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
    small = np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.BOX if scale < 1 else None))
    small = (small / max(small.max(), 1e-6)).clip(0, 1)
    y, x = (np.average(np.arange(n), weights=small.sum(axis=1 - axis)) for axis, n in enumerate(small.shape))
    top, left = round(SIDE / 2 - y), round(SIDE / 2 - x)  # MNIST's middle is pixel 14
    top, left = min(max(top, 0), SIDE - small.shape[0]), min(max(left, 0), SIDE - small.shape[1])
    image = np.zeros((SIDE, SIDE), dtype=np.float32)
    image[top : top + small.shape[0], left : left + small.shape[1]] = small
    return torch.from_numpy(image).flatten()


def draw(image: Float[Tensor, "784"]) -> str:
    """The image as text for a terminal: 14 lines of up to 28 block characters, each two pixels high."""
    ink = image.view(SIDE, SIDE) > 0.4
    return "\n".join(
        "".join(" \u2580\u2584\u2588"[int(above) + 2 * int(below)] for above, below in zip(*rows, strict=True)).rstrip()
        for rows in zip(ink[::2], ink[1::2], strict=True)
    )
