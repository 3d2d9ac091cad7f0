"""What every data set answers, whatever it is made of."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from torch import Tensor

Batch = tuple[Tensor, Tensor]
IGNORED = -100  # a target that counts for nothing


@runtime_checkable
class Dataset(Protocol):
    """Numbered batches to learn from, and every split in order to be judged by."""

    positions: int
    """targets in one example"""
    sha256: str
    """fingerprint of everything in it, by which --resume notices that it has changed"""
    recipe: int
    """how `sha256` is computed; fingerprints of two recipes cannot be compared"""

    def count(self, split: str) -> int:
        """Examples in the split; 0 if there is no such split."""

    def batch(self, split: str, number: int, size: int) -> Batch:
        """Inputs and targets; a pure function of the seed and the arguments."""

    def in_order(self, split: str, size: int) -> Iterator[Batch]:
        """The whole split once, in batches of one shape; the last is filled up with ignored targets."""
