"""sample.py says what a network says: the same seed the same, the text alone on stdout."""

import io
import sys

import pytest
import torch

from configs.schema import DataConfig
from data.digits import open_digits
from data.picture import read_image
from training.restore import restore


@pytest.fixture
def trained(shell, tiny) -> str:
    """A finished run of the tiny GPT."""
    assert shell("train.py", *tiny)[0] == 0
    return "tiny"


def test_a_seed_is_a_text(shell, trained):
    words = ["sample.py", trained, "--prompt", "The ", "--max-tokens", "30", "--seed"]
    assert shell(*words, "7")[1] == shell(*words, "7")[1] != shell(*words, "8")[1]


def test_without_a_seed_the_one_that_was_drawn_is_named(shell, trained):
    _, out, err = shell("sample.py", trained, "--max-tokens", "30")
    seed = err.split("seed ")[1].split()[0]
    assert shell("sample.py", trained, "--max-tokens", "30", "--seed", seed)[1] == out


def test_each_of_several_samples_is_drawn_anew(shell, trained):
    _, out, err = shell("sample.py", trained, "--samples", "3", "--prompt", "The ", "--max-tokens", "20")
    texts = out.split("\nThe ")
    assert len(texts) == 3 and len(set(texts)) == 3 and "sample 3 of 3" in err


def test_the_prompt_comes_from_a_file_or_standard_input_too(shell, trained, workplace, monkeypatch):
    (workplace / "prompt.txt").write_text("The dog")
    words = ["--temperature", "0", "--max-tokens", "9"]
    said = shell("sample.py", trained, "--prompt", "The dog", *words)[1]
    assert shell("sample.py", trained, "--prompt-file", "prompt.txt", *words)[1] == said
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"The dog")))
    assert shell("sample.py", trained, "--prompt-file", "-", *words)[1] == said


def test_the_newest_run_speaks_if_none_is_named(shell, trained):
    code, _, err = shell("sample.py", "--max-tokens", "1")
    assert code == 0 and "runs/tiny" in err


def test_any_checkpoint_can_speak(shell, tiny):
    shell("train.py", *tiny, "--train.keep", "0")
    for which, step in (("last", "step 12,"), ("step-4", "step 4,"), ("best", "step ")):
        code, _, err = shell("sample.py", "tiny", "--checkpoint", which, "--max-tokens", "1")
        assert code == 0 and step in err
    assert shell("sample.py", "runs/tiny/checkpoints/step-000008", "--max-tokens", "1")[2].count("step 8,") == 1


def test_list_names_every_run(shell, trained, tiny):
    shell("train.py", *tiny, "--run", "second")
    code, out, _ = shell("sample.py", "--list")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 3 and {line.split()[0] for line in lines[1:]} == {"tiny", "second"}
    assert all(line.split()[1:3] == ["gpt", "12"] for line in lines[1:])


def test_end_of_text_ends_the_text(shell, workplace):
    (workplace / "many").mkdir()
    for number in range(30):
        (workplace / f"many/{number}.txt").write_text("ab")
    (workplace / "c.toml").write_text(
        '[model]\nkind = "gpt"\nn_layer = 1\nn_head = 1\nn_embd = 16\ncontext_length = 4\n[data]\npath = "many"\n'
        "[optim]\nlr = 0.02\n[train]\nsteps = 150\nthreads = 1\n"
    )
    assert shell("train.py", "c.toml", "--run", "c")[0] == 0
    assert shell("sample.py", "c", "--temperature", "0", "--max-tokens", "50")[1] == "ab\n"


def test_a_digit_network_says_what_it_sees(shell, workplace):
    (workplace / "d.toml").write_text('[model]\nkind = "mlp"\n[data]\npath = "mnist-5k"\n[train]\nsteps = 150\n')
    assert shell("train.py", "d.toml", "--run", "d", "--optim.lr", "0.01")[0] == 0
    code, out, _ = shell("sample.py", "d", "--test-digits", "4")
    assert code == 0 and out.count("right: a ") == 2 and out.count("wrong: a ") == 2 and "of 1,000 test images" in out
    restored = restore("d")
    images, labels = open_digits(DataConfig(path="mnist-5k"), [784, 10], 0).splits["test"]
    with torch.inference_mode():
        share = (restored.model(images).argmax(-1) == labels).float().mean()
    assert f"{share:.2%}" in out
    from PIL import Image

    Image.fromarray((images[0].view(28, 28) * 255).byte().numpy()).save("digit.png")
    code, out, _ = shell("sample.py", "d", "--image", "digit.png")
    with torch.inference_mode():
        best = restored.model(read_image(workplace / "digit.png")).argmax()
    assert code == 0 and f"digit.png: {best} (" in out
