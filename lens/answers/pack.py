"""How the page is told: a network as its answers to a few questions, each JSON in and JSON out, numbers as float32."""

import base64
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from configs.schema import Settings

Answer = dict[str, Any]
Tallies = dict[str, list[tuple[str, str, int]]]
"""all parameters as "exact" and as the "lessons" count them: rows of name, product spelled out, total"""


class Question(NamedTuple):
    """Something that the page may ask."""

    asked: type[Settings]
    """what it has to say, within bounds"""
    answer: Callable[[Any], Answer]
    """raises UserError for what can't be answered"""


class Answers(ABC):
    """A network, as the page sees it."""

    name: str
    """of the run, for people"""
    tallies: Tallies

    @abstractmethod
    def about(self) -> Answer:
        """What the page is built from."""

    @property
    @abstractmethod
    def questions(self) -> dict[str, Question]:
        """By name."""

    @abstractmethod
    def told(self) -> Answer:
        """`about`, and all that a page without a server can ask, by question and what it says."""


def packed(numbers: Tensor) -> Answer:
    """A tensor's shape and its numbers: float32, little-endian, base64."""
    content = numbers.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4").tobytes()
    return {"shape": list(numbers.shape), "f32": base64.b64encode(content).decode()}
