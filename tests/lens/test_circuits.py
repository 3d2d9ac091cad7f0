"""Scores of heads and neurons, against patterns made by hand and products written out in full."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from lens import circuits
from lens.capture import capture
from lens.gradients import layer_gradients
from model import GPT, MLP, GPTConfig
from tests.huggingface import drawn, texts
from training.loss import cross_entropy

SMALL = {"n_layer": 2, "n_head": 4, "n_embd": 32, "vocab_size": 50, "context_length": 16}
HALF = 5


def looking(back: int) -> Tensor:
    """A pattern that gives everything to the token so far back, and to the first where there is none."""
    return torch.eye(2 * HALF)[[max(0, place - back) for place in range(2 * HALF)]]


def test_L80_a_head_made_by_hand_scores_1_at_what_it_does_and_0_elsewhere():
    """Attention, step by step: the purpose of a real head is hard to tell, so heads get scores, not stories."""
    scores = (circuits.previous_token, circuits.duplicate_token, circuits.induction)
    for row, back in enumerate((1, HALF, HALF - 1)):
        found = [float(score(looking(back))) for score in scores]
        assert found[row] == 1 and sorted(found)[-2] < 0.3


def test_an_even_head_scores_what_chance_says():
    even = torch.ones(2 * HALF, 2 * HALF).tril()
    even /= even.sum(dim=1, keepdim=True)
    expected = (
        sum(1 / t for t in range(2, 11)) / 9,
        sum(1 / t for t in range(6, 11)) / 5,
        sum(1 / t for t in range(6, 11)) / 5,
    )
    assert circuits.chance(2 * HALF) == pytest.approx(expected)


def test_tokens_are_random_and_then_the_same_again():
    tokens = circuits.repeated(50, HALF, 3, seed=1)
    assert torch.equal(tokens[:, :HALF], tokens[:, HALF:]) and not torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens, circuits.repeated(50, HALF, 3, seed=1))


def induction_network() -> GPT:
    """Two layers set by hand: head 0 of layer 0 copies the token before, and layer 1 looks for what came after it."""
    V, T = 8, 16
    config = GPTConfig(
        n_layer=2, n_head=1, n_embd=2 * V + T, vocab_size=V, context_length=T, bias=False, tied=False, norm="post"
    )
    model = GPT(config)
    for block in model.blocks:
        block.norm_1, block.norm_2 = nn.Identity(), nn.Identity()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        token, before, place = slice(0, V), slice(V, 2 * V), slice(2 * V, 2 * V + T)
        model.embedding.token.weight[:, token] = torch.eye(V)
        model.embedding.position.weight[:, place] = torch.eye(T)
        first, second = (block.attention for block in model.blocks)
        first.query.weight[place, place] = 500 * torch.eye(T).roll(-1, 0)  # position t asks for t - 1
        first.key.weight[place, place] = torch.eye(T)
        first.value.weight[token, token] = torch.eye(V)
        first.out.weight[before, token] = torch.eye(V)
        second.query.weight[token, token] = 500 * torch.eye(V)  # this token asks where it came before
        second.key.weight[token, before] = torch.eye(V)
    return model


def test_L82_a_network_made_to_do_induction_is_found_out():
    """Attention, step by step: a head that attends to what followed this token last time is recognised by its score."""
    tokens = torch.arange(7).repeat(2).unsqueeze(0)
    found = circuits.patterns(induction_network(), tokens)
    assert circuits.previous_token(found)[0, 0] > 0.99
    assert circuits.induction(found)[1, 0] > 0.9  # the first token, which has none before it, says so of itself
    assert circuits.induction(found)[0, 0] < 0.01 and circuits.previous_token(found)[1, 0] < 0.2


def test_patterns_are_the_mean_over_the_texts():
    model = drawn(GPT(GPTConfig(**SMALL)))
    tokens = texts(model, 3, 10)
    alone = torch.stack([circuits.patterns(model, row.unsqueeze(0)) for row in tokens])
    torch.testing.assert_close(circuits.patterns(model, tokens), alone.mean(dim=0))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_L82_qk_and_ov_have_the_singular_values_of_the_products_and_no_more_than_a_heads_width(norm):
    """Attention, step by step: a head is two low-rank maps, QK for where it attends and OV for what it adds."""
    model = drawn(GPT(GPTConfig(**SMALL, norm=norm)))
    block = model.blocks[0]
    gain = torch.diag(block.norm_1.weight.detach()) if norm == "pre" else torch.eye(32)
    for number, head in enumerate(circuits.heads(block)):
        rows = slice(8 * number, 8 * number + 8)
        q, k, v = (getattr(block.attention, name).weight.detach()[rows] @ gain for name in ("query", "key", "value"))
        out = block.attention.out.weight.detach()[:, rows]
        for found, whole in (
            (circuits.qk_singular_values(head), q.mT @ k),
            (circuits.ov_singular_values(head), out @ v),
        ):
            full = torch.linalg.svdvals(whole.double()).float()
            torch.testing.assert_close(found, full[:8], atol=1e-4, rtol=1e-3)
            assert full[8:].max() < 1e-4 and torch.linalg.matrix_rank(whole) <= 8


def composed(model: GPT, writer: tuple[int, int], reader: tuple[int, int]) -> list[float]:
    """Of two heads (layer, head): norm of the product of the full maps over the product of their norms, in q, k, v."""
    (_, _, v, o), (q, k, v2, o2) = (
        [part.double() for part in circuits.heads(model.blocks[layer])[head]] for layer, head in (writer, reader)
    )
    return [float((to @ o @ v).norm() / to.norm() / (o @ v).norm()) for to in ((q.mT @ k).mT, q.mT @ k, o2 @ v2)]


def test_L82_heads_compose_as_much_as_the_products_of_their_maps_are_large():
    """Attention, step by step: a head reads what earlier heads added, in its queries, its keys or its values."""
    model = drawn(GPT(GPTConfig(**SMALL | {"n_layer": 3})))
    found = circuits.compositions([circuits.heads(block) for block in model.blocks])
    for writer, reader in product(product(range(3), range(4)), repeat=2):
        pair = [float(grid[4 * writer[0] + writer[1], 4 * reader[0] + reader[1]]) for grid in found]
        if writer[0] < reader[0]:
            assert pair == pytest.approx([share - 32**-0.5 for share in composed(model, writer, reader)], abs=1e-5)
        else:
            assert all(map(math.isnan, pair))


def test_maps_that_know_nothing_of_each_other_do_not_compose():
    generator = torch.Generator().manual_seed(0)
    heads = [circuits.Head(*torch.randn(3, 8, 64, generator=generator), torch.randn(64, 8)) for _ in range(60)]
    for grid in circuits.composition(heads[:30], heads[30:]):
        share = grid + 64**-0.5
        assert float(share.square().mean().sqrt()) == pytest.approx(64**-0.5, rel=0.02)


def test_the_head_that_finds_its_answer_through_another_composes_with_it_in_the_key_alone():
    (written,), (reads,) = (circuits.heads(block) for block in induction_network().blocks)
    found = circuits.composition([written], [reads])
    nothing = -(32**-0.5)
    assert float(found.key) > 0.1 and [float(found.query), float(found.value)] == pytest.approx([nothing, nothing])


@pytest.mark.parametrize(("values", "rank"), [([1, 1, 1, 0], 3), ([5, 0, 0], 1), ([2, 2], 2)])
def test_the_effective_rank_of_equal_values_is_their_number(values, rank):
    assert float(circuits.effective_rank(torch.tensor([values, values], dtype=torch.float))[0]) == pytest.approx(rank)


@pytest.mark.parametrize(("tied", "norm"), [(True, "pre"), (False, "pre"), (True, "post")])
def test_copying_is_the_eigenvalue_score_of_the_whole_vocabulary_by_vocabulary_matrix(tied, norm):
    model = drawn(GPT(GPTConfig(**SMALL, tied=tied, norm=norm)))
    embed = model.embedding.token.weight.detach().double()
    last = model.norm if norm == "pre" else model.blocks[-1].norm_2
    unembed = (model.unembedding.weight * last.weight).detach().double()
    for head in circuits.heads(model.blocks[1]):
        eigenvalues = torch.linalg.eigvals(unembed @ head.out.double() @ head.value.double() @ embed.mT)
        expected = float(eigenvalues.sum().real / eigenvalues.abs().sum())
        assert circuits.copying(head, circuits.token_to_token(model)) == pytest.approx(expected, abs=1e-3)


def test_a_head_that_hands_tokens_on_copies_and_one_that_denies_them_does_the_opposite():
    assert circuits.copying_score(torch.eye(4)) == 1
    assert circuits.copying_score(-torch.eye(4)) == -1
    assert circuits.copying_score(torch.diag(torch.tensor([1.0, -1.0]))) == 0
    assert circuits.copying_score(torch.zeros(3, 3)) == 0


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_what_a_neuron_writes_is_how_the_logits_change_while_the_norm_divides_by_what_it_did(norm):
    model = drawn(GPT(GPTConfig(**SMALL, norm=norm)))
    last = model.norm if norm == "pre" else model.blocks[-1].norm_2
    down = model.blocks[1].mlp.layers[1]
    layer = capture(model, texts(model, 1, 6)).layers[1]
    once_more = layer.neurons.clone()
    once_more[..., 7] += 1
    with torch.no_grad():
        before = layer.after if norm == "pre" else layer.mlp_in + layer.mlp_out
        after = before - layer.mlp_out + down(once_more)
        deviation = (before.var(dim=-1, keepdim=True, correction=0) + last.eps).sqrt()
        gain, shift = last.weight, last.bias
        logits = [
            model.unembedding((x - x.mean(dim=-1, keepdim=True)) / deviation * gain + shift) for x in (before, after)
        ]
    change = (logits[1] - logits[0]) * deviation
    torch.testing.assert_close(logits[0], model(texts(model, 1, 6)).detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(change, circuits.writes(model, 1, 7).expand_as(change), atol=1e-4, rtol=1e-3)


def test_the_most_exciting_places_are_the_highest_activations_one_in_each_text():
    active = torch.tensor([[0.0, 3.0, 1.0], [5.0, 0.0, 4.0], [0.0, 0.0, 2.0]])
    assert circuits.most_exciting(active, 2) == [(1, 0), (0, 1)]
    assert circuits.most_exciting(active, 9) == [(1, 0), (0, 1), (2, 2)]


def test_a_neuron_that_fires_once_is_more_selective_than_one_that_always_does():
    active = torch.rand(4, 50, 3, generator=torch.Generator().manual_seed(0))
    active[2, 3, 1] = 50.0
    assert circuits.most_selective(active, 1) == [1]


def test_neurons_are_the_hidden_activations_of_the_layer_that_is_asked_for():
    model = drawn(GPT(GPTConfig(**SMALL)))
    tokens = texts(model, 2, 6)
    block, layer = model.blocks[1], capture(model, tokens).layers[1]
    with torch.no_grad():
        expected = block.mlp.activation(block.mlp.layers[0](layer.mlp_in))
    torch.testing.assert_close(circuits.neuron_activations(model, tokens, 1), expected)


def test_the_gradients_of_layers_make_up_the_whole_gradient():
    model = MLP([784, 16, 16, 10])
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(20, 784, generator=generator), torch.randint(10, (20,), generator=generator)
    found = layer_gradients(model, x, y, cross_entropy)
    cross_entropy(model(x), y).backward()
    assert list(found) == ["layers.0", "layers.1", "layers.2"]
    for name, length in found.items():
        own = [p.grad.flatten() for p in model.get_submodule(name).parameters() if p.grad is not None]
        assert length == pytest.approx(float(torch.cat(own).norm()), rel=1e-5)


def test_a_gpt_has_a_gradient_for_the_embedding_each_block_and_the_norm():
    model = drawn(GPT(GPTConfig(**SMALL)))
    for parameter in model.blocks[0].parameters():
        parameter.requires_grad_(False)
    tokens = texts(model, 2, 8)
    assert list(layer_gradients(model, tokens, tokens, cross_entropy)) == ["embedding", "blocks.1", "norm"]
    assert all(parameter.grad is None for parameter in model.parameters())
