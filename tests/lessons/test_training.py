"""Techniques for training: what keeps a network from overfitting, and what lets a deep one train at all."""

import json
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.command import flatten
from configs.errors import UserError
from configs.schema import OptimConfig
from data.digits import Digits
from model import GPT, MLP, GPTConfig, MLPConfig, build_model
from model.gpt import BLOCKS, Block
from tests.lessons.helpers_a import accuracy, digits, first_digits, gradients, learner, trained, update
from training.advice import Chance, overfitting
from training.evaluate import evaluate
from training.loss import cross_entropy
from training.optim import build_optimizers, clip
from training.run import Record, open_run, read_record
from training.validation import evaluations


def test_L31_few_examples_are_memorised_and_the_validation_loss_rises():
    """Techniques for training: 200 images are memorised, new ones are not recognised, and overfitting is detected."""
    data = first_digits(200)
    pupil = learner(data, {"lr": 1e-2}, {"sizes": [784, 32, 10], "activation": "relu"}, batch_size=200)
    losses: list[float] = []
    log: list[dict[str, Any]] = []
    for step in range(120):
        if step % 10 == 0:
            found = evaluate(pupil.model, data, "test", cross_entropy)
            assert found is not None
            losses.append(found.loss)
            log.append({"step": step, "val_loss": found.loss, "val_loss_stderr": found.stderr, "val_accuracy": 0.9})
        log.append({"step": step, "loss": update(pupil, step)[0]})
    assert accuracy(pupil.model, *data.splits["train"]) == 1
    assert accuracy(pupil.model, *data.splits["test"]) < 0.9
    turned = losses.index(min(losses))
    assert losses[-1] > losses[turned]
    seen, chance = evaluations(log), Chance(math.log(10), math.log(10), 0.1, 1000)
    [told] = [now.step for n, now in enumerate(seen, 1) if overfitting(seen[:n], 1, chance)]  # once
    assert turned < told / 10 < len(losses) and losses[told // 10] > losses[turned]


def test_L32_the_splits_share_no_image():
    """Techniques for training: training, validation and test images are different images."""
    train, val, test = (set(map(bytes, digits()[name][0].numpy())) for name in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (3500, 500, 1000)
    assert not train & test and not train & val and not val & test


def test_L32_what_is_held_out_never_moves_a_weight():
    """Techniques for training: training uses only the training split, whatever the other splits contain."""
    noise = torch.randint(256, (300, 784), dtype=torch.uint8), torch.randint(10, (300,))
    real, spoiled = (
        learner(data, {}) for data in (Digits(digits()), Digits({**digits(), "val": noise, "test": noise}))
    )
    for step in range(3):
        assert update(real, step) == update(spoiled, step)
        one, other = (evaluate(pupil.model, pupil.data, "val", cross_entropy) for pupil in (real, spoiled))
        assert one != other  # it is looked at, and teaches nothing
    assert all(torch.equal(*pair) for pair in zip(real.parameters, spoiled.parameters, strict=True))


@pytest.mark.parametrize("sizes", [[784, 10], [784, 4, 10], [784, 64, 32, 10]])
def test_L33_a_simpler_model_is_a_shorter_list_of_sizes(sizes):
    """Techniques for training: the number of layers and of neurons in each is free to choose."""
    model = build_model(MLPConfig(sizes=sizes))
    assert sum(p.numel() for p in model.parameters()) == sum(a * b + b for a, b in pairwise(sizes))


def test_L34_a_network_that_saw_shifted_digits_reads_shifted_digits():
    """Techniques for training: shifted, rotated and scaled copies are more data, so shifts no longer confuse it."""
    x, y = trained().data.splits["test"]
    shifted = x.view(-1, 28, 28).roll((2, 2), (-2, -1)).flatten(1)  # two pixels down, two to the right
    plain, robust = (accuracy(trained(augmented=augmented).model, shifted, y) for augmented in (False, True))
    assert robust > plain + 0.1


def after_one_step(optim: dict) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Weights before a step of plain gradient descent with rate 1, the slopes of the bare cost, weights after."""
    pupil = learner(first_digits(20), {"name": "sgd", "lr": 1.0, **optim}, batch_size=20)
    before = [p.detach().clone() for p in pupil.parameters]
    x, y = pupil.data.batch("train", 0, 20)
    slopes = gradients(cross_entropy(pupil.model(x), y), pupil.parameters)
    update(pupil, 0)
    return before, slopes, [p.detach() for p in pupil.parameters]


def test_L35_L1_adds_lambda_times_the_sum_of_absolute_weights_to_the_cost():
    """Techniques for training: L1 pulls every weight, but no bias, towards zero with the same force."""
    for w, slope, after in zip(*after_one_step({"l1": 0.01}), strict=True):
        pull = gradients(0.01 * w.requires_grad_().abs().sum(), [w])[0] if w.ndim == 2 else 0
        torch.testing.assert_close(after, w.detach() - slope - pull, rtol=0, atol=1e-6)


def test_L35_L2_adds_half_lambda_times_the_sum_of_squared_weights_to_the_cost():
    """Techniques for training: L2 pulls every weight, but no bias, towards zero in proportion to its size."""
    for w, slope, after in zip(*after_one_step({"weight_decay": 0.01}), strict=True):
        pull = gradients(0.005 * w.requires_grad_().square().sum(), [w])[0] if w.ndim == 2 else 0
        torch.testing.assert_close(after, w.detach() - slope - pull, rtol=0, atol=1e-6)


def test_L35_L1_empties_weights_and_L2_shortens_them():
    """Techniques for training: with L1 most weights become zero, with L2 all become smaller."""

    def weights(**strength: float) -> Tensor:
        pupil = learner(first_digits(200), {"name": "sgd", "lr": 0.1, **strength}, batch_size=50)
        for step in range(200):
            update(pupil, step)
        return pupil.parameters[0].detach()

    free, sparse, short = weights(), weights(l1=3e-3), weights(weight_decay=1e-2)
    empty = [(w.abs() < 1e-3).float().mean().item() for w in (free, sparse, short)]
    assert empty[1] > 0.5 and empty[0] < 0.1 and empty[2] < 0.1
    assert short.norm() < 0.9 * free.norm()


def test_L36_dropout_is_off_during_evaluation():
    """Techniques for training: dropout acts only in training; at inference all neurons work and results repeat."""
    data = first_digits(30)
    model = learner(data, {}, {"sizes": [784, 64, 10], "dropout": 0.5}).model
    x = data.splits["train"][0]
    assert not torch.equal(model(x), model(x))
    one, two = (evaluate(model, data, "train", cross_entropy) for _ in range(2))
    assert one == two and model.training  # and back at work afterwards
    assert torch.equal(model.eval()(x), model(x))


def test_L36_dropout_keeps_the_mean_of_what_it_thins_out():
    """Techniques for training: the remaining neurons are scaled by 1 / (1 - p), which keeps the mean."""
    torch.manual_seed(0)
    model, x = MLP([3, 20_000, 1], "sigmoid", dropout=0.75), torch.randn(3)
    heard: list[Tensor] = []
    model.layers[1].register_forward_pre_hook(lambda layer, inputs: heard.append(inputs[0]))
    model(x), model.eval()(x)
    thinned, whole = heard
    kept = thinned != 0
    assert kept.float().mean().item() == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(thinned[kept], whole[kept] / 0.25)
    assert thinned.mean().item() == pytest.approx(whole.mean().item(), rel=0.05)


def test_L36_a_gpt_thins_out_its_vectors_and_keeps_their_mean():
    """Techniques for training: in a GPT, random values of each part's output are zeroed, the rest scaled up."""
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=99, n_layer=1, n_head=2, n_embd=64, context_length=64, dropout=0.75))
    heard: list[tuple[Tensor, Tensor]] = []
    for part in (gpt.dropout, gpt.blocks[0].dropout):
        part.register_forward_hook(lambda layer, inputs, output: heard.append((inputs[0], output)))
    gpt(torch.randint(99, (8, 64)))
    assert len(heard) == 3  # the embedding, attention, the MLP
    for whole, thinned in heard:
        kept = thinned != 0
        assert kept.float().mean().item() == pytest.approx(0.25, abs=0.02)
        torch.testing.assert_close(thinned[kept], whole[kept] / 0.25)
        lengths = (thinned @ whole.mT).diagonal(dim1=1, dim2=2).sum(), whole.square().sum()
        assert lengths[0].item() == pytest.approx(lengths[1].item(), rel=0.05)  # on the mean nothing is lost


def test_L36_dropout_of_nothing_changes_nothing():
    """Techniques for training: dropout with p = 0 does nothing, in the digit network and in a GPT."""
    for p, same in ((0.0, True), (0.5, False)):
        torch.manual_seed(0)
        gpt = GPT(GPTConfig(vocab_size=9, n_layer=1, n_head=2, n_embd=8, context_length=6, dropout=p))
        for model, x in ((MLP([4, 8, 2], dropout=p), torch.randn(5, 4)), (gpt, torch.randint(9, (2, 6)))):
            assert torch.equal(model.train()(x), model.eval()(x)) is same


def slope_lengths(model: nn.Module, x: Tensor, y: Tensor, names: list[str]) -> list[float]:
    """The length of the gradient in each of these weights."""
    slopes = gradients(cross_entropy(model(x), y), [model.get_parameter(f"{name}.weight") for name in names])
    return [slope.norm().item() for slope in slopes]


def test_L37_the_gradient_fades_away_in_deep_sigmoid_networks():
    """Techniques for training: ten sigmoid layers let almost no gradient through, ReLU layers far more."""
    x, y = first_digits(64).batch("train", 0, 64)
    arrives = {}
    for activation in ("sigmoid", "relu"):
        torch.manual_seed(0)
        model = MLP([784, *[32] * 10, 10], activation)
        early, late = slope_lengths(model, x, y, ["layers.1", "layers.9"])
        arrives[activation] = early / late
    assert arrives["sigmoid"] < 1e-5 and arrives["relu"] > 100 * arrives["sigmoid"]


def test_L37_residual_connections_carry_the_gradient_to_the_first_block():
    """Techniques for training: with residual sums the first of 20 blocks gets as much gradient as a single one."""
    loudness = []
    for n_layer in (1, 20):
        torch.manual_seed(0)
        model = GPT(GPTConfig(vocab_size=16, n_layer=n_layer, n_head=2, n_embd=16, context_length=8))
        tokens = torch.randint(16, (8, 9))
        loudness += slope_lengths(model, tokens[:, :-1], tokens[:, 1:], ["blocks.0.mlp.layers.1"])
    assert loudness[1] > 0.5 * loudness[0]


def test_L37_large_first_weights_leave_neurons_saturated():
    """Techniques for training: with weights from N(0, 1) most hidden neurons start saturated, where sigmoid is flat."""
    x, _ = first_digits(200).batch("train", 0, 200)
    saturated = {}
    for init in ("normal", "uniform"):
        torch.manual_seed(0)
        a = build_model(MLPConfig(init=init)).get_submodule("layers.0")(x).sigmoid()
        saturated[init] = ((a < 0.05) | (a > 0.95)).float().mean().item()
    assert saturated["normal"] > 0.6 and saturated["uniform"] == 0


def test_L38_an_exploding_gradient_stops_training_before_any_weight_is_spoiled():
    """Techniques for training: an infinite gradient is detected, even if the loss is finite."""
    pupil = learner(first_digits(20), {"name": "sgd", "grad_clip": 1.0}, {"activation": "relu"}, batch_size=20)
    for p in pupil.parameters:
        p.data *= 1e12
    before = [p.detach().clone() for p in pupil.parameters]
    with pytest.raises(UserError, match=r"step 0: loss \d.* gradient norm inf") as error:
        update(pupil, 0)
    assert error.value.exit_code == 3
    assert all(torch.equal(*pair) for pair in zip(before, pupil.parameters, strict=True))


def test_L39_clipping_shortens_a_long_gradient_and_keeps_its_direction():
    """Techniques for training: a gradient whose norm is too large is scaled down as a whole, others are unchanged."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    parameters = list(layers.parameters())
    for p in parameters:
        p.grad = torch.randn_like(p)
    whole = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    for longest, factor in ((0.0, 1.0), (100.0, 1.0), (0.5, 0.5 / whole.norm().item())):
        torch.testing.assert_close(clip(parameters, longest), whole.norm())
        clipped = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        torch.testing.assert_close(clipped, whole * factor, rtol=1e-5, atol=1e-6)


def test_L40_a_block_that_has_nothing_to_add_changes_nothing():
    """Techniques for training: with zero output weights a residual block passes every vector on unchanged."""
    torch.manual_seed(0)
    block, x = Block(GPTConfig(n_head=2, n_embd=8)), torch.randn(2, 5, 8)
    assert not torch.equal(block(x), x)
    for layer in (block.attention.out, block.mlp.layers[1]):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert torch.equal(block(x), x)


class Replacing(Block):
    """A block without residual connections: what was there is replaced."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm_2(self.attention(self.norm_1(x))))


def test_L40_deep_networks_learn_through_residual_connections_only(monkeypatch):
    """Techniques for training: six blocks learn to count with residual connections, and only guess without them."""

    def last_loss() -> float:
        torch.manual_seed(0)
        model = GPT(GPTConfig(vocab_size=16, n_layer=6, n_head=2, n_embd=16, context_length=8))
        optimizer = build_optimizers(model, OptimConfig(lr=1e-2))[0]
        loss = torch.tensor(0.0)
        for _ in range(50):
            count = (torch.randint(16, (8, 1)) + torch.arange(9)) % 16
            loss = cross_entropy(model(count[:, :-1]), count[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    assert last_loss() < 0.5
    monkeypatch.setitem(BLOCKS, "pre", Replacing)
    assert last_loss() > 0.9 * math.log(16)


def test_L41_from_zero_all_hidden_neurons_stay_identical_for_ever():
    """Techniques for training: neurons that start equal get equal gradients; random weights break the symmetry."""
    for init, alike in (("zero", True), ("uniform", False)):
        pupil = learner(first_digits(100), {"lr": 1e-2}, {"init": init}, batch_size=50)
        for step in range(30):
            update(pupil, step)
        rows = pupil.parameters[0]
        assert rows.any() and torch.equal(rows, rows[:1].expand_as(rows)) is alike


def test_L41_what_feeds_the_residual_stream_starts_smaller_the_more_blocks_add_to_it():
    """Techniques for training: GPT-2 initialises with deviation 0.02, over √(2 n_layer) for residual outputs."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=99, n_layer=8, n_head=2, n_embd=64, context_length=8))
    spread = {name: p.std().item() for name, p in model.named_parameters() if p.ndim == 2}
    for name in ("blocks.3.attention.query", "blocks.3.mlp.layers.0", "embedding.token"):
        assert spread[f"{name}.weight"] == pytest.approx(0.02, rel=0.05)
    for name in ("blocks.3.attention.out", "blocks.3.mlp.layers.1"):
        assert spread[f"{name}.weight"] == pytest.approx(0.02 / math.sqrt(2 * 8), rel=0.05)


Rule = Callable[[np.ndarray, np.ndarray, dict[str, np.ndarray], int], np.ndarray]


def assert_walks_by(rule: Rule, **optim: Any) -> None:
    """The optimiser takes a matrix and a vector through six random gradients exactly as the rule says."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2).double()
    optimizer, weights = build_optimizers(layer, OptimConfig(lr=0.1, **optim))[0], list(layer.parameters())
    by_hand = [w.detach().numpy().copy() for w in weights]
    memories = [{"m": np.zeros_like(w), "v": np.zeros_like(w)} for w in by_hand]
    for t in range(1, 7):
        for i, w in enumerate(weights):
            w.grad = torch.randn_like(w)
            by_hand[i] = rule(by_hand[i], w.grad.numpy(), memories[i], t)
        optimizer.step()
        for w, expected in zip(weights, by_hand, strict=True):
            np.testing.assert_allclose(w.detach().numpy(), expected, rtol=0, atol=1e-10)


def test_L42_momentum_keeps_on_rolling():
    """Techniques for training: with momentum a step is the gradient plus a fraction of the previous step."""

    def rule(w, g, memory, t):
        memory["m"] = 0.9 * memory["m"] + g
        return w - 0.1 * memory["m"]

    assert_walks_by(rule, name="sgd", momentum=0.9)


def test_L42_rmsprop_divides_by_the_usual_size_of_the_gradient():
    """Techniques for training: RMSProp divides each weight's gradient by its own running root mean square."""

    def rule(w, g, memory, t):
        memory["v"] = 0.95 * memory["v"] + 0.05 * g**2
        return w - 0.1 * g / (np.sqrt(memory["v"]) + 1e-8)

    assert_walks_by(rule, name="rmsprop", betas=[0.8, 0.95])


def adam_step(g: np.ndarray, memory: dict[str, np.ndarray], t: int) -> np.ndarray:
    """Kingma and Ba's algorithm 1, with rate 0.1, beta_1 0.8 and beta_2 0.95."""
    memory["m"] = 0.8 * memory["m"] + 0.2 * g
    memory["v"] = 0.95 * memory["v"] + 0.05 * g**2
    return 0.1 * memory["m"] / (1 - 0.8**t) / (np.sqrt(memory["v"] / (1 - 0.95**t)) + 1e-8)


def test_L42_adam_is_momentum_over_root_mean_square():
    """Techniques for training: Adam divides the gradient's running mean by its root mean square."""

    def rule(w, g, memory, t):
        if w.ndim == 2:
            g = g + 0.5 * w  # L2 as part of the gradient
        return w - adam_step(g, memory, t)

    assert_walks_by(rule, name="adam", betas=[0.8, 0.95], weight_decay=0.5)


def test_L42_adamw_is_adam_with_the_matrices_shrunk_beside_it():
    """Techniques for training: AdamW shrinks the weights directly, separately from the gradient step."""

    def rule(w, g, memory, t):
        shrunk = w - 0.1 * 0.5 * w if w.ndim == 2 else w
        return shrunk - adam_step(g, memory, t)

    assert_walks_by(rule, name="adamw", betas=[0.8, 0.95], weight_decay=0.5)


def test_L43_a_run_keeps_every_hyper_parameter_beside_its_weights(tmp_path):
    """Techniques for training: all hyperparameters are in one config, and a run records all of them."""
    config = learner(first_digits(1), {"lr": 0.07}, {"sizes": [784, 12, 10]}).config
    with open_run(tmp_path / "run", resume=False, overwrite=False) as run:
        run.describe(Record(asked={}, origins={}, resolved=config, data_sha256="", machine={}))
    written = flatten(json.loads((run.folder / "run.json").read_text())["resolved"])
    assert written == flatten(config.model_dump(exclude_none=True))
    assert {"model.sizes", "optim.weight_decay", "train.seed", "train.batch_size", "data.augment"} <= written.keys()
    assert read_record(run.folder).resolved == config
