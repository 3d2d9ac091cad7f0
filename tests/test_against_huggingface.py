"""The same weights in Hugging Face's GPT-2 give the same logits: ours is GPT-2, and not merely like it."""

import math
from typing import Any

import pytest
import torch

from model import GPT, GPTConfig
from model.attention import attention_pattern
from model.generate import Sampling, generate
from model.gpt2 import to_gpt2
from tests.huggingface import SIZES, empty_gpt2, pair, texts
from training.checkpoint import model_tensors
from training.loss import cross_entropy


@pytest.mark.parametrize("settings", SIZES, ids=["smallest", "square", "untied", "without biases"])
@torch.inference_mode()
def test_the_same_weights_give_hugging_face_s_logits(settings: dict[str, Any]):
    model, theirs = pair(**settings)
    for tokens in (texts(model, 1, 1), texts(model, 3, 5), texts(model, 2, model.config.context_length)):
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(model.next_logits(tokens), theirs(tokens).logits[:, -1], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_the_vectors_between_the_blocks_are_hugging_face_s():
    model, theirs = pair(**SIZES[1])
    tokens = texts(model, 2, 9)
    *between, last = theirs(tokens, output_hidden_states=True).hidden_states
    x = model.embedding(tokens)
    for block, expected in zip(model.blocks, between, strict=True):
        torch.testing.assert_close(x, expected, rtol=0, atol=1e-5)
        x = block(x)
    torch.testing.assert_close(model.norm(x), last, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_our_pattern_is_the_one_hugging_face_shows():
    """Theirs is computed without a fused kernel, and kept."""
    model, theirs = pair(**SIZES[1])
    theirs.set_attn_implementation("eager")
    tokens = texts(model, 2, 9)
    attention = model.get_submodule("blocks.0.attention")
    x = model.get_submodule("blocks.0.norm_1")(model.embedding(tokens))
    pattern = attention_pattern(attention.split(attention.query(x)), attention.split(attention.key(x)))
    expected = theirs(tokens, output_attentions=True).attentions[0]
    torch.testing.assert_close(pattern, expected, rtol=0, atol=1e-5)


def test_the_likeliest_text_is_hugging_face_s():
    model, theirs = pair(**SIZES[1])
    prompt = texts(model, 1, 4)
    expected = theirs.generate(prompt, max_new_tokens=20, do_sample=False, pad_token_id=0)[0, 4:]
    assert generate(model, prompt[0].tolist(), 20, Sampling(temperature=0)) == expected.tolist()


def test_the_loss_and_its_gradient_are_hugging_face_s():
    model, theirs = pair(**SIZES[1])
    tokens = texts(model, 3, 12)
    ours = cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
    expected = theirs(tokens, labels=tokens).loss
    ours.backward()
    expected.backward()
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    gradient, wanted = model.embedding.token.weight.grad, theirs.transformer.wte.weight.grad
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-5)


def test_first_weights_are_drawn_as_gpt_2_draws_them():
    """N(0, 0.02), divided by √(2 n_layer) for what is added to the residual stream; biases 0, gains 1."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=3, n_head=4, n_embd=128, vocab_size=101, context_length=64))
    state, theirs = to_gpt2(model_tensors(model), model.config), empty_gpt2(model.config).state_dict()
    assert {*state, "lm_head.weight"} == theirs.keys()
    for name, tensor in state.items():
        if tensor.ndim == 1:
            assert torch.equal(tensor, theirs[name]), name
            continue
        std = 0.02 / math.sqrt(2 * 3) if name.endswith("c_proj.weight") else 0.02
        for drawn in (tensor, theirs[name]):
            assert drawn.std().item() == pytest.approx(std, rel=0.03), name
            assert abs(drawn.mean().item()) < 5 * std / math.sqrt(drawn.numel()), name
