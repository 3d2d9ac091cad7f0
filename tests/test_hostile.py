"""No file that a user opens can run code or exhaust the machine: each is refused in one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import answer
from tests.conftest import POEM, ROOT
from tests.hostile import CANARY, PAYLOADS, cases, copy, plant

FORBIDDEN = {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
EXECUTED: list[str] = []
RESULTS = ROOT / "benchmarks/results/hostile.json"
TINY = """
[model]
kind = "gpt"
n_layer = 1
n_head = 2
n_embd = 16
context_length = 16
[data]
path = "poem.txt"
tokenizer = "bpe"
vocab_size = 300
[train]
steps = 12
eval_every = 12
batch_size = 4
threads = 1
[log]
sample_tokens = 0
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Good files of every kind: two runs, a Hugging Face folder, prepared tokens, a text, a picture; and a sentinel."""
    import export
    import train
    from training.run import understand

    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("data.prepare.TOKENS", folder / "prepared")
        Path("poem.txt").write_text(POEM)
        Path("tiny.toml").write_text(TINY)
        digits = '[model]\nkind = "mlp"\n[data]\npath = "mnist-5k"\n[train]\nsteps = 2\nthreads = 1\n'
        Path("d.toml").write_text(digits)
        for words in (["tiny.toml"], ["d.toml"]):
            assert answer(lambda words=words: train.main(understand(words))) == 0
        for old in sorted(Path("runs/tiny/checkpoints").glob("step-*"))[:-1]:
            shutil.rmtree(old)
        assert answer(lambda: export.main(export.understand(["tiny", "gpt2"]))) == 0
        (tokens,) = (f.parent for f in Path("prepared").glob("*/index.json") if '"byte_count"' in f.read_text())
        tokens.rename("tokens")
        picture = np.zeros((28, 28), np.uint8)
        picture[8:20, 12:16] = 255
        Image.fromarray(picture).save("good.png")
        Path("sentinel").mkdir()
        Path("sentinel/precious").write_text("words")
    return folder


def watch(event: str, _: tuple, forbidden: frozenset[str] = frozenset(FORBIDDEN), found: list[str] = EXECUTED) -> None:
    """Notes what would be an execution. Its defaults outlive this module, as the hook does."""
    if event in forbidden and found[:1] == ["watching"]:
        found.append(event)


sys.addaudithook(watch)


@pytest.fixture
def watched(world: Path, workplace: Path) -> Iterator[None]:
    """A world of one's own; afterwards nothing in it was executed, and the sentinel is as it was."""
    copy(world, workplace)
    EXECUTED[:] = ["watching"]
    yield
    found, EXECUTED[:] = EXECUTED[1:], []
    assert not found and not Path(CANARY).exists()
    assert [(f.name, f.read_text()) for f in Path("sentinel").iterdir()] == [("precious", "words")]


def said(err: str) -> list[str]:
    """The lines of stderr; warnings about damage may come before what counts."""
    return [line for line in err.splitlines() if not line.startswith("warning: ")]


def is_refusal(code: int, out: str, err: str) -> bool:
    """Whether a command ended in one line that says what is wrong."""
    return code in (1, 2) and not out and [line[:7] for line in said(err)] == ["error: "]


def passed_over(place: str, command: str, code: int, err: str) -> bool:
    """Whether --resume did what it does with a checkpoint that is damaged: it says so and goes on without."""
    return code == 0 and "--resume" in command and "checkpoints" in place and "is damaged: " in err


def refused(result: tuple[int, str, str]) -> str:
    """The one line of a refusal."""
    assert is_refusal(*result), result
    return said(result[2])[0]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_hostile_file_is_refused_in_one_line_wherever_it_lies(watched, world, shell, payload):
    """By one of the commands that open it, each in its turn; the campaign below tries all of them."""
    wrong = []
    turns: Counter[str] = Counter()
    for (name, place), commands in groupby(cases(), key=lambda case: case[:2]):
        if name == payload:
            openers = [command for *_, command in commands]
            command = openers[(turns[name] + list(PAYLOADS).index(name)) % len(openers)]
            turns[name] += 1
            copy(world, Path())
            plant(payload, place)
            script, *words = command.split()
            code, out, err = shell(script, *words)
            if not (is_refusal(code, out, err) or passed_over(place, command, code, err)) or Path("runs/new").exists():
                wrong.append((place, command, code, out, err[:1000]))
            shutil.rmtree("runs/new", ignore_errors=True)
            Path(place).unlink()
    assert not wrong


def measured(command: list[str]) -> tuple[int, str, float, float]:
    """Exit code, stderr, processor seconds and peak megabytes of a command in a process of its own."""
    with Path("err").open("w") as err:
        words = [sys.executable, ROOT / command[0], *command[1:]]
        done = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=err)
    signal.alarm(1000)
    _, status, usage = os.wait4(done.pid, 0)
    signal.alarm(0)
    done.returncode = os.waitstatus_to_exitcode(status)
    return done.returncode, Path("err").read_text(), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


@pytest.mark.campaign
@pytest.mark.timeout(3000)
def test_a_refusal_costs_a_second_and_200_megabytes_at_most(world, workplace):
    """Against the same command with a good file in the same place; the refused command has less to do."""
    baselines: dict[str, tuple[float, float]] = {}
    rows = []
    for payload, place, command in cases():
        words = command.split()
        if command not in baselines:
            copy(world, workplace)
            for good, evil in (("tiny.toml", "evil.toml"), ("good.png", "evil.png"), ("poem.txt", "evil.prompt")):
                shutil.copy(good, evil)
            for end in ("txt", "txt.gz", "jsonl", "jsonl.gz"):
                shutil.copy("poem.txt", f"evil.{end}")
            words_for_good = [word.replace(".gz", "").replace("jsonl", "txt") for word in words]
            code, err, *baselines[command] = measured(words_for_good)  # type: ignore[assignment]
            assert code == 0, err
        shutil.rmtree("runs"), shutil.rmtree("out", ignore_errors=True)
        for _ in range(6):  # loading torch alone takes 6 s, give or take one; what else the machine does can only add
            copy(world, workplace)
            plant(payload, place)
            code, err, seconds, megabytes = measured(words)
            baseline = command
            if passed_over(place, command, code, err):  # then the run begins again, as if there were no checkpoint
                baseline = f"{command}, without a checkpoint"
                if baseline not in baselines:
                    copy(world, workplace)
                    shutil.rmtree("runs/tiny/checkpoints")
                    begun, said_then, *baselines[baseline] = measured(words)  # type: ignore[assignment]
                    assert begun == 0, said_then
                    copy(world, workplace)
                    plant(payload, place)
            base_seconds, base_megabytes = baselines[baseline]
            if seconds - base_seconds <= 1:
                break
        rows.append(
            {
                "payload": payload,
                "place": place,
                "command": command,
                "exit": code,
                "answer": "one line"
                if is_refusal(code, "", err)
                else "passed over"
                if passed_over(place, command, code, err)
                else err[-300:],
                "seconds": round(seconds, 2),
                "seconds_above_baseline": round(seconds - base_seconds, 2),
                "megabytes_above_baseline": round(megabytes - base_megabytes),
                "executed": Path(CANARY).exists(),
            }
        )
        Path(place).unlink()
    over = [r for r in rows if r["seconds_above_baseline"] > 1 or r["megabytes_above_baseline"] > 200]
    bad = [r for r in rows if r["answer"] not in ("one line", "passed over") or r["executed"]]
    result = {
        "payloads": len(PAYLOADS),
        "cases": len(rows),
        "executed": sum(r["executed"] for r in rows),
        "not_refused_in_one_line": len(bad),
        "over_1_s_or_200_MB": len(over),
        "most_seconds_above_baseline": max(r["seconds_above_baseline"] for r in rows),
        "most_megabytes_above_baseline": max(r["megabytes_above_baseline"] for r in rows),
        "rows": rows,
        "versions": {name: metadata.version(name) for name in ("torch", "pydantic", "safetensors", "pillow")},
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    assert not bad and not over


LINKED = ["log.jsonl", "run.lock", ".run.json.partial", "checkpoints/.best.partial", "curves.png", "extra"]


@pytest.mark.parametrize("name", LINKED)
def test_nothing_is_written_through_a_link_in_a_run(watched, shell, name):
    place = Path("runs/tiny", name)
    place.unlink(missing_ok=True)
    place.symlink_to(Path("sentinel/precious").resolve())
    for words in (["--resume", "--run", "tiny", "--train.steps", "20"], ["tiny.toml", "--overwrite"]):
        assert "is a symbolic link" in refused(shell("train.py", *words))


def test_a_run_that_claims_a_network_larger_than_its_weights_is_not_built(watched, shell):
    file = Path("runs/tiny/run.json")
    record = json.loads(file.read_text())
    for claim in ({"n_layer": 512}, {"n_embd": 2**20}, {"vocab_size": 2**24}, {"context_length": 2**24}):
        record["resolved"]["model"] |= claim
        file.write_text(json.dumps(record))
        assert "parameters described in run.json" in refused(shell("sample.py", "tiny"))
    record["resolved"]["model"]["n_layer"] = 2**40
    file.write_text(json.dumps(record))
    assert "n_layer" in refused(shell("sample.py", "tiny"))


@pytest.mark.parametrize(
    "line", [b"[" * 60_000 + b"\n", b'{"step":"x"}\n', b"\x80\n", b"1\n", b"a" * 10**6, b'{"step":1e999}\n']
)
def test_a_log_that_is_none_hides_its_run_from_the_list_and_no_other(watched, shell, line):
    Path("runs/tiny/log.jsonl").write_bytes(line)
    code, out, _ = shell("sample.py", "--list")
    assert code == 0 and "tiny" not in out and "d " in out


NAMES = ["../x", "..", "a/../../x", "/abs", "a\0b", "x" * 300, "~nobody/x", "\ud800"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_files_table_leads_nowhere_else(watched, shell, name):
    """Of a checkpoint's manifest, a Hugging Face index, and as the best checkpoint."""
    manifest = next(Path("runs/tiny/checkpoints").glob("step-*")) / "manifest.json"
    found = json.loads(manifest.read_text())
    found["sha256"][name] = found["sha256"].pop("state.json")
    manifest.write_text(json.dumps(found))
    refused(shell("sample.py", "tiny"))
    Path("gpt2/model.safetensors").rename("x.safetensors")
    Path("gpt2/model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": f"{name}.safetensors"}}))
    refused(shell("train.py", "tiny.toml", "--run", "new", "--train.start", "./gpt2", "--data.tokenizer", "auto"))


def test_no_setting_comes_from_the_environment(watched, shell, monkeypatch):
    for name in ("DATA", "TRAIN", "MODEL", "TRAIN__STEPS", "RUN", "PELLUCID_TRAIN"):
        monkeypatch.setenv(name, '{"steps": 99}')
    code, out, _ = shell("train.py", "tiny.toml", "--dry-run", "--run", "new")
    assert code == 0 and "12 steps" in out
