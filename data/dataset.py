"""The dataset protocol: the methods through which training and evaluation read any dataset."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from torch import Tensor

Batch = tuple[Tensor, Tensor]
IGNORED = -100  # a target that the loss ignores


@runtime_checkable
class Dataset(Protocol):
    """Training batches by number, and evaluation splits in order."""

    positions: int
    """targets per example"""
    sha256: str
    """fingerprint of the data, so that --resume notices changes"""
    recipe: int
    """version of how `sha256` is computed; fingerprints of different recipes cannot be compared"""

    def count(self, split: str) -> int:
        """Number of examples in the split; 0 if it does not exist."""

    def batch(self, split: str, number: int, size: int) -> Batch:
        """Inputs and targets; a pure function of the seed and the arguments."""

    def in_order(self, split: str, size: int) -> Iterator[Batch]:
        """The whole split once, in batches of one shape; the last is padded with ignored targets."""
