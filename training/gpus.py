"""Speed and memory of well-known GPUs, and how many a network needs."""

import math
from typing import NamedTuple


class GPU(NamedTuple):
    """From the data sheet: TFLOP/s in dense bfloat16 (float16 if unsupported), memory in GB."""

    tflops: float
    gigabytes: int


GPUS = {
    "B200": GPU(2250, 180), "H200": GPU(989, 141), "H100 PCIe": GPU(756, 80), "H100": GPU(989, 80),
    "A100-SXM4-80GB": GPU(312, 80), "A100 80GB": GPU(312, 80), "A100": GPU(312, 40), "L40S": GPU(362, 48),
    "L4": GPU(121, 24), "A10G": GPU(70, 24), "A10": GPU(125, 24), "RTX A6000": GPU(155, 48), "V100": GPU(125, 16),
    "T4": GPU(65, 16), "RTX 5090": GPU(210, 32), "RTX 4090": GPU(165, 24), "RTX 3090": GPU(71, 24),
}  # fmt: skip
LARGEST = max(gpu.gigabytes for gpu in GPUS.values()) * 10**9
GPU_BYTES = 80 * 10**9  # per GPU, where several share a network
GPU_SHARE = 0.4  # of a GPU's peak speed that training reaches


def gpus_for(peak: int) -> int:
    """How many GPUs of GPU_BYTES it takes to store `peak` bytes, split evenly."""
    return math.ceil(peak / GPU_BYTES)
