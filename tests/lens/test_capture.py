"""What is captured is what the network computes: as Hugging Face's network says it, and as its own modules do."""

import pytest
import torch
from torch import Tensor

from configs.schema import LoRAConfig
from lens import capture as lens
from lens.logits import logit_lens, read_out, surprise
from model import GPT, GPTConfig
from model.attention import attention_pattern
from model.generate import window_start
from model.lora import LoRALinear, add_lora
from model.quantize import quantize
from tests.huggingface import SIZES, drawn, pair, texts

SMALL = {"n_layer": 2, "n_head": 4, "n_embd": 32, "vocab_size": 50, "context_length": 16}


def with_adapters() -> GPT:
    """A GPT whose matrices have adapters that change what they say."""
    model = GPT(GPTConfig(**SMALL))
    add_lora(model, LoRAConfig(rank=4))
    return drawn(model)


KINDS = {
    "pre-norm": lambda: drawn(GPT(GPTConfig(**SMALL))),
    "rotary": lambda: drawn(GPT(GPTConfig(**SMALL, position="rotary"))),
    "post-norm": lambda: drawn(GPT(GPTConfig(**SMALL, norm="post"))),
    "no biases, untied": lambda: drawn(GPT(GPTConfig(**SMALL, bias=False, tied=False))),
    "dropout": lambda: drawn(GPT(GPTConfig(**SMALL, dropout=0.5))).train(),
    "adapters": with_adapters,
    "int8": lambda: quantize(drawn(GPT(GPTConfig(**SMALL)))),
}


@pytest.mark.parametrize("size", SIZES)
def test_patterns_and_vectors_are_those_that_hugging_face_returns(size):
    model, theirs = pair(**size)
    theirs.set_attn_implementation("eager")
    tokens = texts(model, 2, model.config.context_length)
    with torch.inference_mode():
        expected = theirs(tokens, output_attentions=True, output_hidden_states=True)
    seen = lens.capture(model, tokens)
    *inner, _ = expected.hidden_states  # theirs apply the last norm to the last one
    for ours, vectors in zip(seen.stream, inner, strict=False):
        torch.testing.assert_close(ours, vectors, atol=2e-5, rtol=1e-4)
    for block, layer, attentions in zip(model.blocks, seen.layers, expected.attentions, strict=True):
        pattern = lens.attention(block.attention, layer.attention_in).pattern
        torch.testing.assert_close(pattern, attentions, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen.logits, expected.logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_heads_add_up_to_what_the_attention_module_says(kind):
    model = KINDS[kind]()
    tokens = texts(model, 2, 16)
    exact = {"atol": 2e-3, "rtol": 1e-3} if kind == "int8" else {"atol": 1e-5, "rtol": 1e-5}
    for block, layer in zip(model.blocks, lens.capture(model, tokens).layers, strict=True):
        bias = 0 if block.attention.out.bias is None else block.attention.out.bias.detach()
        total = lens.head_outputs(block.attention, layer.attention_in).sum(dim=1) + bias
        torch.testing.assert_close(total, layer.attention_out, **exact)


@pytest.mark.parametrize("kind", KINDS)
def test_capturing_changes_nothing_and_leaves_nothing_behind(kind):
    model = KINDS[kind]()
    tokens, training = texts(model, 2, 16), model.training
    seen = lens.capture(model, tokens)
    assert model.training == training
    assert not any(module._forward_hooks for module in model.modules())
    with torch.inference_mode():
        torch.testing.assert_close(seen.logits, model.eval()(tokens), atol=0, rtol=0)


@pytest.mark.parametrize("kind", ["pre-norm", "adapters"])
def test_the_stream_is_the_sum_of_all_that_was_added(kind):
    model = KINDS[kind]()
    seen = lens.capture(model, texts(model, 2, 16))
    for before, layer, after in zip(seen.stream, seen.layers, seen.stream[1:], strict=False):
        torch.testing.assert_close(before + layer.attention_out + layer.mlp_out, after)


@pytest.mark.parametrize("kind", KINDS)
def test_an_mlp_adds_its_columns_times_its_neurons(kind):
    model = KINDS[kind]()
    exact = {"atol": 5e-3, "rtol": 1e-2} if kind == "int8" else {"atol": 1e-4, "rtol": 1e-4}
    for block, layer in zip(model.blocks, lens.capture(model, texts(model, 2, 16)).layers, strict=True):
        down = block.mlp.layers[1]
        added = layer.neurons @ lens.matrix(down).mT + (0 if down.bias is None else down.bias.detach())
        torch.testing.assert_close(added, layer.mlp_out, **exact)


def test_the_four_stages_follow_from_one_another():
    model = KINDS["pre-norm"]()
    block, layer = model.blocks[1], lens.capture(model, texts(model, 1, 9)).layers[1]
    module, x = block.attention, layer.attention_in
    stages = lens.attention(module, x)
    q, k, v = (module.split(part(x)).detach() for part in (module.query, module.key, module.value))
    future = torch.ones(9, 9, dtype=torch.bool).triu(1)
    torch.testing.assert_close(stages.scores, q @ k.mT / 8**0.5)
    assert (stages.masked[..., future] == -torch.inf).all()
    torch.testing.assert_close(stages.masked[..., ~future], stages.scores[..., ~future])
    torch.testing.assert_close(stages.pattern, attention_pattern(q, k))
    for head in range(4):  # W_O's columns of this head times the value, one vector at a time
        columns = module.out.weight[:, 8 * head : 8 * head + 8].detach()
        lengths = torch.stack([(columns @ vector).norm() for vector in v[0, head]])
        torch.testing.assert_close(stages.weighted[0, head], stages.pattern[0, head] * lengths)


def test_the_matrix_of_any_layer_is_what_it_multiplies_by():
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    for kind in ("pre-norm", "adapters", "int8"):
        layer = KINDS[kind]().blocks[0].attention.query
        assert kind != "adapters" or isinstance(layer, LoRALinear)
        assert not lens.matrix(layer).requires_grad
        torch.testing.assert_close(
            x @ lens.matrix(layer).mT + layer.bias.detach(), layer(x).detach(), atol=2e-2, rtol=1e-3
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_row_of_the_logit_lens_is_the_models_own_answer(kind):
    model = KINDS[kind]()
    tokens = texts(model, 1, 16)
    seen = logit_lens(model, lens.capture(model, tokens))
    with torch.inference_mode():
        expected = model.eval()(tokens)[0].softmax(dim=-1)
    assert seen.tokens.shape == (3, 16)
    assert torch.equal(seen.tokens[-1], expected.argmax(dim=-1))
    torch.testing.assert_close(seen.probabilities[-1], expected.amax(dim=-1))


@pytest.mark.parametrize("at_once", [7, 16, 512])
def test_each_row_of_the_logit_lens_is_the_network_cut_off_there(monkeypatch, at_once):
    monkeypatch.setattr("lens.logits.AT_ONCE", at_once)
    model = KINDS["pre-norm"]()
    tokens = texts(model, 1, 16)
    seen, blocks = logit_lens(model, lens.capture(model, tokens)), list(model.blocks)
    for depth in range(3):
        model.blocks = torch.nn.ModuleList(blocks[:depth])
        with torch.inference_mode():
            assert torch.equal(seen.tokens[depth], model(tokens)[0].argmax(dim=-1))
    assert read_out(model, torch.zeros(2, 32)).shape == (2, 50)


def one_at_a_time(model: GPT, tokens: list[int]) -> list[float]:
    """-log2 p of each token after the first, each in a forward pass of its own."""
    bits = []
    for place in range(1, len(tokens)):
        start = window_start(place, model.config.context_length)
        logits = model.next_logits(torch.tensor([tokens[start:place]]))[0]
        bits.append(float(-logits.double().softmax(dim=-1)[tokens[place]].log2()))
    return bits


@pytest.mark.parametrize("length", [2, 15, 16, 17, 18, 50])
def test_surprise_is_minus_log2_p_of_what_came_in_the_window_that_sampling_sees(length):
    model = KINDS["pre-norm"]()
    tokens = texts(model, 1, length)[0].tolist()
    bits: Tensor = surprise(model, tokens)
    assert bits[0].isnan() and len(bits) == length
    with torch.inference_mode():
        expected = torch.tensor(one_at_a_time(model, tokens))
    torch.testing.assert_close(bits[1:], expected, atol=1e-4, rtol=1e-4)
