"""Base classes for the page's API: a network answers named requests, JSON in and JSON out, tensors as float32."""

import base64
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from configs.schema import Settings

Answer = dict[str, Any]
Tallies = dict[str, list[tuple[str, str, int]]]
"""parameter counts, "exact" and as in the "lessons": rows of (name, product, total)"""


class Question(NamedTuple):
    """One request of the page's API."""

    asked: type[Settings]
    """schema of the request body"""
    answer: Callable[[Any], Answer]
    """raises UserError for invalid values"""


class Answers(ABC):
    """A network as the page sees it."""

    name: str
    """of the run, as displayed"""
    tallies: Tallies

    @abstractmethod
    def about(self) -> Answer:
        """What the page needs to start: sizes, vocabulary, parameter counts."""

    @property
    @abstractmethod
    def questions(self) -> dict[str, Question]:
        """The API requests by name."""

    @abstractmethod
    def told(self) -> Answer:
        """Data for an exported page: `about`, and the precomputed answer to each request."""


def packed(values: Tensor) -> Answer:
    """A tensor as JSON: its shape and its values (float32, little-endian, base64)."""
    content = values.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4").tobytes()
    return {"shape": list(values.shape), "f32": base64.b64encode(content).decode()}
