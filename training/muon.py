"""Muon: momentum whose every step is made orthogonal, so that no direction in a matrix learns faster than another."""

import math
from collections import defaultdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import Optimizer

# p(x) = a x + b x³ + c x⁵ applied in sequence, on singular values from [0.001, 1]: each p minimises max |1 - p|
# over the interval that the one before maps to (Amsel et al. 2025, "The Polar Express"). All are stretched by 2 %:
# outside its interval p grows fast, and without the margin bfloat16's rounding turned a rank-one matrix into 10^11.
POLYNOMIALS = (
    (8.3042, -23.6599, 16.8731),
    (4.1008, -2.9294, 0.5259),
    (3.8842, -2.7837, 0.5099),
    (3.2222, -2.3225, 0.4596),
)


class Muon(Optimizer):
    """Nesterov momentum, then the nearest orthogonal matrix as the step (Jordan et al. 2024); matrices only.

    All matrices of one shape are taken together, in the precision of the model's own products, divided among the
    processes of the run; torch.optim.Muon, against which this is tested, takes them one by one in bfloat16.
    """

    def __init__(
        self, groups: list[dict[str, Any]], momentum: float, weight_decay: float, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(groups, {"momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: defaultdict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[p.shape].append(p)
            for same in shapes.values():
                self.move(same, **{name: group[name] for name in ("lr", "momentum", "weight_decay")})

    def move(self, same: list[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        """One step for matrices of one shape."""
        gradients = torch.stack([p.grad for p in same if p.grad is not None])
        memory = [self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in same]
        torch._foreach_lerp_(memory, list(gradients), 1 - momentum)
        updates = orthogonal_together(gradients.lerp(torch.stack(memory), momentum).to(self.dtype))
        rows, columns = same[0].shape
        for p, update in zip(same, updates, strict=True):
            p.mul_(1 - lr * weight_decay).add_(update, alpha=-lr * math.sqrt(max(1, rows / columns)))


def orthogonal_together(matrices: Float[Tensor, "N rows columns"]) -> Float[Tensor, "N rows columns"]:
    """`orthogonal`; with several processes, each computes some of the matrices and all get every result."""
    if not (dist.is_available() and dist.is_initialized()):
        return orthogonal(matrices)
    mine = slice(dist.get_rank(), None, dist.get_world_size())
    updates = torch.zeros_like(matrices)
    updates[mine] = orthogonal(matrices[mine])
    dist.all_reduce(updates)  # a sum in which each appears once
    return updates


def orthogonal(matrices: Float[Tensor, "N rows columns"]) -> Float[Tensor, "N rows columns"]:
    """Nearly U Vᵀ for each matrix U S Vᵀ, by Newton and Schulz's iteration: singular values become about 1."""
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for a, b, c in POLYNOMIALS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
