"""Choose device, precision, threads and compilation; seed dropout; explain out-of-memory errors."""

import math
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from configs.errors import UserError
from configs.schema import TrainConfig
from data.seeds import seed_for
from training.run import Hardware

TINY = 100_000  # parameters; below this a second thread costs more than it saves
# Parameters above which bfloat16 speeds up a step, by processor feature. With AMX it took 0.98 of float32's time at
# 0.4 million, 0.81 at 0.8, 0.59 at 1.8 and 0.42 at 10.7; the others (the last is ARM's) are not measured.
LARGE = {"amx_bf16": 500_000, "avx512_bf16": 1_500_000, "bf16": 1_500_000}
REPAID = 2_000  # steps after which torch.compile has repaid its minute of compiling on a GPU


def hardware() -> Hardware:
    gpu = "Apple" if torch.backends.mps.is_available() else None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else gpu
    return Hardware(processor=processor(), cores=os.cpu_count() or 1, gpu=gpu)


def processor() -> str:
    """The processor's name, or at least its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    with suppress(OSError, subprocess.SubprocessError):  # a Mac
        words = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(words, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return platform.processor() or platform.machine()


def is_available(device: str) -> bool:
    kind, _, index = device.partition(":")
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    return there.get(kind, lambda: False)() and (not index or int(index) < torch.cuda.device_count())


def choose_device(asked: str) -> str:
    """`auto` becomes cuda, else mps, else cpu. Raises UserError if the device is not available."""
    if asked == "auto":
        return next(filter(is_available, ("cuda", "mps", "cpu")))
    if not is_available(asked):
        raise UserError(f"train.device: {asked} is not available; use {choose_device('auto')}")
    return asked


def choose_dtype(asked: str, device: str, parameters: int) -> str:
    """`auto` is bfloat16 where it is faster (by GPU, or by processor and network size), else float32."""
    if asked != "auto":
        return asked
    if device.startswith("cuda"):
        gains = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        gains = device == "cpu" and parameters >= large()
    return "bfloat16" if gains else "float32"


def large() -> float:
    """Parameters above which bfloat16 is faster on this processor; infinite without hardware support."""
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return min((border for name, border in LARGE.items() if has.get(name)), default=math.inf)


def choose_compile(asked: str, device: str, steps: int) -> str:
    """`auto` compiles runs of at least REPAID steps on GPUs that support it (capability 7.0 and up)."""
    if asked == "auto":
        able = device.startswith("cuda") and torch.cuda.get_device_capability(device) >= (7, 0)
        return "on" if able and steps >= REPAID else "off"
    return asked


def choose_threads(asked: str | int, parameters: int) -> int:
    """`auto` is one thread for a tiny network, else all cores."""
    if isinstance(asked, int):
        return asked
    return 1 if parameters < TINY else torch.get_num_threads()


def seed_dropout(seed: int, number: int, device: str) -> None:
    """Make the dropout of a batch a function of the seed and the batch's number."""
    # torch.manual_seed seeds all devices; on a CPU it would also queue each seed for GPUs that are never used.
    seeded = torch.default_generator.manual_seed if device == "cpu" else torch.manual_seed
    seeded(seed_for(seed, "dropout", number))


@contextmanager
def memory_explained(train: TrainConfig) -> Iterator[None]:
    """Turn out-of-memory errors into a UserError with flags for the same steps in less memory; --resume accepts them.

    batch_size x accumulate stays the same: 9 x 1 becomes 3 x 3.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)):
            raise
        size, count = train.batch_size, train.accumulate
        parts = next((n for n in range(2, size + 1) if size % n == 0), 0)
        less = f"--train.batch_size {size // parts} --train.accumulate {parts * count}" if parts else ""
        way = f"the same steps in less memory: {less}" if less else "use a smaller model.n_embd or n_layer"
        raise UserError(f"out of memory; {way}", 1) from error
