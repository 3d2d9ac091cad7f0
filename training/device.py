"""Where and how numbers are computed: device, precision, threads, compilation, and dropout's random state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from configs.errors import UserError
from configs.schema import TrainConfig
from data.seeds import seed_for

TINY = 100_000  # parameters; below, a second thread costs more than it gives
# Parameters; in bfloat16 a step of 0.8 million took 1.12 of float32's time, of 1.8 million 0.64, of 10.7 million 0.42.
LARGE = 1_500_000
REPAID = 2_000  # steps after which torch.compile has earned its minute on a GPU


def choose_device(asked: str) -> str:
    """`auto` becomes cuda, else mps, else cpu. Raises UserError for a device that isn't there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return next(name for name, available in there.items() if available)
    kind, _, index = asked.partition(":")
    if not there[kind] or (index and int(index) >= torch.cuda.device_count()):
        raise UserError(f"train.device: there is no {asked} here; use {choose_device('auto')}")
    return asked


def choose_dtype(asked: str, device: str, parameters: int) -> str:
    """`auto` is bfloat16 where the GPU, or the processor and a large enough network, gain by it; else float32."""
    if asked != "auto":
        return asked
    if device.startswith("cuda"):
        gains = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        gains = device == "cpu" and parameters >= LARGE and processor_has_bf16()
    return "bfloat16" if gains else "float32"


def processor_has_bf16() -> bool:
    """Whether the processor multiplies matrices of bfloat16 itself; torch also emulates it, several times slower."""
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # bf16 is ARM's


def choose_compile(asked: str, device: str, steps: int) -> str:
    """`auto` compiles where the run is long enough to repay it and the GPU can (capability 7.0 and up)."""
    if asked == "auto":
        able = device.startswith("cuda") and torch.cuda.get_device_capability(device) >= (7, 0)
        return "on" if able and steps >= REPAID else "off"
    return asked


def choose_threads(asked: str | int, parameters: int) -> int:
    """`auto` is one for a tiny network, else all cores."""
    if isinstance(asked, int):
        return asked
    return 1 if parameters < TINY else torch.get_num_threads()


def seed_dropout(seed: int, number: int, device: str) -> None:
    """Make the dropout of a batch a function of the seed and the batch's number."""
    # torch.manual_seed seeds all devices; on a CPU it would note down each seed for GPUs that are never used.
    seeded = torch.default_generator.manual_seed if device == "cpu" else torch.manual_seed
    seeded(seed_for(seed, "dropout", number))


@contextmanager
def memory_explained(train: TrainConfig) -> Iterator[None]:
    """Answer a lack of memory with the flags that make the same steps in less of it. Raises UserError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)):
            raise
        half, twice = train.batch_size // 2, 2 * train.accumulate
        less = f"--train.batch_size {half} --train.accumulate {twice}" if half else "a smaller model.n_embd or n_layer"
        raise UserError(f"out of memory; the same steps in half of it: {less}", 1) from error
