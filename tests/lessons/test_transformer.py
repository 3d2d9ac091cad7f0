"""The transformer: attention and MLP in turn, the vectors that flow through them, and all parameters counted."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lens.capture import capture
from lens.logits import logit_lens
from model import GPT, MLP, GPTConfig
from model.gpt import Block
from tests.lessons.helpers_b import drawn, small, small_gpt, vectors

PYTORCHS_NAMES = {
    "mlp.layers.0": "linear1",
    "mlp.layers.1": "linear2",
    "attention.out": "self_attn.out_proj",
    "blocks": "layers",
    "norm_": "norm",
}
GPT3 = {"n_layer": 96, "n_head": 96, "n_embd": 12_288, "context_length": 2_048}


def sizes(**settings: Any) -> dict[str, int]:
    """How many numbers each parameter of a GPT holds; on the meta device, so that the largest takes no memory."""
    with torch.device("meta"):
        return {name: p.numel() for name, p in GPT(GPTConfig(**settings)).named_parameters()}


def agrees_with_pytorch(model: GPT) -> None:
    """All between embedding and unembedding gives what PyTorch's own transformer gives with the same weights."""
    L, C, pre = model.config.n_layer, model.config.n_embd, model.config.norm == "pre"
    layer = nn.TransformerEncoderLayer(C, 3, 4 * C, 0.0, "gelu", batch_first=True, norm_first=pre)
    end = nn.LayerNorm(C) if pre else None
    encoder = nn.TransformerEncoder(layer, L, end, enable_nested_tensor=False).double().eval()
    state = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in PYTORCHS_NAMES.items():
            name = name.replace(ours, theirs)
        state[name] = tensor
    for place in (f"layers.{n}." for n in range(L)):
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{place}attention.{part}.{kind}") for part in ("query", "key", "value")]
            state[f"{place}self_attn.in_proj_{kind}"] = torch.cat(parts)
    encoder.load_state_dict({name: tensor for name, tensor in state.items() if "embedding" not in name})
    text = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    future = torch.full((5, 5), -torch.inf, dtype=torch.float64).triu(1)
    torch.testing.assert_close(model.vectors(text), encoder(model.embedding(text), mask=future))


def disturbed(x: Tensor, place: int) -> Tensor:
    """The same vectors but for one."""
    other = x.clone()
    other[:, place] += vectors(x.size(-1), seed=5)
    return other


def changes(before: Tensor, after: Tensor) -> list[int]:
    """The places at which two results differ, be it in the last bit."""
    return (before != after).any(dim=-1)[0].nonzero().flatten().tolist()


def test_L78_in_the_mlp_no_vector_talks_to_another():
    """How LLMs store facts: each vector goes through the MLP on its own."""
    mlp, x = drawn(Block(small())).mlp, vectors(1, 6, 12)
    assert changes(mlp(x), mlp(disturbed(x, 2))) == [2]


def test_L78_in_attention_vectors_talk_to_those_after_them():
    """How LLMs store facts: attention is where information passes between vectors, and only to later ones."""
    attention, x = drawn(Block(small())).attention, vectors(1, 6, 12)
    assert changes(attention(x), attention(disturbed(x, 2))) == [2, 3, 4, 5]


def test_L79_layers_follow_one_another_each_with_its_own_weights():
    """What is a GPT?: attention, MLP, attention, MLP, ..., then the unembedding."""
    model, text = small_gpt(n_layer=3), torch.tensor([[3, 1, 4, 1, 5]])
    x = model.embedding(text)
    for block in model.blocks:
        x = block(x)
    torch.testing.assert_close(model(text), model.unembedding(model.norm(x)))
    one, two, three = model.blocks
    assert (model(text) - model.unembedding(model.norm(one(three(two(model.embedding(text))))))).abs().max() > 0.01


@pytest.mark.parametrize("idle", [0, 1, 2])
def test_L79_every_layer_can_be_read_as_a_prediction(idle: int):
    """What is a GPT?: all layers share one vector space; if a layer adds nothing, the prediction stays."""
    model, text = small_gpt(n_layer=3), torch.tensor([[3, 1, 4, 1, 5]])
    for name, parameter in model.blocks[idle].named_parameters():
        if name.startswith(("attention.out", "mlp.layers.1")):
            nn.init.zeros_(parameter)
    found = logit_lens(model, capture(model, text))
    assert found.tokens.shape == found.probabilities.shape == (4, 5)  # before the first layer, then after each
    x = model.embedding(text)
    for depth in range(4):
        guess = model.unembedding(model.norm(x)).softmax(dim=-1).max(dim=-1)
        assert torch.equal(found.tokens[depth], guess.indices[0])
        torch.testing.assert_close(found.probabilities[depth], guess.values[0])
        x = model.blocks[depth](x) if depth < 3 else x
    for depth in range(3):
        stays = torch.allclose(found.probabilities[depth], found.probabilities[depth + 1])
        assert stays is (depth == idle)


def test_L81_the_digit_network_has_13_002_parameters():
    """But what is a neural network?: 784 x 16 + 16 x 16 + 16 x 10 weights and 42 biases are 13,002 numbers."""
    numbers = {name: p.numel() for name, p in MLP([784, 16, 16, 10]).named_parameters()}
    assert sum(n for name, n in numbers.items() if name.endswith("weight")) == 12_960
    assert sum(n for name, n in numbers.items() if name.endswith("bias")) == 42
    assert sum(numbers.values()) == 13_002


@pytest.mark.parametrize(
    ("n_layer", "n_head", "n_embd", "total"),
    [
        (12, 12, 768, 124_439_808),
        (24, 16, 1024, 354_823_168),
        (36, 20, 1280, 774_030_080),
        (48, 25, 1600, 1_557_611_200),
    ],
    ids=["small", "medium", "large", "XL"],
)
def test_L81_each_gpt_2_has_exactly_its_parameters(n_layer: int, n_head: int, n_embd: int, total: int):
    """What is a GPT?: a model's size is its parameters, counted matrix by matrix; here GPT-2's four sizes."""
    assert sum(sizes(n_layer=n_layer, n_head=n_head, n_embd=n_embd).values()) == total


def test_L81_gpt_3_has_175_billion_weights_in_eight_kinds_of_matrix():
    """How LLMs store facts: 175,181,291,520 weights, by the lesson's tally of eight kinds of matrix."""
    matrices = {
        "embedding.token": 617_558_016,
        "query": 14_495_514_624,
        "key": 14_495_514_624,
        "value": 14_495_514_624,
        "out": 14_495_514_624,
        "mlp.layers.0": 57_982_058_496,
        "mlp.layers.1": 57_982_058_496,
        "unembedding": 617_558_016,
    }
    counted = sizes(**GPT3, tied=False)
    tally = {kind: sum(n for name, n in counted.items() if name.endswith(f"{kind}.weight")) for kind in matrices}
    assert tally == matrices and sum(tally.values()) == 175_181_291_520


def test_L81_gpt_3_complete_and_tied_has_174_604_259_328_parameters():
    """How LLMs store facts: the exact count includes positions, biases and gains, and ties the unembedding."""
    assert sum(sizes(**GPT3).values()) == 174_604_259_328


@pytest.mark.parametrize("tied", [True, False])
def test_L81_parameters_are_a_formula_of_the_sizes(tied: bool):
    """What is a GPT?: V·C for the tokens, T·C for positions, 12·C² + 13·C per block, 2·C for the last norm."""
    for C, L, V, T in ((12, 2, 11, 8), (24, 5, 31, 16)):
        counted = sizes(n_embd=C, n_layer=L, n_head=3, vocab_size=V, context_length=T, tied=tied)
        assert sum(counted.values()) == (1 if tied else 2) * V * C + T * C + L * (12 * C**2 + 13 * C) + 2 * C


def test_L83_the_mlp_projects_up_to_four_times_the_width_and_down_again():
    """How LLMs store facts: up to four times the width and down again, each projection with a bias."""
    mlp = Block(small()).mlp
    shapes = {name: tuple(p.shape) for name, p in mlp.named_parameters()}
    assert shapes == {
        "layers.0.weight": (48, 12),
        "layers.0.bias": (48,),
        "layers.1.weight": (12, 48),
        "layers.1.bias": (12,),
    }


def gelu_tanh(z: Tensor) -> Tensor:
    """The GELU of GPT-2's code: nearly z times the share of a normal distribution below z."""
    return 0.5 * z * (1 + (math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)).tanh())


@pytest.mark.parametrize(
    ("settings", "bend"),
    [({"activation": "relu"}, lambda z: z * (z > 0)), ({}, gelu_tanh)],
    ids=["relu", "gpt2"],
)
def test_L83_the_mlp_is_linear_activation_linear(settings: dict[str, Any], bend: Callable[[Tensor], Tensor]):
    """How LLMs store facts: linear, ReLU, linear; GPT-2's GELU is a ReLU with a rounded corner."""
    mlp, x = drawn(Block(small(**settings))).mlp, vectors(1, 60, 12) * torch.logspace(-1, 3, 60).double()[:, None]
    up, up_bias, down, down_bias = mlp.parameters()
    assert (x @ up.T + up_bias).min() < -100 and (x @ up.T + up_bias).max() > 100  # bent far out too
    torch.testing.assert_close(mlp(x), bend(x @ up.T + up_bias) @ down.T + down_bias)


def test_L84_rows_ask_questions_and_columns_are_what_is_added():
    """How LLMs store facts: each neuron tests for a row of the first matrix and adds a column of the second."""
    mlp = drawn(Block(small(activation="relu"))).mlp
    up, up_bias, down, down_bias = mlp.parameters()
    for x, clear in ((0.1 * vectors(12), 0.5), (vectors(12), 2), (30 * vectors(12), 60), (-30 * vectors(12), 60)):
        added, answers = down_bias.clone(), []
        for row, bias, column in zip(up, up_bias, down.T, strict=True):
            answers.append((row @ x + bias).item())
            added += max(0.0, answers[-1]) * column
        assert min(answers) < -clear and max(answers) > clear  # some say no, some yes, and as clearly as that
        torch.testing.assert_close(mlp(x[None, None])[0, 0], added)


def test_L95_in_gpt_the_norm_comes_before_each_part():
    """What is a GPT?: x + attention(norm(x)), then x + mlp(norm(x)), and one last norm (pre-LN, as in GPT-2)."""
    agrees_with_pytorch(small_gpt(norm="pre", activation="gelu"))


def test_L95_in_the_first_transformer_the_norm_comes_after_the_sum():
    """What is a GPT?: norm(x + attention(x)), then norm(x + mlp(x)), the order of the original paper (post-LN)."""
    agrees_with_pytorch(small_gpt(norm="post", activation="gelu"))


def test_L97_the_first_vector_is_word_plus_place():
    """What is a GPT?: x₀ = W_E[token] + W_pos[position], in every row of a batch."""
    model, texts = small_gpt(), [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]
    words, places = model.embedding.token.weight, model.get_parameter("embedding.position.weight")
    x = model.embedding(torch.tensor(texts))
    for row, text in enumerate(texts):
        for place, token in enumerate(text):
            torch.testing.assert_close(x[row, place], words[token] + places[place])
