"""int8 weights, a quarter the size of float32: sampling speed is limited by reading the weights from memory.

Each row of a matrix becomes integers from -127 to 127 and one scale, as in Dettmers et al. 2022, "LLM.int8()".
Activations keep their precision (weight-only), so no row of x affects another's result.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor, nn
from torch.nn import functional as F

from model.gpt import GPT

Product = Callable[[Float[Tensor, "R K"]], Float[Tensor, "R N"]]


def quantize_rows(weight: Float[Tensor, "N K"]) -> tuple[Int8[Tensor, "N K"], Float[Tensor, "N"]]:
    """Integers and a scale for each row; their product differs from the weight by at most half the scale."""
    scale = weight.abs().amax(dim=-1).clamp_min(1e-30) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


class QuantizedLinear(nn.Module):
    """x W^T + b with W in int8. Its weights are final: the first call packs them for the processor."""

    def __init__(self, weight: Int8[Tensor, "N K"], scale: Float[Tensor, "N"], bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.product: Product | None = None

    def forward(self, x: Float[Tensor, "... K"]) -> Float[Tensor, "... N"]:
        if self.product is None:
            self.product = product_of(self.weight, self.scale)
        y = self.product(x.flatten(0, -2)).view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias

    @classmethod
    def joined(cls, linears: Sequence["QuantizedLinear"]) -> "QuantizedLinear":
        """One layer for several with the same input; their outputs are concatenated."""
        bias = None if linears[0].bias is None else torch.cat([linear.bias for linear in linears])
        return cls(torch.cat([x.weight for x in linears]), torch.cat([x.scale for x in linears]), bias)


class QuantizedEmbedding(nn.Module):
    """An embedding with int8 rows."""

    def __init__(self, weight: Int8[Tensor, "V C"], scale: Float[Tensor, "V"]) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)

    def forward(self, tokens: Int[Tensor, "..."]) -> Float[Tensor, "... C"]:
        return self.weight[tokens] * self.scale[tokens].unsqueeze(-1)


@torch.no_grad()
def quantize(model: GPT) -> GPT:
    """Convert every matrix of the model to int8, in place; positions, biases and norms keep their precision.

    A tied matrix stays tied. Raises ValueError for a layer with an adapter: merge it first.
    """
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Linear):
                if type(layer).forward is not nn.Linear.forward:
                    raise ValueError(f"{name} has an adapter; merge it before quantizing")
                setattr(parent, name, QuantizedLinear(*quantize_rows(layer.weight), layer.bias))
    model.embedding.token = QuantizedEmbedding(*quantize_rows(model.embedding.token.weight))
    if model.config.tied:
        model.unembedding.weight, model.unembedding.scale = model.embedding.token.weight, model.embedding.token.scale
    return model


def product_of(weight: Int8[Tensor, "N K"], scale: Float[Tensor, "N"]) -> Product:
    """x -> x W^T by the fastest kernel available on the processor.

    Milliseconds for all matrices of GPT-2 small on one thread of an AVX2 processor, by rows of x:

    | rows | float32 | digits | bfloat16 |
    |------|---------|--------|----------|
    | 1    | 33      | 15     | 19       |
    | 16   | 110     | 60     | 107      |

    PyTorch plans to remove the kernel that `digits` uses; without it, x86 processors use `bfloat16` too.
    """
    if weight.device.type != "cpu":
        return dequantized(weight, scale)
    if "fbgemm" in torch.backends.quantized.supported_engines and hasattr(torch.ops.quantized, "linear_dynamic"):
        return digits(weight, scale)
    return bfloat16(weight, scale)


BASE, TOP = 124, 63


def digits(weight: Int8[Tensor, "N K"], scale: Float[Tensor, "N"]) -> Product:
    """Exact integer products (FBGEMM), with x written as two digits: x = (high + low / 124) / units.

    The kernel quantizes x itself, to seven bits (with eight, sums of two products overflow on AVX2) and with one scale
    for all rows. Two extra rows, of the smallest and the largest digit, force that scale to 1; the second digit extends
    seven bits to fourteen at little cost, because the time goes into reading the weights.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the removal of quantized tensors
        zero = torch.zeros(len(weight), dtype=torch.long)
        quantized = torch._make_per_channel_quantized_tensor(weight, scale.double(), zero, 0)
        packed = torch.ops.quantized.linear_prepack(quantized, None)
    limits = torch.tensor([[-TOP - 1.0], [TOP]]).expand(2, weight.size(1))

    multiply = torch.ops.quantized.linear_dynamic.default

    def product(x: Tensor) -> Tensor:
        R = x.size(0)
        units = TOP / x.abs().amax(dim=-1, keepdim=True).clamp_min_(1e-30)
        scaled = x * units
        high = scaled.round()
        y = multiply(torch.cat((high, BASE * (scaled - high), limits)), packed, True)
        return torch.add(y[:R], y[R : 2 * R], alpha=1 / BASE).div_(units)

    return product


def bfloat16(weight: Int8[Tensor, "N K"], scale: Float[Tensor, "N"]) -> Product:
    """PyTorch's weight-only kernel, which is fast only for bfloat16 activations."""
    rounded = scale.bfloat16()
    return lambda x: torch.ops.aten._weight_int8pack_mm(x.bfloat16(), weight, rounded).to(x.dtype)


def dequantized(weight: Int8[Tensor, "N K"], scale: Float[Tensor, "N"]) -> Product:
    """The definition; it saves memory, not time."""
    return lambda x: F.linear(x, weight.to(x.dtype)) * scale.to(x.dtype)
