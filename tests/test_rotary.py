"""Rotary positions: queries and keys are turned by their place, so that attention sees distances."""

import torch
from torch import Tensor

from model import GPT, GPTConfig
from model.position import Rotation

SIZE, LENGTH = 12, 40


def turned(x: Tensor, places: Tensor | None = None) -> Tensor:
    """By a fresh rotation, at 0, 1, 2, ... if no places are named."""
    rotation = Rotation(LENGTH, SIZE)
    return rotation(x) if places is None else rotation.at(places, x.dtype)(x)


def random(*shape: int) -> Tensor:
    """Numbers from N(0, 1), the same every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_a_pair_of_numbers_is_multiplied_by_a_complex_number_of_length_one():
    """x_i + i x_(i + D/2) times exp(i p 10000^(-2i/D)), with the angle in double precision."""
    x = random(2, 3, LENGTH, SIZE)
    first, second = x.double().chunk(2, dim=-1)
    angle = torch.arange(LENGTH).double().outer(10_000 ** (-torch.arange(0, SIZE, 2).double() / SIZE))
    expected = torch.complex(first, second) * torch.polar(torch.ones_like(angle), angle)
    torch.testing.assert_close(turned(x).double(), torch.cat((expected.real, expected.imag), -1), rtol=0, atol=2e-5)


def test_hugging_face_s_llama_turns_alike():
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    q, k = random(2, 1, 3, LENGTH, SIZE)
    config = LlamaConfig(hidden_size=3 * SIZE, num_attention_heads=3, max_position_embeddings=LENGTH)
    angles = LlamaRotaryEmbedding(config)(q, torch.arange(LENGTH)[None])
    for ours, theirs in zip((turned(q), turned(k)), apply_rotary_pos_emb(q, k, *angles), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_dot_product_of_two_turned_vectors_depends_on_their_distance_alone():
    q, k = random(2, 1, 1, 1, SIZE).expand(-1, -1, -1, LENGTH, -1)
    scores = (turned(q) @ turned(k).mT)[0, 0]
    for distance in range(-LENGTH + 1, LENGTH):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=2e-5)
    assert scores[:, 0].std() > 0.1


def test_each_text_may_have_a_place_of_its_own():
    x = random(3, 2, 1, SIZE)
    everywhere = turned(x.expand(-1, -1, LENGTH, -1))
    expected = [everywhere[row : row + 1, :, place : place + 1] for row, place in enumerate((5, 0, 39))]
    torch.testing.assert_close(turned(x, torch.tensor([5, 0, 39]).view(-1, 1, 1)), torch.cat(expected))


def test_the_order_of_the_words_matters_by_nothing_but_the_turning():
    torch.manual_seed(0)
    model = GPT(
        GPTConfig(n_layer=1, n_head=2, n_embd=8, vocab_size=5, context_length=4, position="rotary", init="normal")
    )
    texts = torch.tensor([[1, 2, 3, 4], [3, 2, 1, 4]])
    this, that = model.next_logits(texts)
    assert (this - that).abs().max() > 0.01
    turn = model.blocks[0].attention.turn
    turn.get_buffer("cos").fill_(1)
    turn.get_buffer("sin").fill_(0)
    torch.testing.assert_close(*model.next_logits(texts))


def test_no_parameter_is_spent_on_places_and_none_is_saved():
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=8, vocab_size=5, context_length=4, position="rotary"))
    assert not [name for name in model.state_dict() if "position" in name or "turn" in name]
