"""Dropout with a fast random mask on CPUs."""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Zeroes each activation with probability p in training and scales up the rest to keep the mean (Hinton 2012).

    torch's takes 9 ns per activation on a CPU, up to a third of a bfloat16 step. Here 64 random bits serve four
    activations; p is rounded down to a multiple of 1/65,536, and the scale uses the rounded p.
    """

    def forward(self, input: Tensor) -> Tensor:
        dropped, count = int(self.p * 2**16), input.numel()
        compiling = (
            torch.compiler.is_compiling()
        )  # the compiler fuses its own dropout, and random_ would break the graph
        if compiling or not (self.training and input.is_cpu and 0 < dropped < 2**16):
            return super().forward(input)
        draws = torch.empty((count + 3) // 4, dtype=torch.int64, device=input.device).random_(-(2**63), 2**63 - 1)
        kept = draws.view(torch.int16)[:count].view(input.shape) >= dropped - 2**15
        return input * kept.to(input.dtype).mul_(2**16 / (2**16 - dropped))
