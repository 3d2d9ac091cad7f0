"""Well-known GPUs: how fast they are, how much they hold, and how many of them a network needs."""

import math
from typing import NamedTuple


class GPU(NamedTuple):
    """What its data sheet says: dense bfloat16 (of those without it float16) in TFLOP/s, memory in GB."""

    tflops: float
    gigabytes: int


GPUS = {
    "B200": GPU(2250, 180), "H200": GPU(989, 141), "H100 PCIe": GPU(756, 80), "H100": GPU(989, 80),
    "A100-SXM4-80GB": GPU(312, 80), "A100 80GB": GPU(312, 80), "A100": GPU(312, 40), "L40S": GPU(362, 48),
    "L4": GPU(121, 24), "A10G": GPU(70, 24), "A10": GPU(125, 24), "RTX A6000": GPU(155, 48), "V100": GPU(125, 16),
    "T4": GPU(65, 16), "RTX 5090": GPU(210, 32), "RTX 4090": GPU(165, 24), "RTX 3090": GPU(71, 24),
}  # fmt: skip
LARGEST = max(gpu.gigabytes for gpu in GPUS.values()) * 10**9
GPU_BYTES = 80 * 10**9  # of the GPUs that a network too large for one is shared out to
GPU_SHARE = 0.4  # of its peak that a GPU reaches in training


def gpus_for(peak: int) -> int:
    """How many GPUs hold so many bytes between them, if everything is shared out evenly."""
    return math.ceil(peak / GPU_BYTES)
