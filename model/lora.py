"""LoRA: freeze the network, and train a product of two thin matrices beside each of its matrices."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from configs.errors import UserError
from configs.schema import LoRAConfig
from model.gpt import GPT

TARGETS = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "out": "attention.out",
    "up": "mlp.layers.0",
    "down": "mlp.layers.1",
}


class LoRALinear(nn.Linear):
    """W x + b + (alpha / rank) B A x, where only A and B are trained (Hu et al. 2021).

    A is (rank, inputs), initialised as PyTorch initialises a layer's weights; B is (outputs, rank) and zero, so that at
    first the layer computes what `base` does. It shares the base's `weight` and `bias`, under the same names.
    Raises UserError for a rank above the smaller side of W: A and B would then have more parameters than W.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base.in_features, base.out_features, device="meta")
        if rank > min(self.weight.shape):
            raise UserError(f"model.lora.rank={rank} exceeds {min(self.weight.shape)}, the smaller side of a matrix")
        self.weight, self.bias = base.weight, base.bias
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)  # U(-1/√n, 1/√n) with n inputs

    def forward(self, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        return super().forward(x) + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer that computes the same: W + (alpha / rank) B A, which overwrites W."""
        plain = nn.Linear(self.in_features, self.out_features, device="meta")
        plain.weight, plain.bias = self.weight, self.bias
        plain.weight += self.scale * self.lora_B @ self.lora_A
        return plain


def add_lora(model: GPT, config: LoRAConfig) -> None:
    """Add an adapter to the targets of every block and freeze everything else. Raises UserError as LoRALinear does.

    Each adapter has rank * (inputs + outputs) trainable parameters.
    """
    model.requires_grad_(False)
    for block in model.blocks:
        for name in (name for target, name in TARGETS.items() if target in config.targets):
            base = block.get_submodule(name)
            assert isinstance(base, nn.Linear)
            block.set_submodule(name, LoRALinear(base, config.rank, config.alpha))


def merge_lora(model: GPT) -> None:
    """Merge all adapters into plain layers, in place; outputs change only by rounding."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear):
            model.set_submodule(name, module.merged())
    model.config = model.config.model_copy(update={"lora": None})
    model.requires_grad_(True)
