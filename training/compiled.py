"""torch.compile with a private cache folder; if compiling fails, training continues without it after one warning."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from training.report import say


def compiled(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The module, compiled at its first call, or uncompiled if that fails, for example without a C compiler."""
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
    """The folder of compiled code, private because torch unpickles the files in it."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pellucid", "compiled")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


@cache
def give_up(reason: str) -> None:
    """Warn, once, that training continues uncompiled."""
    say(f"warning: torch.compile failed ({reason}); continuing without it (slower)")
