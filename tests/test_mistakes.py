"""Every mistake is answered in one line that says what, where and the way out; nothing is lost."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT


def one_line(result: tuple[int, str, str], *words: str, code: int = 2) -> None:
    """The command ended with this exit code and one line on stderr that holds these words."""
    got, out, err = result
    assert (got, out) == (code, ""), err
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
    for word in words:
        assert word in err, err


@pytest.fixture
def trained(shell, tiny) -> str:
    """A finished run of the tiny GPT."""
    assert shell("train.py", *tiny)[0] == 0
    return "tiny"


@pytest.fixture
def digits(shell, workplace) -> str:
    """A finished run of a digit network."""
    (workplace / "d.toml").write_text('[model]\nkind = "mlp"\n[data]\npath = "mnist-5k"\n[train]\nsteps = 5\n')
    assert shell("train.py", "d.toml", "--run", "d")[0] == 0
    return "d"


CONFIGS = {
    "unknown key": ("[train]\nstepz = 3", ["bad.toml", "train.stepz", "did you mean train.steps"]),
    "unknown section": ("[trian]\nsteps = 3", ["bad.toml", "trian", "did you mean train?"]),
    "wrong type": ('[train]\nsteps = "many"', ["bad.toml", "train.steps", "'many'"]),
    "number as text": ('[optim]\nlr = "1e-3"', ["bad.toml", "optim.lr", "'1e-3'"]),
    "boolean as number": ("[train]\nsteps = true", ["bad.toml", "train.steps", "True"]),
    "not a number": ("[optim]\nlr = nan", ["bad.toml", "optim.lr"]),
    "out of bounds": ("[model]\nkind='gpt'\ndropout = 1.5", ["bad.toml", "model.dropout", "1.5"]),
    "unknown choice": ('[optim]\nname = "adamm"', ["bad.toml", "optim.name", "'adamw'"]),
    "heads that don't divide": ("[model]\nkind='gpt'\nn_embd=130\nn_head=4", ["n_embd=130", "n_head=4"]),
    "two lengths": ("[train]\nsteps = 3\nepochs = 2", ["exactly one of steps, epochs and minutes"]),
    "no kind": ("[model]\nn_layer = 3", ["bad.toml", "model.kind"]),
    "not TOML": ("steps = \nseed = 1", ["bad.toml", "not valid TOML", "line 1"]),
    "a value and a table": ("model = 3\n", ["bad.toml", "model"]),
}


@pytest.mark.parametrize("mistake", CONFIGS)
def test_a_mistake_in_a_config_names_file_and_key(shell, tiny, workplace, mistake):
    text, words = CONFIGS[mistake]
    (workplace / "bad.toml").write_text(text)
    files = ["bad.toml"] if mistake == "no kind" else [*tiny, "bad.toml"]
    one_line(shell("train.py", *files), *words)
    assert not Path("runs").exists()


OPTIONS = {
    "short name": (["--lr", "3"], ["--lr", "did you mean --optim.lr?"]),
    "misspelt": (["--train.stepz", "3"], ["--train.stepz", "--train.steps"]),
    "abbreviated": (["--train.step", "3"], ["--train.step", "--train.steps"]),
    "wrong type": (["--optim.lr", "fast"], ["command line", "optim.lr", "'fast'"]),
    "out of bounds": (["--optim.lr=-1"], ["command line", "optim.lr", "-1"]),
    "no value": (["--optim.lr"], ["--optim.lr"]),
    "no threads": (["--train.threads", "0"], ["train.threads: "]),
    "config after options": (["--train.seed", "3", "tiny.toml"], ["tiny.toml"]),
    "both": (["--resume", "--overwrite"], ["--resume", "--overwrite"]),
    "run without a name": (["--run", ""], ["--run"]),
    "run with a NUL": (["--run", "a\0b"], ["--run"]),
    "a name too long": (["--run", "x" * 300], ["--run"]),
    "two names": (["--run", ".."], ["--run"]),
    "a device that isn't there": (["--train.device", "cuda:99"], ["command line: train.device: ", "cuda:99"]),
    "a base that isn't there": (["--train.start", "nowhere"], ["command line: train.start: ", "nowhere"]),
    "a base that can't be": (["--train.start", ".."], ["command line: train.start: '..' "]),
    "a network larger than the machine": (["--model.n_embd", "65536", "--model.n_layer", "100"], ["GB", "n_embd"]),
    "another vocabulary": (["--model.vocab_size", "99"], ["command line: model.vocab_size=99", "omit it"]),
}


@pytest.mark.parametrize("mistake", OPTIONS)
def test_a_mistake_on_the_command_line_names_the_option(shell, tiny, mistake):
    words, expected = OPTIONS[mistake]
    one_line(shell("train.py", *tiny, *words), *expected)
    assert not Path("runs").exists()


def test_a_missing_config_is_named_and_a_near_one_offered(shell, workplace):
    (workplace / "configs").mkdir()
    (workplace / "configs/shakespeare.toml").write_text("")
    one_line(shell("train.py", "configs/shakespear.toml"), "did you mean configs/shakespeare.toml?")
    one_line(shell("train.py"), "no config given")
    one_line(shell("train.py", "configs"), "configs")
    one_line(shell("train.py", "--resume", "--run", "nothing", "--train.steps", "5"), "run not found: runs/nothing")


def test_a_network_needs_its_own_kind_of_data(shell, tiny, workplace):
    one_line(shell("train.py", *tiny, "--data.path", "mnist"), "data.path", "image dataset")
    (workplace / "d.toml").write_text('[model]\nkind = "mlp"\n[data]\npath = "poem.txt"\n[train]\nsteps = 1\n')
    one_line(shell("train.py", "d.toml"), "poem.txt", "mnist-5k")
    one_line(shell("train.py", "d.toml", "--model.sizes", "[5, 10]", "--data.path", "mnist-5k"), "784")


CORPORA = {
    "empty": (b"", [], ["contains no text"]),
    "shorter than one window": (b"abc" * 9, [], ["tokens", "needs 17", "has 3"]),
    "not UTF-8": (b"caf\xe9" * 100, [], ["corpus.txt", "UTF-8"]),
}


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_corpus_that_cant_be_learned_from_is_refused(shell, tiny, workplace, corpus):
    content, options, words = CORPORA[corpus]
    (workplace / "corpus.txt").write_bytes(content)
    one_line(shell("train.py", *tiny, "--data.path", "corpus.txt", *options), *words)
    assert not Path("runs").exists()


def test_a_missing_corpus_is_named(shell, tiny):
    one_line(shell("train.py", *tiny, "--data.path", "nowhere/*.txt"), "nowhere/*.txt")


def test_a_run_folder_in_use_is_left_alone(shell, trained, tiny, workplace):
    log = (workplace / "runs/tiny/log.jsonl").read_bytes()
    one_line(shell("train.py", *tiny), "--resume", "--overwrite", "--run NAME")
    assert (workplace / "runs/tiny/log.jsonl").read_bytes() == log


def test_overwrite_replaces_a_run_and_nothing_else(shell, trained, tiny, workplace):
    (workplace / "precious").mkdir()
    (workplace / "precious/thesis.txt").write_text("words")
    one_line(shell("train.py", *tiny, "--overwrite", "--run", "./precious"), "not a run")
    assert (workplace / "precious/thesis.txt").read_text() == "words"
    code, _, _ = shell("train.py", *tiny, "--overwrite", "--train.steps", "5")
    assert code == 0 and not (workplace / "runs/tiny/checkpoints/step-000012").exists()


def test_a_plan_that_fails_leaves_the_old_run_untouched(shell, trained, tiny, workplace):
    log = (workplace / "runs/tiny/log.jsonl").read_bytes()
    one_line(shell("train.py", *tiny, "--overwrite", "--data.path", "nowhere.txt"), "nowhere.txt")
    assert (workplace / "runs/tiny/log.jsonl").read_bytes() == log


def test_fine_tuning_cant_change_the_shape_of_the_network(shell, trained, tiny):
    words = ["--run", "tuned", "--train.start", "tiny", "--model.n_layer", "3"]
    one_line(shell("train.py", *tiny, *words), "model.n_layer=3", "train.start=tiny")


SAMPLING = {
    "negative temperature": (["--temperature", "-1"], ["--temperature", "-1"]),
    "temperature that is no number": (["--temperature", "nan"], ["--temperature", "nan"]),
    "infinite temperature": (["--temperature", "inf"], ["--temperature", "inf"]),
    "top-k of nothing": (["--top-k", "0"], ["--top-k", "0"]),
    "top-k over the vocabulary": (["--top-k", "500"], ["--top-k 500", "vocabulary"]),
    "characters it has never seen": (["--prompt", "Zürich 7"], ["'ü'", "'7'"]),
    "misspelt option": (["--temprature", "1"], ["did you mean --temperature?"]),
    "option of the other kind": (["--test-digits", "3"], ["--test-digits", "text network"]),
    "missing prompt file": (["--prompt-file", "nowhere"], ["nowhere"]),
    "unknown checkpoint": (["--checkpoint", "bset"], ["bset", "did you mean best?"]),
    "too many words": (["another"], ["another"]),
    "half a sample": (["--samples", "0.5"], ["--samples"]),
    "top-p of nothing": (["--top-p", "0"], ["--top-p", "in (0, 1]", "'0'"]),
    "top-p of more than all": (["--top-p", "1.01"], ["--top-p", "in (0, 1]", "1.01"]),
    "negative min-p": (["--min-p", "-0.1"], ["--min-p", "-0.1"]),
    "min-p that is no number": (["--min-p", "nan"], ["--min-p", "nan"]),
    "no penalty to multiply with": (["--repetition-penalty", "0"], ["--repetition-penalty", "> 0"]),
    "a stop that is everywhere": (["--stop", ""], ["--stop", "empty"]),
    "more log-probabilities than tokens": (["--logprobs", "500"], ["--logprobs 500", "vocabulary"]),
    "unknown precision": (["--dtype", "float8"], ["--dtype", "float8", "bfloat16"]),
    "unknown quantisation": (["--quantize", "int3"], ["--quantize", "int3", "int8"]),
    "two precisions": (["--dtype", "bfloat16", "--quantize", "int8"], ["--quantize", "--dtype"]),
    "two sources of prompts": (["--prompt", "a", "--prompt-file", "b"], ["--prompt-file", "--prompt"]),
    "no prompt in a file": (["--prompt-lines", "/dev/null"], ["--prompt-lines", "no prompt"]),
    "missing file of prompts": (["--prompt-lines", "nowhere"], ["--prompt-lines", "nowhere"]),
    "several conversations": (["--interactive", "--samples", "2"], ["--samples", "--interactive"]),
    "a conversation in JSON": (["--interactive", "--logprobs", "2"], ["--logprobs", "--interactive"]),
    "two readers of standard input": (["--interactive", "--prompt-file", "-"], ["--prompt-file", "--interactive"]),
}


@pytest.mark.parametrize("mistake", SAMPLING)
def test_a_mistake_in_sampling_names_the_option(shell, trained, mistake):
    words, expected = SAMPLING[mistake]
    one_line(shell("sample.py", trained, *words), *expected)


def test_a_missing_run_is_answered_with_the_runs_there_are(shell, trained):
    one_line(shell("sample.py", "tiney"), "runs/tiney", "tiny")


def test_without_any_run_the_way_to_one_is_shown(shell):
    one_line(shell("sample.py"), "python train.py")


def test_a_digit_network_wants_digits(shell, digits, workplace):
    one_line(shell("sample.py", digits), "--image", "--test-digits")
    one_line(shell("sample.py", digits, "--prompt", "x"), "--prompt", "digit network")
    (workplace / "note.png").write_text("not a picture")
    one_line(shell("sample.py", digits, "--image", "note.png"), "note.png")
    one_line(shell("sample.py", digits, "--image", "nowhere.png"), "nowhere.png", code=1)


@pytest.mark.parametrize("file", ["model.safetensors", "state.json", "manifest.json"])
def test_a_corrupt_checkpoint_is_refused_by_name(shell, trained, workplace, file):
    for folder in (workplace / "runs/tiny/checkpoints").glob("step-*"):
        content = bytearray((folder / file).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / file).write_bytes(content)
    code, out, err = shell("sample.py", trained)
    assert code == 1 and out == "" and "is damaged" in err and "error: " in err.splitlines()[-1]


@pytest.mark.parametrize("content", ["", "{}", "[" * 100_000, '{"kind": "char"}', "\x00"])
@pytest.mark.parametrize("file", ["run.json", "tokenizer.json"])
def test_a_damaged_run_is_one_line(shell, trained, workplace, file, content):
    (workplace / "runs/tiny" / file).write_text(content)
    one_line(shell("sample.py", trained), file, code=1)


def test_a_prompt_longer_than_the_context_is_cropped_with_a_notice(shell, trained):
    prompt = "The quick brown fox " * 10
    code, out, err = shell("sample.py", trained, "--prompt", prompt, "--max-tokens", "5")
    assert code == 0 and out.startswith(prompt) and "context" in err


def test_a_lack_of_memory_is_answered_with_the_flags_that_halve_it(shell, tiny, monkeypatch):
    def exhausted(learner, step):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("train.update", exhausted)
    result = shell("train.py", *tiny, "--train.batch_size", "6")
    one_line(result, "--train.batch_size 3 --train.accumulate 2", code=1)


def test_a_network_that_learns_nothing_is_told_so(shell, tiny):
    words = ["--train.steps", "120", "--train.eval_every", "60", "--optim.lr", "1e-9", "--log.sample_tokens", "0"]
    code, _, err = shell("train.py", *tiny, *words)
    assert code == 0 and err.count("still at chance level") == 1 and "optim.lr = 1e-09" in err


def test_no_mistake_waits_for_torch(workplace):
    (workplace / "bad.toml").write_text("[train]\nstepz = 1")
    script = (
        "import runpy, sys; sys.path.insert(0, sys.argv[1]); name = sys.argv[2]; sys.argv = sys.argv[2:]\n"
        "try: runpy.run_path(name, run_name='__main__')\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    for words in (["train.py", "bad.toml"], ["train.py", "--help"], ["sample.py", "--help"], ["sample.py", "x"]):
        command = [sys.executable, "-c", script, ROOT, ROOT / words[0], *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout.splitlines()[-1] == ("0 False" if "--help" in words else "2 False"), done.stderr
