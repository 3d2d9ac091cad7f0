"""Page API of a digit network: its weights at each checkpoint, from which the page computes activations."""

import base64
from collections.abc import Callable
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from configs.errors import UserError
from configs.schema import MLPConfig, Settings
from lens.answers.pack import Answer, Answers, Question, Tallies, packed
from model import MLP

EXPORTED = 3_500_000  # bytes of weights in an exported page, at most; one checkpoint is always included


class AtStep(Settings):
    step: Annotated[int, Field(ge=0)]


class DigitAnswers(Answers):
    """A digit network at each of its checkpoints."""

    def __init__(
        self,
        config: MLPConfig,
        at: Callable[[int], MLP],
        steps: list[int],
        best: int,
        reading: str,
        specimens: Float[Tensor, "B 784"],
        answers: list[int],
        name: str,
        tallies: Tallies,
    ) -> None:
        """`at` loads the network of a step; `best` is the step shown first; `reading` is the output activation, softmax
        or sigmoid; `specimens` are test images and `answers` their labels."""
        self.config, self.at, self.steps, self.best = config, at, steps, best
        self.reading, self.specimens, self.answers = reading, specimens, answers
        self.name, self.tallies = name, tallies

    @property
    def questions(self) -> dict[str, Question]:
        return {"network": Question(AtStep, self.network)}

    def about(self) -> Answer:
        grey = (self.specimens * 255).round().byte().numpy().tobytes()
        return {
            "kind": "digits",
            "name": self.name,
            "sizes": self.config.sizes,
            "activation": self.config.activation,
            "reading": self.reading,
            "steps": self.steps,
            "best": self.best,
            "answers": self.answers,
            "specimens": base64.b64encode(grey).decode(),
            "tallies": self.tallies,
        }

    def network(self, asked: AtStep) -> Answer:
        """Weights and biases of each layer; a weight matrix has one row per neuron of the next layer."""
        if asked.step not in self.steps:
            raise UserError(f"checkpoint not found: step {asked.step}")
        layers = self.at(asked.step).layers
        return {"layers": [{"weights": packed(layer.weight), "biases": packed(layer.bias)} for layer in layers]}

    def told(self) -> Answer:
        size = sum(total for *_, total in self.tallies["exact"]) * 16 // 3  # four bytes each, as base64
        kept = spread(self.steps, max(1, EXPORTED // size), self.best)
        about = {**self.about(), "steps": kept}
        return {"about": about, "network": {step: self.network(AtStep(step=step)) for step in kept}}


def spread(steps: list[int], count: int, best: int) -> list[int]:
    """At most `count` of the steps, evenly spaced and including the best."""
    if len(steps) <= count:
        return steps
    indices = {round(i * (len(steps) - 1) / max(1, count - 2)) for i in range(count - 1)} if count > 1 else set()
    return sorted({steps[i] for i in indices} | {best})
