"""Where and how numbers are computed: device, precision, threads, compilation, and dropout's random state."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from configs.errors import UserError
from configs.schema import TrainConfig
from data.seeds import seed_for

TINY = 100_000  # parameters; below, a second thread costs more than it gives
# Parameters from where a step gains by bfloat16, by what a processor has for it. With AMX it took 0.98 of float32's
# time at 0.4 million, 0.81 at 0.8, 0.59 at 1.8 and 0.42 at 10.7; the others, the last is ARM's, are not measured.
LARGE = {"amx_bf16": 500_000, "avx512_bf16": 1_500_000, "bf16": 1_500_000}
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
        gains = device == "cpu" and parameters >= large()
    return "bfloat16" if gains else "float32"


def large() -> float:
    """Parameters from where this processor gains by bfloat16; one without it is several times slower in it."""
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return min((border for name, border in LARGE.items() if has.get(name)), default=math.inf)


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
