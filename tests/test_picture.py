"""Pictures: however a digit was drawn, the network sees it as MNIST would have shown it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torch import Tensor

from configs.errors import UserError
from configs.schema import DataConfig
from data.digits import open_digits
from data.picture import draw, read_image


def seven(size: int = 180) -> np.ndarray:
    """A 7 of that height, white on black, with strokes that fade at their edges."""
    picture = Image.new("L", (4 * size, 4 * size))
    corners = [(size, size), (3 * size, size), (3 * size // 2, 3 * size)]
    ImageDraw.Draw(picture).line(corners, fill=255, width=size // 2, joint="curve")
    box = picture.getbbox()
    assert box
    digit = picture.crop(box)
    return np.asarray(digit.resize((round(digit.width * size / digit.height), size), Image.Resampling.BOX))


def on_paper(digit: np.ndarray, left: int = 230, top: int = 40, width: int = 500, height: int = 300) -> np.ndarray:
    """The digit somewhere on a larger black sheet."""
    paper = np.zeros((height, width), np.uint8)
    paper[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return paper


def saved(folder: Path, levels: np.ndarray) -> Path:
    """The picture as a file."""
    Image.fromarray(levels).save(folder / "digit.png")
    return folder / "digit.png"


def box(image: Tensor) -> tuple[int, int]:
    """Height and width of the ink."""
    ink = image.view(28, 28) > 0
    down, right = ink.any(dim=1).nonzero(), ink.any(dim=0).nonzero()
    return int(down.max() - down.min()) + 1, int(right.max() - right.min()) + 1


def centre_of_mass(images: Tensor) -> Tensor:
    """Of each image: row and column, counted from 0."""
    grids, place = images.view(-1, 28, 28).double(), torch.arange(28.0).double()
    return torch.stack([grids.sum(dim=2) @ place, grids.sum(dim=1) @ place], dim=1) / grids.sum(dim=(1, 2))[:, None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for pictures; one file is written over and over."""
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """The 5,000 real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PELLUCID_DATA", raising=False)
        splits = open_digits(DataConfig(path="mnist-5k", val_fraction=0), [784, 10], seed=0).splits
    return torch.cat([splits["train"][0], splits["test"][0]])


def in_bytes(images: Tensor) -> np.ndarray:
    """Grey levels from 0 to 255, 28 by 28."""
    return (images * 255).round().byte().view(-1, 28, 28).numpy()


@pytest.mark.parametrize("ink", ["white on black", "black on white"])
@pytest.mark.parametrize(("size", "left", "top"), [(180, 230, 40), (180, 3, 100), (60, 400, 200), (12, 100, 100)])
def test_a_drawn_digit_becomes_20_pixels_high_in_grey_levels_from_0_to_1(folder, ink, size, left, top):
    levels = on_paper(seven(size), left, top)
    image = read_image(saved(folder, levels if ink == "white on black" else 255 - levels))
    assert max(box(image)) == 20
    assert image.min() >= 0 and image.max() <= 1


def test_a_drawn_digit_has_its_centre_of_mass_where_mnists_digits_have_it(folder, digits):
    # Rows and columns count from 0; MNIST moved whole pixels, so that half of one is as near as it gets.
    assert (centre_of_mass(digits) - 14).abs().max() <= 0.51
    drawn = torch.stack([read_image(saved(folder, on_paper(seven(size)))) for size in range(40, 200, 8)])
    assert (centre_of_mass(drawn) - 14).abs().max() <= 0.51


def test_black_on_white_is_read_as_white_on_black(folder):
    levels = on_paper(seven())
    white, black = read_image(saved(folder, levels)), read_image(saved(folder, 255 - levels))
    torch.testing.assert_close(white, black, atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=20)
@given(left=st.integers(1, 300), top=st.integers(1, 200), width=st.integers(480, 600), height=st.integers(400, 500))
def test_where_on_the_paper_a_digit_was_drawn_makes_no_difference(folder, left, top, width, height):
    here = read_image(saved(folder, on_paper(seven(60), left, top, width, height)))
    there = read_image(saved(folder, on_paper(seven(60))))
    assert here.equal(there)


def test_a_wide_picture_becomes_20_pixels_wide_and_keeps_its_proportions(folder):
    bar = np.full((30, 200), 255, np.uint8)
    assert box(read_image(saved(folder, on_paper(bar)))) == (3, 20)


def test_an_mnist_image_saved_as_a_picture_comes_back_as_itself(folder, digits):
    levels = in_bytes(digits)
    faint = [i for i in range(1000) if ((levels[i] > 0) & (levels[i] < 26)).any()]
    for i in faint[:20]:
        assert (read_image(saved(folder, levels[i])) * 255).tolist() == levels[i].flatten().tolist()


def test_an_mnist_image_whose_ink_reaches_the_border_comes_back_as_itself(folder, digits):
    levels = in_bytes(digits)
    border = [i for i in range(5000) if levels[i, [0, -1]].any() or levels[i][:, [0, -1]].any()]
    for i in border[:20]:
        assert (read_image(saved(folder, levels[i])) * 255).tolist() == levels[i].flatten().tolist()


def test_a_real_digit_five_times_as_large_and_elsewhere_is_still_nearest_to_itself(folder, digits):
    for i in range(0, 5000, 200):
        large = np.kron(in_bytes(digits)[i], np.ones((5, 5), np.uint8))
        distance = (digits - read_image(saved(folder, on_paper(large)))).square().sum(dim=1)
        assert distance.argmin() == i


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_every_kind_of_picture_shows_the_same_digit(folder, mode):
    levels = on_paper(seven())
    wanted = read_image(saved(folder, levels))
    Image.fromarray(levels).convert(mode).save(folder / "digit.tiff")
    torch.testing.assert_close(read_image(folder / "digit.tiff"), wanted, atol=0.005, rtol=0)


def test_a_picture_with_16_bits_a_pixel_shows_the_same_digit(folder):
    levels = on_paper(seven())
    wanted, found = (read_image(saved(folder, picture)) for picture in (levels, levels.astype(np.uint16) * 257))
    torch.testing.assert_close(found, wanted, atol=0.005, rtol=0)


def test_a_transparent_background_is_paper(folder):
    levels = on_paper(seven())
    black = np.zeros_like(levels)
    image = read_image(saved(folder, np.stack([black, black, black, levels], axis=-1)))
    torch.testing.assert_close(image, read_image(saved(folder, levels)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("side", [28, 100])
def test_a_blank_picture_is_a_users_mistake(folder, level, side):
    with pytest.raises(UserError, match=r"digit\.png is blank"):
        read_image(saved(folder, np.full((side, side), level, np.uint8)))


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_a_file_that_is_no_picture_is_a_users_mistake(tmp_path, content):
    (tmp_path / "digit.png").write_bytes(content)
    with pytest.raises(UserError, match=r"digit\.png is not a readable picture"):
        read_image(tmp_path / "digit.png")


@settings(deadline=None, max_examples=25)
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), cut=st.booleans())
@pytest.mark.parametrize("kind", ["png", "jpeg", "gif"])
def test_a_damaged_picture_is_a_picture_or_a_users_mistake(folder, kind, place, byte, cut):
    path = folder / f"damaged.{kind}"
    Image.fromarray(on_paper(seven(40), 30, 10, 90, 70)).save(path)
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    content[at : len(content) if cut else at + 1] = bytes([byte])
    path.write_bytes(content)
    try:
        assert read_image(path).isfinite().all()
    except UserError as error:
        assert str(path) in str(error)


def test_a_terminal_shows_two_pixels_above_each_other_in_one_character():
    image = torch.zeros(28, 28)
    image[0, 0] = image[1, 1] = image[26, 2] = image[27, 2] = 1
    lines = draw(image.flatten()).split("\n")
    assert (lines[0], lines[1:13], lines[13]) == ("▀▄", [""] * 12, "  █")
