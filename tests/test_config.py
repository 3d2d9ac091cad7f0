"""What a config may say, where each setting comes from, and how a mistake in it is answered."""

import math
from pathlib import Path
from typing import Any

import pytest

from configs.command import CLI, EXAMPLE, SETTINGS, check, explain, flatten, located, parse, read, shown, unflatten
from configs.errors import UserError
from configs.schema import DURATIONS, AutoConfig, Config, GPTConfig, LoRAConfig, MLPConfig

TEXT = {"model.kind": "gpt", "data.path": ["a.txt"], "train.steps": 3}
DIGITS = {"model.kind": "mlp", "data.path": ["mnist"], "train.steps": 3}
AUTO = {**TEXT, "model.kind": "auto"}
ADAPTED = {"data.path": ["a.txt"], "train.steps": 3, "train.start": "base", "model.kind": "gpt"}
GOOD = '[model]\nkind = "gpt"\n[data]\npath = "a.txt"\n[train]\nsteps = 3\n'
TINY, HUGE = math.ulp(0.0), 1.7e308
BELOW_ONE = math.nextafter(1, 0)
COUNT = (1, 2**40)
BOUNDS: dict[str, tuple[Any, Any]] = {  # the least and the greatest number that are taken
    "model.n_layer": (1, 512),
    "model.n_head": (1, 2**20),
    "model.n_embd": (1, 2**20),
    "model.vocab_size": (1, 2**24),
    "model.context_length": (2, 2**24),
    "model.dropout": (0.0, BELOW_ONE),
    "model.lora.rank": (1, 2**20),
    "model.lora.alpha": (TINY, HUGE),
    "data.vocab_size": (257, 2**20),
    "data.val_fraction": (0.0, 0.5),
    "optim.lr": (TINY, HUGE),
    "optim.muon_lr": (TINY, HUGE),
    "optim.min_lr": (0.0, HUGE),
    "optim.warmup_steps": (0, 2**40),
    "optim.momentum": (0.0, BELOW_ONE),
    "optim.weight_decay": (0.0, HUGE),
    "optim.l1": (0.0, HUGE),
    "optim.grad_clip": (0.0, HUGE),
    "train.steps": (0, 2**40),
    "train.epochs": (TINY, HUGE),
    "train.minutes": (TINY, HUGE),
    "train.batch_size": COUNT,
    "train.accumulate": COUNT,
    "train.eval_every": COUNT,
    "train.save_every": COUNT,
    "train.keep": (0, 2**40),
    "train.patience": (0, 2**40),
    "train.seed": (0, 2**63 - 1),
    "train.threads": COUNT,
    "log.every": COUNT,
    "log.sample_tokens": (0, 2**40),
}


def around(name: str, value: Any) -> dict[str, Any]:
    """A config that is good but for this setting."""
    if name == "model.n_embd":
        return TEXT | {"model.n_head": 1, name: value}
    if name == "model.n_head":
        return TEXT | {name: value, "model.n_embd": value}
    base = ADAPTED if ".lora." in name else TEXT
    if name.removeprefix("train.") in DURATIONS:
        base = {key: known for key, known in base.items() if key != "train.steps"}
    return base | {name: value}


def taken(name: str, value: Any) -> Any:
    """The setting as the config has it."""
    found: Any = check(around(name, value), {})
    for part in name.split("."):
        found = getattr(found, part)
    return found


def refusal(settings: dict[str, Any], origins: dict[str, str] | None = None) -> str:
    """The line that answers this config."""
    with pytest.raises(UserError) as caught:
        check(settings, origins or {})
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("name", BOUNDS)
def test_a_number_is_taken_up_to_its_bounds_and_refused_beyond_them(name):
    least, greatest = BOUNDS[name]
    assert taken(name, least) == least and taken(name, greatest) == greatest
    beyond = (least - 1, greatest + 1) if isinstance(least, int) else (math.nextafter(least, -1),)
    for number in (*beyond, *([math.nextafter(greatest, HUGE)] if greatest in (0.5, BELOW_ONE) else [])):
        assert refusal(around(name, number)).startswith(f"config: {name}")


def test_every_number_has_bounds_that_are_tested():
    numbers = {name for name in SETTINGS if isinstance(taken_or_none(name), int | float)}
    assert numbers - {name for name in numbers if isinstance(taken_or_none(name), bool)} <= BOUNDS.keys()


def taken_or_none(name: str) -> Any:
    """What a config of text or digits has by default."""
    for settings in (TEXT, DIGITS):
        found: Any = check(settings, {})
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not None:
            return found
    return None


def test_an_automatic_network_has_the_bounds_of_a_chosen_one():
    for name in ("n_layer", "n_head", "n_embd", "context_length"):
        least, greatest = BOUNDS[f"model.{name}"]
        for number in (least, greatest):
            assert getattr(check(AUTO | {f"model.{name}": number}, {}).model, name) == number
        for number in (least - 1, greatest + 1):
            assert f"model.{name}" in refusal(AUTO | {f"model.{name}": number})


def test_a_digit_network_has_two_layers_of_numbers_at_least_and_513_at_most():
    for sizes in ([1, 1], [2**20, 1], [1] * 513):
        assert check(DIGITS | {"model.sizes": sizes}, {}).model == MLPConfig(sizes=sizes)
    for sizes in ([], [1], [1] * 514, [0, 1], [2**20 + 1, 1]):
        assert "model.sizes" in refusal(DIGITS | {"model.sizes": sizes})


def test_lists_hold_what_they_need_and_no_more():
    assert taken("optim.betas", [0.0, BELOW_ONE]) == [0.0, BELOW_ONE]
    for betas in ([0.9], [0.9] * 3, [0.9, 1.0], [-TINY, 0.9]):
        assert "optim.betas" in refusal(TEXT | {"optim.betas": betas})
    assert len(taken("data.path", ["a"] * 10_000)) == 10_000
    for path in ([], ["a"] * 10_001, [""], ""):
        assert "data.path" in refusal(TEXT | {"data.path": path})
    assert "data.field" in refusal(TEXT | {"data.field": ""})
    assert taken("data.field", "f") == "f"
    assert "model.lora.targets" in refusal(ADAPTED | {"model.lora.targets": []})


def test_a_single_word_stands_for_a_list_of_one():
    for name in ("data.path", "data.extensions", "train.freeze"):
        assert taken(name, "x") == ["x"] == taken(name, ["x"])
    assert taken("model.lora.targets", "value") == ["value"]
    assert "data.path" in refusal(TEXT | {"data.path": 3})


def test_a_device_is_one_that_torch_could_have():
    for device in ("auto", "cpu", "mps", "cuda", "cuda:0", "cuda:12"):
        assert taken("train.device", device) == device
    for device in ("", "gpu", "cuda:", "cuda:x", "xcuda", "cpu:0", "cuda0", "cpu\n"):
        assert "train.device" in refusal(TEXT | {"train.device": device})


def test_heads_divide_the_width_and_waves_come_in_pairs():
    with pytest.raises(ValueError, match="n_embd=10 is not divisible by n_head=4"):
        GPTConfig(n_embd=10, n_head=4)
    with pytest.raises(ValueError, match="need an even width, got n_embd=9"):
        GPTConfig(n_embd=9, n_head=3, position="sinusoidal")
    with pytest.raises(ValueError, match="need an even head size, got n_embd / n_head = 3"):
        GPTConfig(n_embd=12, n_head=4, position="rotary")
    assert GPTConfig(n_embd=9, n_head=3).n_embd == 9
    assert GPTConfig(n_embd=12, n_head=3, position="sinusoidal").n_embd == 12


def test_a_run_has_exactly_one_length():
    rest = {name: value for name, value in TEXT.items() if name != "train.steps"}
    needs = "config: [train] needs exactly one of steps, epochs and minutes, got"
    assert refusal(rest) == "config: train is missing"
    assert refusal(rest | {"train.seed": 3}) == f"{needs} none"
    assert refusal(TEXT | {"train.minutes": 2.0}) == f"{needs} steps and minutes"
    assert refusal(TEXT | {"train.epochs": 1.5, "train.minutes": 2.0}) == f"{needs} steps and epochs and minutes"
    assert DURATIONS == ("steps", "epochs", "minutes")


def test_a_network_comes_from_the_config_or_from_where_it_starts():
    without = {"data.path": ["a.txt"], "train.steps": 3}
    assert "[model] is missing" in refusal(without)
    assert check(without | {"train.start": "base"}, {}).model is None
    assert "train.start" in refusal(TEXT | {"model.lora.rank": 4})
    assert check(ADAPTED | {"model.lora.rank": 4}, {}).model == GPTConfig(lora=LoRAConfig(rank=4))


def test_a_model_is_of_a_kind_that_there_is():
    kinds = {"mlp": MLPConfig, "gpt": GPTConfig, "auto": AutoConfig}
    for kind, config in kinds.items():
        assert type(check(TEXT | {"model.kind": kind}, {}).model) is config
    for wrong in ({"model.kind": "cnn"}, {"model.kind": 3}):
        assert refusal(TEXT | wrong) == 'config: model.kind must be "mlp", "gpt" or "auto"'
    assert (
        refusal({**DIGITS, "model.n_layer": 3}) == "config: unknown setting model.n_layer; did you mean model.n_head?"
    )


def write(folder: Path, **files: str) -> list[str]:
    """Config files, by stem."""
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    return [f"{name}.toml" for name in files]


def test_later_files_win_key_by_key_and_the_command_line_last(workplace):
    files = write(workplace, one=GOOD, two='[train]\nseed = 4\nbatch_size = 5\n[optim]\nname = "muon"\n')
    command = parse([*files, "--train.batch-size", "6", "--data.path=b-c.txt"])
    assert command.settings == {
        "model.kind": "gpt", "data.path": ["b-c.txt"], "train.steps": 3, "train.seed": 4,
        "train.batch_size": 6, "optim.name": "muon",
    }  # fmt: skip
    assert command.origins == {
        "model.kind": "one.toml", "data.path": CLI, "train.steps": "one.toml", "train.seed": "two.toml",
        "train.batch_size": CLI, "optim.name": "two.toml",
    }  # fmt: skip
    assert CLI == "command line"


def test_a_length_replaces_the_one_that_was_given_before(workplace):
    files = write(workplace, one=GOOD, two="[train]\nminutes = 2\n", three="[train]\nseed = 1\n")
    assert parse(files[:1]).settings["train.steps"] == 3
    command = parse(files)
    assert "train.steps" not in command.settings and "train.steps" not in command.origins
    assert command.settings["train.minutes"] == 2 and command.origins["train.minutes"] == "two.toml"
    assert parse([*files, "--train.epochs", "0.5"]).settings.keys() >= {"train.epochs", "train.seed"}
    assert "train.minutes" not in parse([*files, "--train.epochs", "0.5"]).settings


def test_a_run_is_named_by_its_first_config_unless_it_is_named(workplace):
    files = write(workplace, one=GOOD, two="[train]\nseed = 4\n")
    plain = parse(files)
    assert (plain.run, plain.resume, plain.overwrite, plain.dry_run) == ("one", False, False, False)
    assert parse([*files, "--run", "x"])[2:] == ("x", False, False, False)
    assert parse([*files, "--resume"])[2:] == ("one", True, False, False)
    assert parse([*files, "--overwrite"])[2:] == ("one", False, True, False)
    for word in ("--dry-run", "--dry_run"):
        assert parse([*files, word])[2:] == ("one", False, False, True)
    assert parse(["--resume", "--run", "x"]) == ({}, {}, "x", True, False, False)


def test_without_a_config_or_a_run_to_go_on_with_the_usage_is_shown(workplace):
    write(workplace, one=GOOD)
    for words in ([], ["--run", "x"], ["--resume"], ["--train.seed", "3"]):
        with pytest.raises(UserError, match=r"^no config given\. Usage: python train\.py CONFIG"):
            parse(words)
    with pytest.raises(UserError, match="use only one of them"):
        parse(["one.toml", "--resume", "--overwrite"])


def test_help_names_the_program_every_setting_and_an_example(workplace, capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    said = capsys.readouterr().out
    assert said.startswith("usage: python train.py CONFIG...") and "\nTrain a network.\n" in said
    assert " ".join(said.split()).endswith(f" {EXAMPLE}") and EXAMPLE.startswith("for example: python train.py ")
    assert all(f"--{name} " in said for name in SETTINGS if name != "model.lora")
    for flag in (
        "the run, or start it if it does not exist",
        "replace the run if it exists",
        "print the plan and exit",
    ):
        assert f" {flag} " in " ".join(said.split())
    assert "--no-" not in said  # what no one has to turn off
    assert not any(word in said for word in ("null", "JSON", "None}"))


@pytest.mark.parametrize(
    ("words", "name", "found"),
    [
        (["--data.path", "a.txt", "b.txt"], "data.path", ["a.txt", "b.txt"]),
        (["--data.path=a.txt", "b.txt", "--train.seed", "3"], "data.path", ["a.txt", "b.txt"]),
        (["--data.path", '["a", "b"]'], "data.path", ["a", "b"]),
        (["--data.path", "[a]*.txt"], "data.path", ["[a]*.txt"]),
        (["--data.path", "a=b.txt"], "data.path", ["a=b.txt"]),
        (["--train.seed", "3", "--data.path", "x"], "data.path", ["x"]),
        (["--data.extensions", "md", "txt"], "data.extensions", ["md", "txt"]),
        (["--train.freeze", "embedding", "blocks.0"], "train.freeze", ["embedding", "blocks.0"]),
        (["--model.lora.targets", "query", "up", "--train.start", "b"], "model.lora.targets", ["query", "up"]),
        (["--train.start", "a-b"], "train.start", "a-b"),
        (["--train.start=a=b-c"], "train.start", "a=b-c"),
        (["--train.eval-every", "7"], "train.eval_every", 7),
    ],
)
def test_words_of_a_command_line_become_settings(workplace, words, name, found):
    assert parse([*write(workplace, one=GOOD), *words]).settings[name] == found


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--train.seed", "3", ""], "unexpected argument ''"),  # "$EXTRA" where it is empty
        (["--train.seed", "3", "more"], "unexpected argument 'more'"),
        (["--model.sizes", "[784,", "16,", "10]"], "unexpected argument '16,'"),
        (["--model.sizes=[784,"], "put a list in quotes"),
        (["--model.sizes={'a': 1}"], "put a list in quotes"),
        (["--data.path"], "--data.path needs a value"),
        (["--data.path", "--train.seed", "3"], "--data.path needs a value"),
        (["--run", "-x"], "--run needs a value; if it starts with -, use =, as in --run=-x"),
        (["--data.path", "a.txt", "-x.txt"], "unknown option -x.txt; if it is a file, write ./-x.txt"),
        (["--data.path", ""], "data.path.0: string should have at least 1 character, got ''"),
        (["--data.path="], "data.path.0: string should have at least 1 character, got ''"),
        (["--train.start="], "train.start: string should have at least 1 character, got ''"),
        (["--train.seed", "--run", "a", "3"], "unexpected argument '3'"),
        (["--train={x"], "put a list in quotes"),
        (["--seed", "3"], "unknown option --seed; did you mean --train.seed?"),
        (["--dropout=3"], "unknown option --dropout; did you mean --model.dropout?"),
        (["--vocab-size=3"], "did you mean --model.vocab_size or --data.vocab_size?"),
        (["--train.sed=3"], "unknown option --train.sed; did you mean --train.seed?"),
        (["--zzzzzzzzzz"], "unknown option --zzzzzzzzzz"),
        (["--train.seed"], "argument --train.seed: expected one argument"),
    ],
)
def test_a_word_that_cant_be_understood_is_one_line(workplace, words, answer):
    with pytest.raises(UserError) as caught:
        parse([*write(workplace, one=GOOD), *words])
    said = str(caught.value)
    assert caught.value.exit_code == 2 and said.startswith(f"{CLI}: ") and answer in said and "\n" not in said
    assert said.count("did you mean") == answer.count("did you mean")


def test_a_file_is_read_up_to_256_kb_and_256_dots_in_a_line(tmp_path):
    file = tmp_path / "a.toml"
    said = f"[train]\nsteps = 1\n#{'.' * 255}.\n#"
    file.write_text(said + "x" * (2**18 - len(said)))
    assert read(str(file)) == {"train.steps": 1}
    for text, answer in (
        (said + "x" * (2**18 - len(said) + 1), " is too large for a config: the limit is 262,144 bytes"),
        (f"[train]\n#{'.' * 257}", ": line 2 has more than 256 dots; split it"),
        ("a = 'b\n", " is not valid TOML: "),
        ('"a.b" = 1', " is not valid TOML: key 'a.b' contains a dot"),
        ("a = " + "[" * 20_000, " is nested too deeply for a config"),
    ):
        file.write_text(text)
        with pytest.raises(UserError) as caught:
            read(str(file))
        assert str(caught.value).startswith(f"{file}{answer}")
    with pytest.raises(UserError, match=f"^{tmp_path}: Is a directory$"):
        read(str(tmp_path))


def test_a_config_that_is_not_there_is_answered_with_the_nearest_or_with_all(workplace):
    (workplace / "configs").mkdir()
    (workplace / "configs/mnist.toml").write_text("")
    (workplace / "configs/mnist.txt").write_text("")
    (workplace / "configs/python.toml").write_text("")
    for name in ("configs/mnits.toml", "mnits.toml", "mnist"):
        with pytest.raises(UserError) as caught:
            read(name)
        assert str(caught.value) == f"config not found: {name}; did you mean configs/mnist.toml?"
    for name in ("nothing.toml", "configs/nothing.toml", "elsewhere"):  # a folder in common is no likeness
        with pytest.raises(UserError) as caught:
            read(name)
        assert str(caught.value) == f"config not found: {name}; available: configs/mnist.toml, configs/python.toml"


def test_where_there_are_no_configs_a_missing_one_is_only_named(workplace):
    with pytest.raises(UserError, match=r"^config not found: elsewhere$"):
        read("elsewhere")


def test_names_with_dots_are_tables_in_tables_there_and_back():
    tree = {"a": 1, "b": {"c": 2, "d": {"e": [3]}, "f": {}}}
    flat = {"a": 1, "b.c": 2, "b.d.e": [3], "b.f": {}}
    assert flatten(tree) == flat and unflatten(flat) == tree
    assert flatten({"a": {}}) == {}
    for given in ({"a.b": {}, "a.b.c": 1}, {"a.b.c": 1, "a.b": {}}):
        assert unflatten(given) == {"a": {"b": {"c": 1}}}
    with pytest.raises(UserError, match=r"^a\.b: a is both a value and a table$"):
        unflatten({"a": 1, "a.b": 2})


def test_a_mistake_is_looked_for_where_the_setting_was_given_last():
    origins = {"model.kind": "one.toml", "train.steps": "two.toml", "train.seed": CLI, "optim.lr": "three.toml"}
    assert refusal(TEXT | {"train.seed": -1}, origins).startswith(f"{CLI}: train.seed: ")
    assert refusal(TEXT | {"optim.lr": "x"}, origins) == (
        "three.toml: optim.lr: input should be a valid number, got 'x'"
    )
    assert refusal(TEXT | {"train.steps": 3.5, "train.seeds": 1}, {"train.steps": "two.toml"}).startswith("two.toml: ")
    assert refusal({"train.start": "b", "train.steps": 3}, {"train.steps": "two.toml"}) == "two.toml: data is missing"
    assert refusal({"model": 3, **TEXT} | {"model.kind": "gpt"}).startswith("model.kind: model is both a value")
    table = {"data.path": ["a"], "train.steps": 3, "optim.betas": [0.9, 2.0]}
    assert refusal(table | {"train.start": "b"}, {"optim.betas": "four.toml"}).startswith("four.toml: optim.betas.1: ")


def test_what_is_wrong_is_named_before_what_is_missing():
    assert refusal({"log.every": 0}).startswith("config: log.every: ")
    assert refusal({"trian.steps": 3}) == "config: unknown setting trian; did you mean train?"
    assert refusal({"log.evry": 3}) == "config: unknown setting log.evry; did you mean log.every?"


def test_a_value_is_shown_as_far_as_it_fits():
    assert shown("a" * 198) == repr("a" * 198)
    assert shown("a" * 199) == f"'{'a' * 199}..."
    assert shown(10**5000) == "a value too large to show"
    deep: list = []
    for _ in range(10**5):
        deep = [deep]
    assert shown(deep) == "a value too large to show"


def test_an_error_of_the_whole_config_has_all_files_for_its_place():
    error = {"loc": (), "type": "value_error", "msg": "Value error, no", "input": {}}
    origins = {"train.steps": "one.toml", "model.kind": "two.toml", "train.seed": CLI, "data.path": "one.toml"}
    assert explain(error, origins) == "one.toml and two.toml: no"
    assert explain(error, {"train.steps": CLI}) == f"{CLI}: no"
    assert explain(error, {}) == "config: no"


GPT, LENGTH = "model.kind = 'gpt'", "train.steps = 3"
CLASHES = {  # lines of one.toml, of two.toml, words, and how the answer begins
    "width on the command line": (
        ["model.n_head = 4"], [], ["--model.n_embd", "130"],
        "command line (model.n_embd) and one.toml (model.n_head): n_embd=130 is not divisible by n_head=4",
    ),
    "width against the default": (
        [], [], ["--model.n_embd=130"],
        "command line (model.n_embd) and the default (model.n_head): n_embd=130 is not divisible by n_head=12",
    ),
    "both in a file": (["model.n_head = 4", "model.n_embd = 130"], [], ["--train.seed", "1"], "one.toml: n_embd=130 "),
    "in two files": (
        ["model.n_head = 4"], ["model.n_embd = 130"], [],
        "two.toml (model.n_embd) and one.toml (model.n_head): n_embd=130 ",
    ),
    "both on the command line": ([], [], ["--model.n_embd=130", "--model.n_head=4"], "command line: n_embd=130 "),
    "waves of an odd width": (
        ["model.n_head = 1", "model.n_embd = 9"], [], ["--model.position", "sinusoidal"],
        "one.toml (model.n_embd) and command line (model.position): sinusoidal ",
    ),
    "rotary with odd heads": (
        ["model.position = 'rotary'", "model.n_embd = 12"], ["model.n_head = 4"], [],
        "one.toml (model.n_embd, model.position) and two.toml (model.n_head): rotary ",
    ),
    "automatic sizes": (
        ["model.n_head = 4"], ["model.kind = 'auto'"], ["--model.n_embd", "130"],
        "command line (model.n_embd) and one.toml (model.n_head): n_embd=130 ",
    ),
    "two lengths": ([], [], ["--train.steps", "3", "--train.minutes", "1"], "command line: [train] needs exactly one "),
    "two lengths in a file": ([], ["train.steps = 3", "train.epochs = 1"], ["--train.seed=1"], "two.toml: [train] "),
    "adapters of nothing": ([], ["model.lora.rank = 4"], ["--train.seed=1"], "two.toml: [model.lora] needs a trained "),
    "a value and a table": (["log = 3"], [], ["--log.every", "3"], "command line: log.every: log is both a value and "),
    "a wrong value": (["optim.lr = 1.0"], [], ["--optim.lr", "x"], "command line: optim.lr: "),
    "a wrong item of a list": (["optim.betas = [0.1, 2.0]"], [], ["--train.seed=1"], "one.toml: optim.betas.1: "),
}  # fmt: skip


@pytest.mark.parametrize("clash", CLASHES)
def test_a_clash_of_settings_names_where_each_was_given(workplace, clash):
    one, two, words, answer = CLASHES[clash]
    files = write(workplace, one="\n".join([GPT, "data.path = 'a.txt'", LENGTH, *one]), two="\n".join(two))
    with pytest.raises(UserError) as caught:
        parse([*files, *words])
    assert str(caught.value).startswith(answer)


def test_what_no_file_says_is_missing_in_the_files_and_not_on_the_command_line(workplace):
    files = write(workplace, one="data.path = 'a.txt'", two=GPT, three="data.path = 'a.txt'\n" + LENGTH)
    for names, answer in (
        (
            files[:2],
            "one.toml and two.toml: [train] needs exactly one of steps, epochs and minutes, got none",
        ),
        (files[1:2], "two.toml: data is missing"),
        (files[2:], "three.toml: [model] is missing"),
    ):
        with pytest.raises(UserError) as caught:
            parse([*names, "--train.seed", "3"])
        assert str(caught.value).startswith(answer)


def test_a_mistake_found_later_says_where_its_setting_was_given():
    origins = {"data.path": "one.toml", "train.device": CLI, "optim.l1": "one.toml"}
    for message, answer in (
        ("data.path: x is empty", "one.toml: data.path: x is empty"),
        ("train.device=x is none", "command line: train.device=x is none"),
        ("data.tokenizer=x is none", "data.tokenizer=x is none"),
        ("optim.l1=3 is much", "one.toml: optim.l1=3 is much"),
        ("x: data.path", "x: data.path"),
    ):
        with pytest.raises(UserError) as caught, located(origins):
            raise UserError(message, 7)
        assert (str(caught.value), caught.value.exit_code) == (answer, 7)


def test_every_setting_has_a_default_that_the_bounds_allow():
    defaults = Config.model_validate({"model": {"kind": "gpt"}, "data": {"path": ["a"]}, "train": {"steps": 1}})
    assert Config.model_validate(defaults.model_dump()) == defaults
