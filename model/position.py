"""Positions without parameters: sinusoids added to the embedding, or rotations of queries and keys (RoPE)."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def angles(positions: Int[Tensor, "T"], size: int) -> Float[Tensor, "T half"]:
    """Angle of each pair of `size` dimensions at each position: for the first pair a radian per position, then less."""
    return positions.unsqueeze(-1) * 10_000.0 ** (-torch.arange(0, size, 2) / size)


class SinusoidalPosition(nn.Module):
    """Adds waves of falling frequency, without parameters (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, context_length: int, n_embd: int) -> None:
        super().__init__()
        angle = angles(torch.arange(context_length), n_embd)
        self.register_buffer("waves", torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1), persistent=False)

    def forward(self, position: Int[Tensor, "T"]) -> Float[Tensor, "T C"]:
        return self.get_buffer("waves")[position]


class NoPosition(nn.Module):
    """Adds nothing, because the heads rotate queries and keys instead."""

    def __init__(self, context_length: int, n_embd: int) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(1, n_embd), persistent=False)

    def forward(self, position: Int[Tensor, "T"]) -> Float[Tensor, "T C"]:
        return self.get_buffer("nothing").expand(len(position), -1)


class Rotation(nn.Module):
    """Rotates queries and keys by angles that grow with the position (Su et al. 2021, RoFormer).

    Dimensions i and i + D / 2 are the coordinates of one rotated pair. A dot product of two rotated vectors depends on
    their distance and not on where they are, so what is learned at one position applies at all.
    """

    def __init__(self, context_length: int, size: int) -> None:
        super().__init__()
        angle = angles(torch.arange(context_length), size)
        self.register_buffer("cos", torch.cat((angle.cos(), angle.cos()), dim=-1), persistent=False)
        self.register_buffer("sin", torch.cat((-angle.sin(), angle.sin()), dim=-1), persistent=False)

    def at(self, positions: slice | Int[Tensor, "*any"], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The rotation at these positions, a function of vectors (..., D) of this dtype, one at each."""
        cos, sin = (self.get_buffer(name)[positions].to(dtype) for name in ("cos", "sin"))
        return lambda x: torch.addcmul(x * cos, x.roll(x.size(-1) // 2, dims=-1), sin)

    def forward(self, x: Float[Tensor, "B H T D"]) -> Float[Tensor, "B H T D"]:
        return self.at(slice(x.size(-2)), x.dtype)(x)


ADDED = {"sinusoidal": SinusoidalPosition, "rotary": NoPosition}
