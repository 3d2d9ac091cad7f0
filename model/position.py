"""Places without parameters, for networks that don't learn a vector for each: waves that are added, or a rotation."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def angles(places: Int[Tensor, "T"], size: int) -> Float[Tensor, "T half"]:
    """How far each pair of `size` numbers has turned at each place: a radian a place for the first, ever less after."""
    return places.unsqueeze(-1) * 10_000.0 ** (-torch.arange(0, size, 2) / size)


class SinusoidalPosition(nn.Module):
    """Positions as waves of falling frequency, nothing to learn (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, context_length: int, n_embd: int) -> None:
        super().__init__()
        angle = angles(torch.arange(context_length), n_embd)
        self.register_buffer("waves", torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1), persistent=False)

    def forward(self, position: Int[Tensor, "T"]) -> Float[Tensor, "T C"]:
        return self.get_buffer("waves")[position]


class NoPosition(nn.Module):
    """Nothing is added: the heads see to it."""

    def __init__(self, context_length: int, n_embd: int) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(1, n_embd), persistent=False)

    def forward(self, position: Int[Tensor, "T"]) -> Float[Tensor, "T C"]:
        return self.get_buffer("nothing").expand(len(position), -1)


class Rotation(nn.Module):
    """Turns queries and keys by angles that grow with the place (Su et al. 2021, RoFormer).

    A number and the one half a head further on are the two coordinates that are turned. A dot product of two turned
    vectors depends on how far apart they are and not on where, so what is learned at one place is known at all.
    """

    def __init__(self, context_length: int, size: int) -> None:
        super().__init__()
        angle = angles(torch.arange(context_length), size)
        self.register_buffer("cos", torch.cat((angle.cos(), angle.cos()), dim=-1), persistent=False)
        self.register_buffer("sin", torch.cat((-angle.sin(), angle.sin()), dim=-1), persistent=False)

    def at(self, places: slice | Int[Tensor, "*any"], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The turn that belongs to these places, for vectors (..., D) of this type at each of them."""
        cos, sin = (self.get_buffer(name)[places].to(dtype) for name in ("cos", "sin"))
        return lambda x: torch.addcmul(x * cos, x.roll(x.size(-1) // 2, dims=-1), sin)

    def forward(self, x: Float[Tensor, "B H T D"]) -> Float[Tensor, "B H T D"]:
        return self.at(slice(x.size(-2)), x.dtype)(x)


ADDED = {"sinusoidal": SinusoidalPosition, "rotary": NoPosition}
