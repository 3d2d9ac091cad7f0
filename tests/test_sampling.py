"""sample.py says what a network says: the same seed the same, the text alone on stdout."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import DataConfig
from data.digits import open_digits
from data.picture import read_image
from data.seeds import seed_for
from data.tokenizer import ByteTokenizer, decode
from model.generate import Sampling, generate
from model.stream import TextStream
from tests.conftest import ROOT
from training.report import visible
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
    assert code == 0 and "of 1,000 test images correct" in out
    assert out.count("correct: label ") == 2 and out.count("wrong: label ") == 2
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


def told(content: bytes, cuts: list[int], stops: list[str]) -> list[str]:
    """What a stream gives out, piece by piece, if these bytes come in tokens that end at the cuts."""
    edges = sorted({0, len(content), *(cut % (len(content) + 1) for cut in cuts)})
    tokens = [content[a:b] for a, b in pairwise(edges)]
    stream = TextStream(tokens.__getitem__, None, stops)
    said = []
    for token in range(len(tokens)):
        said.append(stream.add(token))
        if stream.ended:
            break
    return [*said, stream.close()]


def cut_at_first_stop(text: str, stops: list[str]) -> str:
    """By the definition: read letter by letter, end before the stop that is complete first, the longest of several."""
    for length in range(len(text) + 1):
        complete = [stop for stop in stops if text[:length].endswith(stop)]
        if complete:
            return text[: length - len(max(complete, key=len))]
    return text


STOPS = st.lists(st.text("abé", min_size=1, max_size=4), max_size=3)
CUTS = st.lists(st.integers(0, 100), max_size=30)


@settings(deadline=None, max_examples=400)
@given(st.text("abé\N{GRINNING FACE}", max_size=25), CUTS, STOPS)
def test_a_stop_is_found_however_the_text_is_cut_into_tokens(text, cuts, stops):
    assert "".join(told(text.encode(), cuts, stops)) == cut_at_first_stop(text, stops)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=30) | st.text(max_size=10).map(str.encode), CUTS)
def test_no_piece_ends_within_a_character(content, cuts):
    whole = content.decode(errors="replace")
    said = told(content, cuts, [])
    assert "".join(said) == whole
    if "\N{REPLACEMENT CHARACTER}" not in whole:
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in said)


@settings(deadline=None)
@given(st.text("ab", max_size=25), st.text("ab", min_size=1, max_size=4))
def test_text_waits_only_while_it_may_begin_a_stop(text, stop):
    stream, shown = TextStream(lambda token: bytes([token]), None, [stop]), ""
    for number, byte in enumerate(text.encode()):
        shown += stream.add(byte)
        if stream.ended:
            return
        waiting = text[len(shown) : number + 1]
        assert stop.startswith(waiting) and len(waiting) < len(stop)
        assert not any(stop.startswith(text[start : number + 1]) for start in range(len(shown)))


def test_end_of_text_gives_out_what_was_waiting():
    stream = TextStream(ByteTokenizer().token_bytes, 256, ["abc"])
    assert [stream.add(token) for token in (*b"xab", 256)] == ["x", "", "", "ab"] and stream.ended


def test_aab_holds_ab():
    assert "".join(told(b"aab", [1, 2], ["ab"])) == "a"


@settings(deadline=None)
@given(st.text())
def test_nothing_visible_steers_a_terminal(text):
    shown = visible(text)
    assert len(shown) == len(text) and not set(shown) & {
        *map(chr, range(9)),
        "\x0b",
        "\r",
        "\x1b",
        "\x7f",
        "\x9b",
        "\u202e",
    }
    assert visible("e\u0301\xa0\N{ZERO WIDTH JOINER}\N{FAMILY}\n\t") == "e\u0301\xa0\N{ZERO WIDTH JOINER}\N{FAMILY}\n\t"


def test_a_stop_ends_the_text_before_it(shell, trained):
    words = ["sample.py", trained, "--prompt", "The ", "--seed", "3", "--max-tokens", "60"]
    whole = shell(*words)[1]
    stop = whole[20:23]
    cut = shell(*words, "--stop", stop, "--stop", "never there")[1]
    assert cut == "The " + whole[4 : whole.index(stop, 4)] + "\n"


def test_each_of_several_prompts_gets_the_text_that_it_gets_alone(shell, trained, workplace):
    words = ["sample.py", trained, "--seed", "5", "--max-tokens", "40", "--samples", "2"]
    prompts = ["T", "Pack my box with five dozen", "lazy dog " * 9]
    alone = [shell(*words, "--prompt", prompt)[1] for prompt in prompts]
    given = [word for prompt in prompts for word in ("--prompt", prompt)]
    code, together, err = shell(*words, *given)
    assert code == 0 and together == "".join(alone) and "--- prompt 3 of 3, sample 2 of 2" in err
    (workplace / "prompts.txt").write_text("\n".join(["", *prompts, ""]))
    assert shell(*words, "--prompt-lines", "prompts.txt")[1] == together


def test_more_texts_than_go_side_by_side_are_still_those_of_the_seed(shell, trained):
    words = ["sample.py", trained, "--seed", "5", "--max-tokens", "5", "--prompt", "a"]
    many = shell(*words, "--samples", "18")[1]
    assert many.startswith(shell(*words, "--samples", "3")[1]) and len(set(many.split("\na"))) > 10


HOT = ["--temperature", "1e9"]  # all tokens are equally likely: what is drawn depends on the random numbers alone


def drawn(shell, *words: object) -> dict[tuple[int, int], list[int]]:
    """The tokens of each (prompt, sample)."""
    out = shell("sample.py", *words, "--logprobs", "0")[1]
    found: dict[tuple[int, int], list[int]] = {}
    for line in map(json.loads, out.splitlines()):
        found.setdefault((line["prompt"], line["sample"]), []).append(line["token"])
    return found


def test_each_sample_has_random_numbers_of_its_own_and_they_depend_on_nothing_but_the_seed_and_its_number(
    shell, trained
):
    words = [trained, *HOT, "--max-tokens", "12", "--samples", "18", "--prompt"]  # two more than go side by side
    found = drawn(shell, *words, "a", "--seed", "5")
    assert list(found) == [(0, sample) for sample in range(18)]
    assert len({tuple(tokens) for tokens in found.values()}) == 18
    assert drawn(shell, *words, "a", "--seed", "5") == found
    assert not {*map(tuple, drawn(shell, *words, "a", "--seed", "6").values())} & {*map(tuple, found.values())}
    several = drawn(shell, *words, "The lazy dog", "--prompt", "a", "--seed", "5")
    assert [several[1, sample] for sample in range(18)] == list(found.values())
    assert [several[0, sample] for sample in range(18)] == list(found.values())  # whatever stands before


def test_the_seed_that_is_named_gives_every_sample_of_every_prompt_again(shell, trained):
    words = ["sample.py", trained, "--max-tokens", "9", "--samples", "3", "--prompt", "The ", "--prompt", "a"]
    _, out, err = shell(*words)
    assert shell(*words, "--seed", err.split("seed ")[1].split()[0])[1] == out
    assert shell(*words)[1] != out  # and the next time another seed is drawn


def test_the_samples_that_training_shows_are_drawn_anew_each_time_and_by_the_runs_seed(shell, tiny, workplace):
    words = [*tiny, "--optim.lr", 1e-30, "--train.steps", 3, "--train.eval_every", 1]  # the network stays what it was
    words += ["--log.sample_tokens", 20, "--run"]
    for run, seed in (("one", 0), ("again", 0), ("other", 1)):
        assert shell("train.py", *words, run, "--train.seed", seed)[0] == 0
    one, again, other = (
        re.split(r"--- step \d+\n", (workplace / f"runs/{run}/samples.txt").read_text())[1:]
        for run in ("one", "again", "other")
    )
    assert len(one) == 4 == len(set(one)) and one == again and not set(one) & set(other)


def test_log_probabilities_are_the_networks_own(shell, trained):
    words = ["--prompt", "The ", "--max-tokens", "6", "--samples", "2", "--seed", "4", "--top-k", "2"]
    lines = [json.loads(line) for line in shell("sample.py", trained, *words, "--logprobs", "3")[1].splitlines()]
    restored = restore(trained)
    for sample in (0, 1):
        text = restored.tokenizer.encode("The ").tolist()
        for line in (line for line in lines if line["sample"] == sample):
            with torch.inference_mode():
                scores = restored.model.next_logits(torch.tensor([text]))[0].log_softmax(0)
            assert line["logprob"] == pytest.approx(scores[line["token"]].item(), abs=1e-4)
            assert [other["token"] for other in line["top"]] == scores.topk(3).indices.tolist()
            assert line["text"] == decode(restored.tokenizer, [line["token"]]) == bytes(line["bytes"]).decode()
            text.append(line["token"])
        plain = shell("sample.py", trained, *words)[1].split("\nThe ")[sample]
        assert plain.removeprefix("The ").rstrip("\n") == decode(restored.tokenizer, text[4:]).rstrip("\n")


def test_from_python_the_same_options_give_the_same_text(shell, trained):
    options = [
        "--temperature",
        "0.9",
        "--top-k",
        "9",
        "--top-p",
        "0.8",
        "--min-p",
        "0.01",
        "--repetition-penalty",
        "1.2",
    ]
    said = shell("sample.py", trained, "--prompt", "The ", "--seed", "6", "--max-tokens", "30", *options)[1]
    restored, luck = restore(trained), torch.Generator().manual_seed(seed_for(6, 0))
    prompt, sampling = restored.tokenizer.encode("The ").tolist(), Sampling(0.9, 9, 0.8, 0.01, 1.2)
    assert said == "The " + decode(restored.tokenizer, generate(restored.model, prompt, 30, sampling, luck)) + "\n"


@pytest.mark.parametrize("precision", [["--dtype", "bfloat16"], ["--quantize", "int8"]], ids=str)
def test_a_network_speaks_in_less_precision_too(shell, trained, precision):
    code, out, _ = shell("sample.py", trained, "--max-tokens", "20", "--seed", "1", "--prompt", "The ", *precision)
    assert code == 0 and out.startswith("The ") and len(out) > 20


def typing(monkeypatch, text: str) -> None:
    """What someone types, up to Ctrl-D."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_a_conversation_goes_on_from_all_that_was_said(shell, trained, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    typing(monkeypatch, "The\nPack\n")
    words = ["--temperature", "0", "--max-tokens", "3", "--interactive"]
    code, out, _ = shell("sample.py", trained, *words)
    signal.signal(signal.SIGINT, before)
    restored = restore(trained)
    text, said = [], ""
    for line in ("The", "\nPack"):
        text += restored.tokenizer.encode(line).tolist()
        new = generate(restored.model, text, 3, Sampling(0))
        text, said = text + new, said + decode(restored.tokenizer, new) + "\n"
    assert (code, out) == (0, said)


def conversation(shell, monkeypatch, typed: str, *words: object) -> tuple[list[str], str]:
    """What the network replies, turn by turn, and stderr."""
    before = signal.getsignal(signal.SIGINT)
    typing(monkeypatch, typed)
    code, out, err = shell("sample.py", *words, "--interactive")
    signal.signal(signal.SIGINT, before)
    assert code == 0, err
    return out.splitlines(), err


def test_each_reply_has_random_numbers_of_its_own_and_the_seed_gives_the_conversation_again(
    shell, trained, monkeypatch
):
    words = [trained, *HOT, "--max-tokens", "15", "--stop", "\n"]
    replies, err = conversation(shell, monkeypatch, "The\n" * 12, *words)
    assert len(replies) == 12 and len(set(replies)) > 6  # an empty one can come twice
    seed = err.split("seed ")[1].split()[0]
    assert conversation(shell, monkeypatch, "The\n" * 12, *words, "--seed", seed)[0] == replies
    more = conversation(shell, monkeypatch, "Pack my box\né\n" + "The\n" * 11, *words, "--seed", seed)[0]
    assert more == replies  # neither what is typed nor what can't be read changes them
    single = drawn(shell, *words, "--samples", "12", "--seed", seed, "--prompt", "The")
    known = restore(trained).tokenizer
    texts = [decode(known, tokens).split("\n")[0] for tokens in single.values()]
    assert texts == replies  # the nth reply is drawn as the nth sample


def test_a_reply_is_what_the_network_writes_after_all_that_was_said_with_the_replys_own_generator(
    shell, trained, monkeypatch
):
    replies, _ = conversation(
        shell, monkeypatch, "T\na\no\n", trained, "--seed", 4, "--max-tokens", 2, "--temperature", 1
    )
    restored, text, expected = restore(trained), [], ""
    for number, line in enumerate(("T", "\na", "\no")):
        text += restored.tokenizer.encode(line).tolist()
        luck = torch.Generator().manual_seed(seed_for(4, number))
        new = generate(restored.model, text, 2, Sampling(1.0), luck)
        text, expected = text + new, expected + decode(restored.tokenizer, new) + "\n"
    assert "\n".join(replies) + "\n" == expected


def test_a_conversation_beyond_the_context_forgets_its_oldest_turns(shell, trained, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    typing(monkeypatch, "The quick\nbrown\nfox é\nlazy\n")
    code, out, err = shell("sample.py", trained, "--temperature", "0", "--max-tokens", "3", "--interactive")
    signal.signal(signal.SIGINT, before)
    assert code == 0 and "keeping the last 2 of 3 turns" in err
    assert "error: characters not in the vocabulary: 'é'" in err
    restored = restore(trained)
    first = generate(restored.model, restored.tokenizer.encode("The quick").tolist(), 3, Sampling(0))
    remembered = [*first, *restored.tokenizer.encode("\nbrown").tolist()]
    assert out.split("\n", 1)[1].startswith(
        decode(restored.tokenizer, generate(restored.model, remembered, 3, Sampling(0)))
    )


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_ctrl_c_stops_the_text_and_not_the_conversation(trained, workplace):
    command = [sys.executable, ROOT / "sample.py", trained, "--interactive", "--max-tokens", "100000000"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=workplace, text=True, **pipes) as process:
        for _ in range(2):
            process.stdin.write("The\n")
            process.stdin.flush()
            assert len(process.stdout.read(20)) == 20
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        process.stdin.close()
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            process.stdout.read(1000)
        assert process.wait(timeout=10) == 0


STRANGE = {
    "one letter": "a",
    "spaces": " ",
    "control characters": "\x1b[2J",
    "surrogates": "\ud800",
    "no newline": "ab ",
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_prompt_of_a_million_strange_characters_is_cropped_or_refused_in_a_line(shell, workplace, kind):
    (workplace / "t.txt").write_text("ab \x1b[2J" * 300)
    (workplace / "t.toml").write_text(
        '[model]\nkind = "gpt"\nn_layer = 1\nn_head = 1\nn_embd = 8\ncontext_length = 8\n[data]\npath = "t.txt"\n'
        "[train]\nsteps = 1\nthreads = 1\n"
    )
    assert shell("train.py", "t.toml", "--run", "t")[0] == 0
    begin = time.perf_counter()
    code, _, err = shell("sample.py", "t", "--prompt", STRANGE[kind] * 1_000_000, "--max-tokens", "1")
    assert time.perf_counter() - begin < 10
    if kind == "surrogates":
        assert code == 2 and err.count("\n") == 1 and "not in the vocabulary" in err
    else:
        assert code == 0 and "prompt longer than the context" in err
