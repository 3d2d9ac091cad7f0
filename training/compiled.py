"""torch.compile, in a folder of the user's own; where it can't be had, one line says so and training goes on."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from training.report import say


def compiled(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The module, compiled when it is first called; itself from then on if that fails, for want of a compiler."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(own_folder()))
    ways: list[Callable[[Tensor], Tensor]] = [module, torch.compile(module)]

    def forward(x: Tensor) -> Tensor:
        try:
            return ways[-1](x)
        except TorchDynamoException as error:
            if len(ways) == 1:
                raise
            ways.pop()
            give_up(str(error).splitlines()[0])
            return ways[-1](x)

    return forward


def own_folder() -> Path:
    """Where compiled code is kept. torch unpickles what lies there, so no one else may write into it."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pellucid", "compiled")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


@cache
def give_up(reason: str) -> None:
    """Say once that it goes on without."""
    say(f"warning: torch.compile can't be used here ({reason}); it goes on without, only slower")
