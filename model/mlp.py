"""The plain neural network: layers of neurons, each a squashed weighted sum of the layer before.

One class is both the digit network of the first lessons, `MLP([784, 16, 16, 10])`, and the second half of
every transformer block, `MLP([C, 4 * C, C], "gelu_tanh")`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": F.sigmoid,
    "relu": F.relu,
    "tanh": F.tanh,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class MLP(nn.Module):
    """a' = activation(W a + b), layer after layer (lesson: "But what is a neural network?").

    `sizes` are the neurons in each layer, the input first; W has a row for each neuron of the next layer.
    The last layer has no activation: the loss applies softmax or sigmoid. Dropout acts on hidden
    activations. Raises KeyError for an activation that is not in ACTIVATIONS.
    """

    def __init__(
        self, sizes: Sequence[int], activation: str = "sigmoid", dropout: float = 0.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out, bias) for n_in, n_out in pairwise(sizes))
        self.activation = ACTIVATIONS[activation]
        self.dropout = nn.Dropout(dropout)

    def forward(self, a: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        *hidden, last = self.layers
        for layer in hidden:
            a = self.dropout(self.activation(layer(a)))
        return last(a)
