"""Numbers that have gone wrong: named where they are first seen, and never kept quiet."""

from collections import deque

from torch import nn

from configs.errors import UserError
from training.report import say
from training.run import NOT_FINITE

RECENT = 100  # steps whose losses a new one is compared with
ENOUGH = 20  # of them, before anything is called unusual
JUMP = 2.0  # times the highest of them: a spike


def not_finite(step: int, loss: float, length: float, model: nn.Module) -> UserError:
    """Why this step was not made, with exit code 3: the first tensor whose gradient is not finite is named."""
    gradients = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    bad = [name for name, gradient in gradients if not gradient.isfinite().all()]
    where = f", first in the gradient of {bad[0]}" if bad else ""
    return UserError(
        f"step {step}: the loss is {loss} and its gradient {length} long{where}; no weight was changed and the last "
        f"checkpoint is good: try a lower --optim.lr, or --optim.grad_clip 1", NOT_FINITE
    )  # fmt: skip


class Spikes:
    """The losses of the last steps; calling it with the next one warns if that is out of all proportion.

    It begins anew with --resume: it only warns, so no run depends on it.
    """

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=RECENT)

    def __call__(self, step: int, loss: float, accumulate: int) -> None:
        """Say which batches this step took, if its loss is a spike."""
        highest = max(self.recent) if len(self.recent) >= ENOUGH else float("inf")
        self.recent.append(loss)
        if loss <= JUMP * highest:
            return
        first, last = step * accumulate, (step + 1) * accumulate - 1
        batches = f"batch {first}" if first == last else f"batches {first} to {last}"
        say(
            f"warning: step {step}: the loss jumped to {loss:.4g} on {batches}; "
            f"none of the {len(self.recent) - 1} steps before was above {highest:.4g}"
        )
