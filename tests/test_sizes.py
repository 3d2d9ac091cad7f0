"""Sizes that are left open: chosen from the text and the time, and nothing else."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import OutOfMemoryError

from configs.command import check, read
from configs.errors import UserError
from configs.schema import Config, DataConfig, GPTConfig
from data.corpus import open_corpus
from data.prepare import prepare
from data.shards import Prepared
from tests.conftest import ROOT
from training.sizes import (
    BUSY,
    DROPOUT,
    HELD_OUT,
    LADDER,
    PASSES,
    TOO_SHORT,
    choose_network,
    choose_rates,
    choose_split,
    chosen,
    plan_text,
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


FOX = "The quick brown fox jumps over the lazy dog.\n"  # 45 bytes, 30 different characters


def numbers_of_the_table(
    folder: Path, capsys, lines: int, seconds: dict[int, float], **more: object
) -> dict[str, list]:
    """The numbers in each row of what is chosen for so many foxes, where steps take `seconds` by layers and width."""
    (folder / "fox.txt").write_text(FOX * lines)
    asked = read(str(ROOT / "configs/text.toml")) | {"data.path": [str(folder / "fox.txt")], "train.device": "cpu"}
    asked |= {name.replace("__", "."): value for name, value in more.items()}
    asked = {name: value for name, value in asked.items() if value is not None}
    plan_text(check(asked, {}), None, lambda data, config: seconds[config.model.n_layer * config.model.n_embd])
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().err.splitlines()[1:]]
    number = r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?"
    return {name: re.findall(number, rest) for name, rest in rows if re.search(number, rest)}


def test_every_number_of_what_is_chosen_is_arithmetic(tmp_path, capsys):
    shown = numbers_of_the_table(tmp_path, capsys, 2_000, {2 * 64: 1.02, 4 * 64: 2.05})
    small = 2 * (12 * 64 * 64 + 13 * 64) + 30 * 64 + 2 * 64
    large = 4 * (12 * 64 * 64 + 13 * 64) + 30 * 64 + 2 * 64
    read_by_small = round(BUSY * 5 * 60 / 1.02) * 16 * 64  # tokens in five minutes, evaluations left out
    read_by_large = round(BUSY * 5 * 60 / 2.05) * 16 * 64
    assert shown == {
        "data.val_fraction": ["0.1", "9,000", "90,000"],
        "data.tokenizer": ["30"],
        "model.n_layer": [
            "2",
            f"{small:,}",
            f"{read_by_small / small:.2g}",
            f"{large:,}",
            f"{read_by_large / large:.2g}",
        ],
        "model.n_head": ["2", "32"],
        "model.n_embd": ["64"],
        "model.context_length": ["64", "64"],
        "train.batch_size": ["16", "1,024"],
        "optim.lr": ["0.015"],
        "optim.muon_lr": ["0.04"],
    }


def test_every_number_of_what_is_chosen_for_much_time_is_arithmetic(tmp_path, capsys):
    ladder = {2 * 64: 0.01, 4 * 64: 0.01, 4 * 96: 0.01, 4 * 128: 0.1, 4 * 192: 1.7}
    shown = numbers_of_the_table(tmp_path, capsys, 2_000, ladder, data__tokenizer="byte")
    chosen_, larger = (4 * (12 * C * C + 13 * C) + 257 * C + 2 * C for C in (128, 192))
    a_pass = 81_000 / (16 * 128)  # steps
    steps = -(-30 * 81_000 // (16 * 128))  # thirty times through the text, which five minutes are more than enough for
    slow = round(BUSY * 300 / 1.7) / a_pass * 81_000 / larger
    assert shown == {
        "data.val_fraction": ["0.1", "9,000", "90,000"],
        "model.n_layer": ["4", f"{chosen_:,}", f"{30 * 81_000 / chosen_:.2g}", f"{larger:,}", f"{slow:.2g}"],
        "model.n_head": ["2", "64"],
        "model.n_embd": ["128"],
        "model.context_length": ["128", "128"],
        "train.batch_size": ["16", "2,048"],
        "train.steps": [f"{steps:,}", "30", "2"],  # 1,187 steps of 0.1 s are 2 minutes
        "model.dropout": ["0.1"],
        "optim.lr": ["0.015"],
        "optim.muon_lr": ["0.04"],
    }


def test_every_number_of_what_is_chosen_for_a_poem_is_arithmetic(tmp_path, capsys):
    shown = numbers_of_the_table(tmp_path, capsys, 10, {2 * 64: 0.2, 4 * 64: 0.3}, model__dropout=0.0)
    small, large = (L * (12 * 64 * 64 + 13 * 64) + 30 * 64 + 2 * 64 for L in (2, 4))
    most = 30 * 450  # tokens; five minutes would be enough for more, which counts no more
    assert shown == {
        "data.val_fraction": ["0", "450"],
        "data.tokenizer": ["30"],
        "model.n_layer": [
            "2",
            f"{small:,}",
            f"{most / small:.2g}",
            f"{large:,}",
            f"{most / large:.2g}",
        ],
        "model.n_head": ["2", "32"],
        "model.n_embd": ["64"],
        "model.context_length": ["64", "64"],
        "train.batch_size": ["4", "256"],
        "train.steps": ["200", f"{200 * 4 * 64 / 450:.0f}", "40"],  # 200 steps of 0.2 s
        "optim.lr": ["0.015"],
        "optim.muon_lr": ["0.04"],
    }


def test_epochs_and_batches_of_a_step_count_in_what_is_chosen(tmp_path, capsys):
    more = {"train__minutes": None, "train__epochs": 2.6, "train__accumulate": 3}
    shown = numbers_of_the_table(tmp_path, capsys, 2_000, {2 * 64: 1.0, 4 * 64: 1.0, 4 * 96: 1.0}, **more)
    sizes = [4 * (12 * C * C + 13 * C) + 30 * C + 2 * C for C in (64, 96)]
    read_ = round(2.6 * 81_000 / (3 * 16 * 64)) * 3 * 16 * 64  # tokens
    each = [f"{read_ / parameters:.2g}" for parameters in sizes]
    assert each == ["1", "0.47"]  # the largest network that reads a token for each parameter
    assert shown["model.n_layer"] == ["4", f"{sizes[0]:,}", each[0], f"{sizes[1]:,}", each[1]]


def test_steps_read_all_their_batches_and_a_view_is_as_long_as_its_characters(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tests.test_sizes.FOX", "äöü" * 15)  # 45 characters of two bytes each
    more = {"train__minutes": None, "train__steps": 50, "train__accumulate": 3}
    shown = numbers_of_the_table(tmp_path, capsys, 2_000, {2 * 64: 1.0, 4 * 64: 1.0}, **more)
    small, large = (L * (12 * 64 * 64 + 13 * 64) + 3 * 64 + 2 * 64 for L in (2, 4))
    each = [f"{50 * 3 * 16 * 64 / parameters:.2g}" for parameters in (small, large)]
    assert each == ["1.5", "0.77"] and shown["model.context_length"] == ["64", "128"]
    assert shown["model.n_layer"] == ["2", f"{small:,}", each[0], f"{large:,}", each[1]]
