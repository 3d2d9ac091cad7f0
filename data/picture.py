"""Any picture of a digit, turned into what MNIST would have made of it; without this every network looks broken."""

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
LARGEST, MOST_PIXELS = 2**26, 2**25  # bytes of a file, and pixels; a camera's 24 million fit


def read_image(path: Path) -> Float[Tensor, "784"]:
    """Any picture of a digit as MNIST would show it: white on black, 20 pixels high or wide, centred by its mass.

    A picture that is already 28x28 on black is taken as it is. Raises UserError for what cannot
    be read, what is too large, and for a blank picture.
    """
    require_file(path)
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} is too large for a picture of a digit")
    try:
        with opened(path) as picture:
            if picture.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut off at 255
                picture = Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
            flat = Image.new("RGBA", picture.size, "white")
            flat.alpha_composite(picture.convert("RGBA"))
            grey = np.asarray(flat.convert("L"), dtype=np.float32) / 255
    except Exception as error:  # of many decoders, each with its own
        if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno):  # not there, not allowed
            raise
        raise UserError(f"{path} is not a picture that can be read ({error})") from error
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if grey.shape == (SIDE, SIDE) and np.median(border) == 0 and grey.any():
        return torch.from_numpy(grey).flatten()
    ink = 1 - grey if np.median(border) > 0.5 else grey
    ink[ink < 0.1] = 0  # paper is never quite white
    if not ink.any():
        raise UserError(f"{path} is blank")
    return centre(ink)


def opened(path: Path) -> Image.Image:
    """The picture, of which the header alone has been read. Raises UserError if it has too many pixels.

    Pillow knows other formats too; for one of them it would start another program.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound is tighter
        picture = Image.open(path, formats=FORMATS)
    if picture.width * picture.height > MOST_PIXELS:
        picture.close()
        raise UserError(f"{path} is too large for a picture of a digit: {picture.width} x {picture.height} pixels")
    return picture


def centre(ink: np.ndarray) -> Float[Tensor, "784"]:
    """Crop to the ink, scale its longer side to 20 pixels, and put its centre of mass in the middle."""
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
    """The image for a terminal, white ink as blocks: 14 lines of 28 characters, two pixels above each other in one."""
    ink = image.view(SIDE, SIDE) > 0.4
    return "\n".join(
        "".join(" \u2580\u2584\u2588"[int(above) + 2 * int(below)] for above, below in zip(*rows, strict=True)).rstrip()
        for rows in zip(ink[::2], ink[1::2], strict=True)
    )
