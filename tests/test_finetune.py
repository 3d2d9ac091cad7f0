"""Going on from a run: what may differ from it, what stays as it is, and what a new text may bring."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train
from configs.schema import GPTConfig
from data.fetch import sha256
from data.tokenizer import CharTokenizer
from model import GPT, MLP
from tests.conftest import POEM, ROOT
from tests.test_mistakes import one_line
from training.adapt import with_rows
from training.checkpoint import model_tensors
from training.freeze import freeze
from training.restore import restore
from training.run import read_log, read_record

CONFIG = """
[model]
kind = "gpt"
[data]
path = "other.txt"
[train]
start = "base"
steps = 8
batch_size = 4
eval_every = 4
threads = 1
[log]
every = 1
sample_tokens = 8
"""
SIZES = "--data.path poem.txt --model.kind gpt --model.n_layer 3 --model.n_head 2 --model.n_embd 16".split()
VARIANTS = {
    "base": [],
    "untied": ["--model.tied", "false"],
    "waves": ["--model.position", "sinusoidal"],
    "rotary": ["--model.position", "rotary"],
    "documents": ["--data.path", "poem.txt", "other.txt"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four small runs that have learned the poem, and texts to go on with."""
    from training.run import understand

    folder = tmp_path_factory.mktemp("trained")
    (folder / "poem.txt").write_text(POEM)
    (folder / "other.txt").write_text(POEM[::-1])
    (folder / "new.txt").write_text((POEM + "Zürich: 中!\n") * 3)
    (folder / "again.toml").write_text(CONFIG)
    (folder / "first.toml").write_text(CONFIG.replace('start = "base"', ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("training.plan.TRIAL_SECONDS", 0)
        for name, words in VARIANTS.items():
            sizes = [*SIZES, "--model.context_length", "16", *words]
            train.main(understand(["first.toml", *sizes, "--run", name]))
    return folder


@pytest.fixture(autouse=True)
def runs(workplace: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs there, in a copy. How long a step will take is of no interest here."""
    monkeypatch.setattr("training.plan.TRIAL_SECONDS", 0)
    shutil.copytree(trained, workplace, dirs_exist_ok=True)
    return workplace / "runs"


@pytest.fixture
def tune(shell):
    """A function that goes on as again.toml says, with more words; returns exit code, stdout, stderr."""
    return lambda *words: shell("train.py", "again.toml", "--run", "tuned", *words)


def weights(run: str, which: str = "last") -> dict[str, torch.Tensor]:
    """What a run has learned."""
    return model_tensors(restore(run, which).model)


# A new run.


def test_steps_schedule_and_optimiser_start_anew_and_the_base_stays(tune, runs):
    before = {file: sha256(file) for file in (runs / "base").rglob("*") if file.is_file()}
    words = ["--optim.lr", "0.01", "--optim.warmup_steps", "4", "--optim.schedule", "linear"]
    assert tune(*words)[0] == 0
    rates = [line["lr"] for line in read_log(runs / "tuned") if "lr" in line]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.0075, 0.005, 0.0025])
    moments = load_file(runs / "tuned/checkpoints/step-000008/optimizer.safetensors")
    assert {float(value) for name, value in moments.items() if name.endswith("/step")} == {8.0}
    assert {file: sha256(file) for file in (runs / "base").rglob("*") if file.is_file()} == before


def test_dropout_may_differ_and_everything_else_may_not(tune, runs):
    assert tune("--model.dropout", "0.25", "--model.n_layer", "3", "--model.bias", "true")[0] == 0
    config, base = (read_record(runs / name).resolved.model for name in ("tuned", "base"))
    assert isinstance(config, GPTConfig) and isinstance(base, GPTConfig)
    assert config == base.model_copy(update={"dropout": 0.25})
    for words in (["n_layer", "2"], ["activation", "relu"], ["tied", "false"], ["position", "sinusoidal"]):
        one_line(tune("--overwrite", f"--model.{words[0]}", words[1]), f"model.{words[0]}=", "train.start=base")


def test_the_fine_tuning_config_fits_any_text_run(shell, workplace):
    words = ["--data.path", "other.txt", "--train.start", "base", "--train.steps", "4", "--model.dropout", "0.1"]
    for name in ("finetune", "lora"):
        assert shell("train.py", ROOT / f"configs/{name}.toml", *words)[0] == 0
    config = read_record(workplace / "runs/lora").resolved.model
    assert isinstance(config, GPTConfig) and config.lora and config.dropout == 0.1


def test_a_text_that_is_soon_memorised_stops_early_and_keeps_the_best(shell, runs, workplace):
    (workplace / "short.txt").write_text("abc fed cab hij lmn opq. " * 3 + "jumps over the lazy dog. quick brown fox")
    words = ["--data.path", "short.txt", "--data.val_fraction", "0.35", "--train.steps", "400"]
    words += ["--optim.lr", "0.03", "--train.eval_every", "2", "--train.patience", "3"]
    code, _, err = shell("train.py", "again.toml", "--run", "tuned", *words)
    losses = [line["val_loss"] for line in read_log(runs / "tuned") if "val_loss" in line]
    best = losses.index(min(losses))
    assert code == 0 and len(losses) == best + 4 < 200
    assert f"stopping early: no improvement in 3 evaluations (best: step {2 * best}, loss " in err
    assert "overfitting" not in err  # three windows of validation prove nothing
    assert restore("tuned").checkpoint.state.step == 2 * best


# The context is cut.


@pytest.mark.parametrize("start", ["base", "waves"])
def test_a_network_with_a_shorter_context_sees_no_difference_within_it(tune, start):
    words = ["--train.start", start, "--train.steps", "0", "--model.context_length", "8"]
    assert tune(*words)[0] == 0
    tokens = torch.arange(8).unsqueeze(0)
    short, base = restore("tuned").model, restore(start).model
    assert torch.equal(short(tokens), base(tokens))
    with pytest.raises(ValueError, match="9 tokens exceed context_length=8"):
        short(torch.arange(9).unsqueeze(0))


def test_learned_positions_cant_be_lengthened_and_waves_can(tune, runs):
    words = ["--model.context_length", "24", "--train.steps", "2"]
    one_line(tune(*words), "model.context_length=24", "16", "learned", "cannot be extended")
    assert not (runs / "tuned").exists()
    assert tune(*words, "--train.start", "waves")[0] == 0
    assert restore("tuned").model(torch.zeros(1, 24, dtype=torch.long)).shape[1] == 24


# Characters are added.


def test_a_new_character_is_named_with_the_way_to_add_it(tune, runs):
    one_line(tune("--data.path", "new.txt"), "'ü'", "'中'", "--data.extend true")
    assert not (runs / "tuned").exists()


@pytest.mark.parametrize("start", list(VARIANTS))
def test_with_new_characters_the_old_ones_keep_number_meaning_and_scores(tune, start):
    words = ["--train.start", start, "--data.path", "new.txt", "--data.extend", "true"]
    code, _, err = tune(*words, "--train.steps", "0")
    assert code == 0 and "adding 5 characters to the vocabulary of" in err and "'ü'" in err
    old, new = restore(start), restore("tuned")
    assert isinstance(old.tokenizer, CharTokenizer) and isinstance(new.tokenizer, CharTokenizer)
    assert new.tokenizer.encode(POEM).tolist() == old.tokenizer.encode(POEM).tolist()
    assert new.tokenizer.end_of_text == old.tokenizer.end_of_text
    tokens = torch.tensor([old.tokenizer.encode("The quick brown").tolist()])
    before, after = old.model(tokens).detach(), new.model(tokens).detach()
    size = old.tokenizer.vocab_size
    # A product with more columns may be summed in another order: equal to rounding, not to the bit.
    torch.testing.assert_close(after[..., :size], before, rtol=0, atol=1e-5)
    # Each new one is at most as likely as the average of the old.
    assert (after[..., size:].exp() <= before.exp().mean(dim=-1, keepdim=True) * (1 + 1e-5)).all()
    assert set(model_tensors(new.model)) == set(model_tensors(old.model))


def test_a_new_character_is_learned_and_the_run_goes_on_exactly(shell, tune, runs):
    words = ["--data.path", "new.txt", "--data.extend", "true", "--optim.lr", "0.02"]
    assert tune(*words)[0] == 0
    rows = weights("tuned")["embedding.token.weight"][-5:]
    assert (torch.cdist(rows, rows) + torch.eye(5) > 1e-3).all()  # they began equal
    assert shell("train.py", "--resume", "--run", "tuned", "--train.steps", "12")[0] == 0
    assert shell("train.py", "again.toml", "--run", "uncut", *words, "--train.steps", "12")[0] == 0
    assert all(torch.equal(a, b) for a, b in zip(weights("tuned").values(), weights("uncut").values(), strict=True))
    assert shell("sample.py", "tuned", "--prompt", "Zürich 中", "--max-tokens", "3")[1].startswith("Zürich 中")
    again = ["--data.path", "new.txt", "other.txt", "--train.start", "tuned", "--run", "again", "--data.extend", "true"]
    code, _, err = shell("train.py", "again.toml", *again)
    assert code == 0 and "new to" not in err


def test_rows_that_begin_as_the_mean_leave_the_others_as_they_are():
    rows = torch.randn(5, 3)
    more = with_rows(rows, 7)
    assert torch.equal(more[:5], rows)
    torch.testing.assert_close(more[5:], rows.sum(dim=0).div(5).expand(2, -1))


@pytest.mark.parametrize("freeze", ["embedding", "unembedding"])
def test_new_rows_must_be_free_to_learn(tune, freeze):
    words = ["--data.path", "new.txt", "--data.extend", "true", "--train.freeze", freeze]
    one_line(tune(*words), "data.extend", "train.freeze")


# Parts are frozen.


FROZEN = {
    "embedding": lambda name: name.startswith("embedding."),
    "blocks.0-1": lambda name: name.startswith(("blocks.0.", "blocks.1.")),
    "blocks.1-2.attention": lambda name: name.startswith(("blocks.1.attention", "blocks.2.attention")),
    "norm": lambda name: name.startswith("norm."),
    "blocks": lambda name: name.startswith("blocks."),
    "blocks.2.norm_1.bias": lambda name: name == "blocks.2.norm_1.bias",
}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("part", list(FROZEN))
def test_what_is_frozen_stays_to_the_bit_and_all_the_rest_learns(tune, runs, part, optimizer):
    words = ["--train.freeze", part, "--optim.name", optimizer, "--train.steps", "2", "--optim.weight_decay", "0.1"]
    assert tune(*words)[0] == 0
    before, after = weights("base", "best"), weights("tuned")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if not FROZEN[part](name)}
    folder = runs / "tuned/checkpoints/step-000002"
    assert load_file(folder / "model.safetensors").keys() == before.keys()
    moments = load_file(folder / "optimizer.safetensors")
    assert {name.partition("/")[0] for name in moments} == moved


def test_a_run_with_frozen_parts_goes_on_exactly(shell, tune):
    words = ["--train.freeze", "embedding", "blocks.0-1", "--optim.name", "muon", "--optim.schedule", "constant"]
    assert tune(*words)[0] == 0
    assert shell("train.py", "--resume", "--run", "tuned", "--train.steps", "12")[0] == 0
    assert shell("train.py", "again.toml", "--run", "uncut", *words, "--train.steps", "12")[0] == 0
    assert all(torch.equal(a, b) for a, b in zip(weights("tuned").values(), weights("uncut").values(), strict=True))


@pytest.mark.parametrize("part", ["embedding", "unembedding", "embedding.token"])
def test_tied_to_the_embedding_the_unembedding_is_frozen_with_it(part):
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=4, vocab_size=5, context_length=3))
    freeze(model, [part])
    assert not model.unembedding.weight.requires_grad and not model.embedding.token.weight.requires_grad
    assert model.norm.weight.requires_grad


def test_a_digit_network_is_frozen_layer_by_layer():
    model = MLP([3, 4, 4, 2])
    freeze(model, ["layers.0-1"])
    assert [p.requires_grad for p in model.parameters()] == [False, False, False, False, True, True]


MISTAKES = {
    "misspelt": (
        ["embeding"],
        ["no part named embeding", "embedding, blocks.0-2, norm, unembedding", "did you mean embedding?"],
    ),
    "beyond the last": (["blocks.0-3"], ["no part named blocks.3, which blocks.0-3 includes", "blocks.0-2"]),
    "backwards": (["blocks.2-1"], ["no part named blocks.2-1"]),
    "half a name": (["block"], ["no part named block", "did you mean blocks?"]),
    "empty": ([""], ["train.freeze"]),
    "everything": (["embedding", "blocks", "norm"], ["embedding, blocks, norm freezes every parameter"]),
    "a range without end": (["blocks.0-99999999999999999999"], ["no part named blocks.0-9"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_part_that_cant_be_frozen_is_named_beside_what_there_is(tune, runs, mistake):
    words, expected = MISTAKES[mistake]
    one_line(tune("--train.freeze", json.dumps(words)), "train.freeze", *expected)
    assert not (runs / "tuned").exists()


def test_a_run_whose_every_checkpoint_is_damaged_doesnt_start_from_chance(shell, tune, runs):
    assert tune()[0] == 0
    for file in (runs / "tuned/checkpoints").glob("step-*/model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    code, _, err = shell("train.py", "--resume", "--run", "tuned", "--train.steps", "12")
    assert code == 1 and "no intact checkpoint" in err.splitlines()[-1] and "--overwrite" in err
    assert len(list((runs / "tuned/checkpoints").glob("step-*"))) == 2
