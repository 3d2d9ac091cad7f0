"""Dropout in networks: on which tensors it acts, with which random numbers, and when it is off."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import train
from configs.schema import Config, DataConfig, GPTConfig, LoRAConfig, MLPConfig, OptimConfig, TrainConfig
from data.digits import Digits
from data.tokenizer import ByteTokenizer
from lens.capture import capture
from lens.circuits import neuron_activations, patterns
from lens.gradients import layer_gradients
from lens.logits import logit_lens, surprise
from model import build_model
from model.dropout import Dropout
from tests.conftest import text_of
from tests.processes import untimed
from training.evaluate import evaluate
from training.learner import Learner, build_learner
from training.loss import cross_entropy
from training.world import World

P = 0.5
SMALL = {"n_layer": 3, "n_head": 2, "n_embd": 8, "vocab_size": 257, "context_length": 6}
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
KINDS: dict[str, dict[str, Any]] = {
    "pre-norm": {},
    "post-norm": {"norm": "post"},
    "sinusoidal": {"position": "sinusoidal"},
    "rotary": {"position": "rotary"},
    "adapters": {"lora": LoRAConfig(rank=2)},
    "one block, untied, no biases": {"n_layer": 1, "tied": False, "bias": False},
}


class Call(NamedTuple):
    """What one call of dropout in training was given and gave back."""

    before: Tensor
    after: Tensor

    @property
    def mask(self) -> Tensor:
        """True where a number was kept; only those that weren't zero tell."""
        return self.after != 0


@contextmanager
def noted() -> Iterator[list[Call]]:
    """Every call of dropout that drops, of both kinds of network, while it is open."""
    calls: list[Call] = []

    def note(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        if isinstance(module, nn.Dropout) and module.training and module.p:
            calls.append(Call(given[0].detach().clone(), result.detach().clone()))

    hook = nn.modules.module.register_module_forward_hook(note)
    try:
        yield calls
    finally:
        hook.remove()


def gpt(**settings: Any) -> Any:
    """A small GPT in training with p = 0.5, and weights large enough that each part adds something."""
    torch.manual_seed(0)
    model = build_model(GPTConfig(**(SMALL | settings), dropout=P))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return model.double().train()


@pytest.mark.parametrize("kind", KINDS)
def test_a_gpt_drops_once_from_the_embedding_and_twice_in_each_block_and_nowhere_else(kind):
    model = gpt(**KINDS[kind])
    with noted() as calls:
        logits = model(TOKENS)
    assert [call.before.shape for call in calls] == [(2, 5, 8)] * (1 + 2 * model.config.n_layer)
    masks = iter([2.0 * call.mask for call in calls])  # kept numbers are divided by 1 - p
    x = next(masks) * model.embedding(TOKENS)
    for block in model.blocks:
        if model.config.norm == "pre":
            x = x + next(masks) * block.attention(block.norm_1(x))
            x = x + next(masks) * block.mlp(block.norm_2(x))
        else:
            x = block.norm_1(x + next(masks) * block.attention(x))
            x = block.norm_2(x + next(masks) * block.mlp(x))
    torch.testing.assert_close(logits, model.unembedding(model.norm(x)))


@pytest.mark.parametrize("kind", KINDS)
def test_each_of_a_gpts_calls_has_a_mask_of_its_own_for_every_number(kind):
    model = gpt(**KINDS[kind])
    with noted() as calls:
        model(torch.randint(257, (40, 6)))
    masks = torch.stack([call.mask for call in calls]).flatten(1).double()
    assert masks.mean(dim=1).sub(P).abs().max() < 0.06  # 1,920 numbers each: five standard deviations
    if len(masks) > 1:
        assert torch.corrcoef(masks).fill_diagonal_(0).abs().max() < 0.12
    for mask in calls[0].mask.unbind(0)[1:]:
        assert not mask.equal(calls[0].mask[0])  # each example of a batch


@pytest.mark.parametrize("sizes", [[784, 10], [784, 16, 10], [784, 16, 12, 10], [784, 9, 8, 7, 10]], ids=str)
def test_a_digit_network_drops_once_from_each_hidden_layer_and_never_from_pixels_or_answers(sizes):
    torch.manual_seed(0)
    model = build_model(MLPConfig(sizes=sizes, dropout=P)).double().train()
    x = torch.rand(5, 784, dtype=torch.float64)
    with noted() as calls:
        logits = model(x)
    assert [call.before.shape for call in calls] == [(5, size) for size in sizes[1:-1]]
    *hidden, last = model.layers
    for layer, call in zip(hidden, calls, strict=True):
        x = layer(x).sigmoid()
        torch.testing.assert_close(call.before, x)
        x = 2.0 * call.mask * x
    torch.testing.assert_close(logits, last(x))


# With which random numbers


class Process(World):
    """One of several processes, simulated: it waits for no other."""

    def reduced(self, numbers: list[float], how: str) -> list[float]:
        return numbers


def text_learner(world: World | None = None, **settings: Any) -> Learner:
    """A GPT about to learn a short text with p = 0.5; settings of the model and of training, side by side."""
    names = TrainConfig.model_fields.keys()
    training = {name: value for name, value in settings.items() if name in names}
    model = {name: value for name, value in settings.items() if name not in names}
    config = Config(
        model=GPTConfig(**(SMALL | model), dropout=P),
        data=DataConfig(path="none"),
        optim=OptimConfig(lr=0.01),
        train=TrainConfig(
            **({"batch_size": 2, "dtype": "float32"} | training), steps=1, threads=1, device="cpu", compile="off"
        ),
    )
    learner = build_learner(config, text_of(["The quick brown fox jumps over the lazy dog. " * 5], ByteTokenizer(), 6))
    return learner._replace(world=world) if world else learner


def digit_learner(world: World | None = None, **settings: Any) -> Learner:
    """A digit network about to learn noise with p = 0.5."""
    images = torch.randint(256, (30, 784), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    config = Config(
        model=MLPConfig(sizes=[784, 16, 12, 10], dropout=P),
        data=DataConfig(path="mnist-5k"),
        train=TrainConfig(
            **({"batch_size": 2} | settings), steps=1, threads=1, device="cpu", dtype="float32", compile="off"
        ),
    )
    learner = build_learner(config, Digits({"train": (images, torch.arange(30) % 10)}))
    return learner._replace(world=world) if world else learner


LEARNERS = {"text": text_learner, "digits": digit_learner}
CALLS = {"text": 7, "digits": 2}


def masks_by_number(learner: Learner, steps: int, per_batch: int) -> dict[int, list[Tensor]]:
    """What training keeps for each batch of these steps, by the batch's number."""
    accumulate, found = learner.config.train.accumulate, {}
    for step in range(steps):
        numbers = list(learner.world.share(step, accumulate))
        with noted() as calls:
            train.update(learner, step)
        assert len(calls) == per_batch * len(numbers)
        for place, number in enumerate(numbers):
            found[number] = [call.mask for call in calls[per_batch * place :][:per_batch]]
    return found


def alike(one: list[Tensor], other: list[Tensor]) -> bool:
    """Whether two batches lose the same numbers."""
    return all(a.equal(b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_batchs_mask_is_a_function_of_the_seed_and_its_number_however_steps_are_cut(kind):
    make, calls = LEARNERS[kind], CALLS[kind]
    one_by_one = masks_by_number(make(), 6, calls)
    for accumulate in (2, 3, 6):
        found = masks_by_number(make(accumulate=accumulate), 6 // accumulate, calls)
        assert found.keys() == one_by_one.keys() and all(alike(found[n], one_by_one[n]) for n in found)
    other = masks_by_number(make(seed=1), 6, calls)
    assert not any(alike(other[n], one_by_one[n]) for n in other)


@pytest.mark.parametrize("kind", LEARNERS)
def test_no_two_batches_lose_the_same_numbers_neither_in_a_step_nor_in_a_run(kind):
    found = list(masks_by_number(LEARNERS[kind](accumulate=4), 3, CALLS[kind]).values())
    assert len(found) == 12
    assert not any(alike(one, other) for place, one in enumerate(found) for other in found[:place])


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("size", [2, 3])
def test_each_process_has_the_masks_of_its_own_batches(kind, size):
    make, calls = LEARNERS[kind], CALLS[kind]
    alone = masks_by_number(make(accumulate=6), 2, calls)
    shares = [masks_by_number(make(Process(rank, size), accumulate=6), 2, calls) for rank in range(size)]
    assert sorted(number for share in shares for number in share) == list(range(12))
    for share in shares:
        assert all(alike(masks, alone[number]) for number, masks in share.items())


@pytest.mark.parametrize(
    "settings",
    [
        {"lora": LoRAConfig(rank=2), "start": "base"},
        {"freeze": ["embedding", "blocks.0"]},
        {"dtype": "bfloat16"},
        {"norm": "post"},
    ],
    ids=str,
)
def test_adapters_frozen_parts_and_bfloat16_change_nothing_in_what_is_dropped(settings):
    plain, other = masks_by_number(text_learner(), 2, 7), masks_by_number(text_learner(**settings), 2, 7)
    assert all(alike(plain[number], other[number]) for number in plain)


def test_a_resumed_run_loses_the_numbers_that_the_uncut_one_loses(shell, tiny, monkeypatch):
    monkeypatch.setattr(train, "seconds_per_step", untimed)
    words = [*tiny, "--model.dropout", P, "--train.accumulate", 2, "--log.sample_tokens", 0, "--run"]
    with noted() as uncut:
        assert shell("train.py", *words, "uncut", "--train.steps", 6)[0] == 0
    with noted() as cut:
        assert shell("train.py", *words, "cut", "--train.steps", 3)[0] == 0
        assert shell("train.py", "--resume", "--run", "cut", "--train.steps", 6)[0] == 0
    assert len(uncut) == len(cut) == 6 * 2 * (1 + 2 * 2)
    assert alike([call.mask for call in uncut], [call.mask for call in cut])


# When it is off


def test_only_training_drops_anything(shell, tiny, workplace, monkeypatch):
    monkeypatch.setattr(train, "seconds_per_step", untimed)
    with noted() as calls:
        assert shell("train.py", *tiny, "--model.dropout", P, "--train.accumulate", 2)[0] == 0
    assert len(calls) == 12 * 2 * (1 + 2 * 2)  # steps, batches, calls: four evaluations and their samples add none
    with noted() as calls:
        assert shell("sample.py", "tiny", "--max-tokens", 5, "--samples", 2)[0] == 0
        for view in ("attention", "logit-lens", "surprise", "heads", "neurons", "curves"):
            assert shell("explore.py", "tiny", view)[0] == 0
        assert shell("explore.py", "tiny", "--export", workplace / "page.html")[0] == 0
    assert calls == []


def test_digits_are_read_without_dropout_too(shell, workplace, monkeypatch):
    monkeypatch.delenv("PELLUCID_DATA", raising=False)  # MNIST's own test images are slow to read
    monkeypatch.setattr(train, "seconds_per_step", untimed)
    (workplace / "d.toml").write_text(
        f'[model]\nkind = "mlp"\ndropout = {P}\n[data]\npath = "mnist-5k"\n[train]\nsteps = 3\neval_every = 1\n'
    )
    with noted() as calls:
        assert shell("train.py", "d.toml")[0] == 0
    assert len(calls) == 3 * 2  # four evaluations and the test add none
    with noted() as calls:
        assert shell("sample.py", "d", "--test-digits", 2)[0] == 0
        for view in ("activations", "mistakes"):
            assert shell("explore.py", "d", view)[0] == 0
        assert shell("explore.py", "d", "--export", workplace / "page.html")[0] == 0
    assert calls == []


def test_an_evaluation_is_that_of_the_network_without_dropout_and_training_goes_on_with_it():
    for learner in (text_learner(), digit_learner()):
        plain = build_learner(learner.config, learner.data).model.eval()
        found = evaluate(learner.model, learner.data, "train", cross_entropy)
        assert found == evaluate(plain, learner.data, "train", cross_entropy)
        assert all(module.training for module in learner.model.modules())


LOOKS = {
    "capture": lambda model: capture(model, TOKENS).logits,
    "logit lens": lambda model: logit_lens(model, capture(model, TOKENS[:1])).probabilities,
    "surprise": lambda model: surprise(model, [3, 1, 4, 1, 5, 9, 2, 6])[1:],
    "patterns": lambda model: patterns(model, TOKENS),
    "neurons": lambda model: neuron_activations(model, TOKENS, 1),
    "gradients": lambda model: torch.tensor([*layer_gradients(model, TOKENS, TOKENS, cross_entropy).values()]),
}


@pytest.mark.parametrize("look", LOOKS)
def test_the_lens_sees_a_network_in_training_without_dropout_and_hands_it_back_in_training(look):
    model = gpt().float()
    with noted() as calls:
        found = LOOKS[look](model)
    assert calls == [] and all(module.training for module in model.modules())
    assert found.equal(LOOKS[look](model.eval()))
    assert any(isinstance(module, Dropout) and module.p == P for module in model.modules())
