"""Sizes that are left open: chosen from the text and the time, and nothing else."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import OutOfMemoryError

from configs.command import check
from configs.errors import UserError
from configs.schema import Config, DataConfig, GPTConfig
from data.corpus import open_corpus
from data.prepare import prepare
from data.shards import Prepared
from tests.conftest import ROOT
from training.sizes import (
    DROPOUT,
    HELD_OUT,
    LADDER,
    PASSES,
    TOO_SHORT,
    choose_network,
    choose_rates,
    choose_split,
    chosen,
)

OPEN = {"model.kind": "gpt", "data.path": ["x"], "train.device": "cpu"}
quick = settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])


def prepared(folder: Path, text: str, val_fraction: float = 0.1) -> Prepared:
    """A text as byte tokens."""
    (folder / "t.txt").write_text(text)
    config = DataConfig(path=[str(folder / "t.txt")], tokenizer="byte", val_fraction=val_fraction)
    return prepare(open_corpus(config), config)


def choose(text: Prepared, speed: float = 1e9, **given_: object) -> Config:
    """What is chosen on a machine that makes so many multiplications a second."""

    def time_step(data: object, config: Config) -> float:
        model, train = config.model, config.train
        assert isinstance(model, GPTConfig)
        each = 12 * model.n_layer * model.n_embd**2 + 2 * model.n_embd * model.vocab_size
        return 6 * each * train.batch_size * model.context_length / speed

    asked = {
        **OPEN,
        "train.minutes": 5.0,
        "model.vocab_size": 257,
        **{k.replace("__", "."): v for k, v in given_.items()},
    }
    if asked.keys() & {"train.steps", "train.epochs"}:
        del asked["train.minutes"]
    return check(chosen(asked, choose_network(asked, text, time_step)), {})


def rung(config: Config) -> int:
    """Which network of the ladder it is."""
    assert isinstance(config.model, GPTConfig)
    found = (config.model.n_layer, config.model.n_embd)
    return [(size.n_layer, size.n_embd) for size in LADDER].index(found)


@pytest.fixture(scope="module")
def play(tmp_path_factory) -> Prepared:
    """A text of 300 kB."""
    return prepared(tmp_path_factory.mktemp("play"), "To be, or not to be, that is the question. " * 7_000)


def test_more_time_or_a_faster_machine_never_gives_a_smaller_network(play):
    for speeds, minutes in (((1e8, 1e9, 1e10, 1e12), (5.0,) * 4), ((1e9,) * 4, (0.1, 1.0, 10.0, 1e4))):
        found = [rung(choose(play, s, train__minutes=m)) for s, m in zip(speeds, minutes, strict=True)]
        assert found == sorted(found) and found[0] < found[-1]


@pytest.mark.parametrize("error", [RuntimeError("can't allocate memory: 9 bytes"), MemoryError(), OutOfMemoryError()])
def test_the_largest_network_that_fits_into_memory_is_taken(play, error):
    def time_step(data: object, config: Config) -> float:
        if rung(config) > fitting:
            raise error
        return 1e-6

    for fitting in (0, 2):
        settings_ = OPEN | {"train.minutes": 5.0, "model.vocab_size": 257}
        assert rung(check(chosen(settings_, choose_network(settings_, play, time_step)), {})) == fitting
    fitting = -1
    with pytest.raises(UserError, match="out of memory"):
        choose_network(settings_, play, time_step)


def test_more_text_never_gives_a_smaller_network(tmp_path):
    texts = [prepared(tmp_path, "A rose is a rose. " * n) for n in (100, 1_000, 10_000, 50_000)]
    found = [rung(choose(text, speed=1e13)) for text in texts]
    assert found == sorted(found) and found[0] < found[-1]


def test_a_network_reads_at_least_a_token_for_each_parameter_unless_it_is_the_smallest(play):
    for speed in (1e8, 1e9, 1e10):
        config = choose(play, speed)
        model, train = config.model, config.train
        assert isinstance(model, GPTConfig)
        if rung(config):
            each = 6 * (12 * model.n_layer * model.n_embd**2 + 2 * model.n_embd * model.vocab_size)
            parameters = 12 * model.n_layer * model.n_embd**2 + 257 * model.n_embd
            read = min(0.85 * 300 * speed / each, 15 * play.counts["train"])
            assert read > 0.9 * parameters
        assert train.batch_size >= 4


@quick
@given(width=st.integers(1, 300), layers=st.integers(1, 3))
def test_what_the_user_has_set_stays_and_the_rest_fits_to_it(play, width, layers):
    config = choose(play, model__n_embd=width, model__n_layer=layers, train__batch_size=7)
    assert isinstance(config.model, GPTConfig)
    assert (config.model.n_embd, config.model.n_layer, config.train.batch_size) == (width, layers, 7)
    assert width % config.model.n_head == 0


@quick
@given(length=st.integers(60, 4_000))
def test_every_window_fits_into_a_text_however_short(tmp_path, length):
    split = choose_split(length)
    text = prepared(tmp_path, "abcdefg. " * (length // 9 + 1), split.value)
    config = choose(text)
    assert isinstance(config.model, GPTConfig)
    assert config.model.context_length < min(text.counts.values())


def test_a_short_text_is_not_read_until_it_is_known_by_heart(tmp_path, play):
    config = choose(prepared(tmp_path, "The rose is red. " * 2_000), speed=1e12)
    assert config.train.minutes is None and isinstance(config.model, GPTConfig)
    passes = config.train.steps * config.train.batch_size * config.model.context_length / (34_000 * 0.9)
    assert PASSES - 1 < passes < PASSES + 1
    assert choose(play, speed=1e8).train.minutes == 5, "where time is short, time decides"


def test_steps_and_epochs_are_budgets_too(play):
    assert rung(choose(play, train__steps=50)) < rung(choose(play, train__steps=20_000))
    assert rung(choose(play, train__epochs=0.1)) < rung(choose(play, train__epochs=15.0))


def test_dropout_is_for_networks_that_could_learn_the_text_by_heart(tmp_path, play):
    small = choose(prepared(tmp_path, "The rose is red. " * 1_000), speed=1e12).model
    assert small is not None and small.dropout == DROPOUT
    assert choose(play, speed=1e8).model.dropout == 0


@pytest.mark.parametrize(("size", "held"), [(10, 0), (TOO_SHORT, 200), (10**6, 10**5), (10**9, HELD_OUT)])
def test_a_tenth_is_held_out_but_never_more_than_is_of_use(size, held):
    assert choose_split(size).value * size == pytest.approx(held)


@pytest.mark.parametrize(("name", "rates"), [("muon", ["optim.lr", "optim.muon_lr"]), ("adamw", ["optim.lr"])])
def test_a_trained_network_gets_a_third_of_its_optimisers_rates(name, rates):
    new, tuned = (choose_rates({"optim.name": name}, tuning) for tuning in (False, True))
    assert [c.name for c in new] == [c.name for c in tuned] == rates
    assert [t.value / n.value for n, t in zip(new, tuned, strict=True)] == pytest.approx([1 / 3] * len(rates))
    assert [c.name for c in choose_rates({"optim.name": name, "optim.lr": 1.0}, False)] == rates[1:]


@pytest.fixture
def hasty(monkeypatch):
    """Networks are tried for one step each."""
    monkeypatch.setattr("training.plan.TRIAL_SECONDS", 0)


def test_own_text_needs_one_command_and_the_plan_says_why(shell, workplace, poem, hasty):
    code, _, err = shell("train.py", ROOT / "configs/text.toml", "--data.path", poem, "--train.steps", "4")
    assert code == 0, err
    for name in ("data.val_fraction", "model.position", "model.n_layer", "model.context_length", "optim.muon_lr"):
        assert any(line.startswith(name) and len(line.split()) > 3 for line in err.splitlines()), name
    resolved = json.loads((workplace / "runs/text/run.json").read_text())["resolved"]
    assert resolved["model"]["kind"] == "gpt" and resolved["data"]["tokenizer"] in err
    assert shell("sample.py", "text", "--max-tokens", 5)[0] == 0
    assert shell("train.py", "--resume", "--run", "text", "--train.steps", 6)[0] == 0


@pytest.mark.parametrize(
    ("sizes", "position"),
    [
        ({"n_embd": 33}, "learned"),
        ({"n_embd": 34}, "rotary"),
        ({"n_embd": 36, "n_head": 12}, "learned"),
        ({"n_embd": 24, "n_head": 12}, "rotary"),
        ({"n_head": 32}, "learned"),
    ],
)
def test_positions_are_turned_wherever_heads_have_pairs(shell, workplace, poem, hasty, sizes, position):
    words = ["--data.path", poem, "--train.steps", "1"]
    words += [word for name, value in sizes.items() for word in (f"--model.{name}", value)]
    assert shell("train.py", ROOT / "configs/text.toml", *words)[0] == 0
    model = json.loads((workplace / "runs/text/run.json").read_text())["resolved"]["model"]
    assert model["position"] == position and (position == "learned" or model["n_embd"] // model["n_head"] % 2 == 0)


def test_a_trained_network_goes_on_with_own_text(shell, workplace, tiny, poem, hasty):
    shell("train.py", *tiny, "--run", "base")
    words = [ROOT / "configs/text.toml", "--data.path", poem, "--train.start", "base", "--run", "tuned"]
    code, _, err = shell("train.py", *words, "--train.steps", 3)
    assert code == 0, err
    resolved = json.loads((workplace / "runs/tuned/run.json").read_text())["resolved"]
    assert resolved["model"]["position"] == "learned"
    assert resolved["model"]["n_embd"] == 16 and resolved["optim"]["lr"] == pytest.approx(0.005)


@pytest.mark.parametrize("text", ["", "a", "ab"])
def test_a_text_of_nearly_nothing_is_one_line(shell, workplace, text, hasty):
    (workplace / "t.txt").write_text(text)
    code, out, err = shell("train.py", ROOT / "configs/text.toml", "--data.path", "t.txt")
    assert (code, out) == (2, "") and err.splitlines()[-1].startswith("error: ") and "Traceback" not in err
    assert not Path("runs").exists()
