"""Non-finite losses and loss spikes, reported where they first appear."""

from collections import deque

from torch import nn

from configs.errors import UserError
from training.report import say
from training.run import NOT_FINITE

RECENT = 100  # steps whose losses a new one is compared with
ENOUGH = 20  # losses needed before the first comparison
JUMP = 2.0  # a loss above this times the highest recent one is a spike


def not_finite(step: int, loss: float, length: float, model: nn.Module) -> UserError:
    """The error (exit code 3) for a step whose loss or gradient norm is not finite."""
    gradients = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    bad = [name for name, gradient in gradients if not gradient.isfinite().all()]
    where = f" (first non-finite gradient: {bad[0]})" if bad else ""
    return UserError(
        f"step {step}: loss {loss}, gradient norm {length}{where}. No weight was changed and the last "
        f"checkpoint is valid; try a lower --optim.lr, or --optim.grad_clip 1", NOT_FINITE
    )  # fmt: skip


class Spikes:
    """Keeps the recent losses and warns of a spike; starts empty with --resume, as it only warns."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=RECENT)

    def __call__(self, step: int, loss: float, accumulate: int) -> None:
        """Add this step's loss; if it is a spike, warn and name the step's batches."""
        highest = max(self.recent) if len(self.recent) >= ENOUGH else float("inf")
        self.recent.append(loss)
        if loss <= JUMP * highest:
            return
        first, last = step * accumulate, (step + 1) * accumulate - 1
        batches = f"batch {first}" if first == last else f"batches {first} to {last}"
        say(
            f"warning: step {step}: loss spike: {loss:.4g} on {batches} "
            f"(highest of the last {len(self.recent) - 1} steps: {highest:.4g})"
        )
