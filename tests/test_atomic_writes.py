"""Every file that is written is complete or absent: each write is cut off halfway, by an error and by a kill.

It is the system that cuts it off: a file may not grow beyond half of what is to be written. Then writing raises an
OSError or, where SIGXFSZ is not ignored (Python ignores it), kills the process with half of the bytes written.
"""

import ast
import gzip
import io
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import data.digits
import data.fetch
import lens.standalone
import lens.views.page
from configs.errors import UserError
from configs.files import append, partial_of, whole_file, whole_folder, write_whole
from configs.schema import DataConfig
from data.corpus import open_corpus
from data.fetch import Source, download
from data.tokenizer import ByteTokenizer
from data.tokenizing import write as write_tokens
from lens.request import Request
from model import GPT, GPTConfig
from tests.conftest import POEM, ROOT
from tests.processes import Child
from tests.test_architecture import PRODUCT
from tests.test_checkpoint import trained
from training import base, checkpoint, huggingface, manifest, tensorfile
from training.report import draw_curves
from training.run import WRITTEN, Run, read_log

network = cache(trained)  # once and not in a fork, where autograd would wait for threads that are not there


def in_run(act: Callable[[Run], object]) -> Callable[[Path], None]:
    """Something that is done to an open run."""

    def write(folder: Path) -> None:
        with Run(folder) as run:
            run.checkpoints.mkdir(exist_ok=True)
            act(run)

    return write


def curves(folder: Path) -> None:
    """Draw a log of one step."""
    (folder / "log.jsonl").write_text('{"step": 0, "loss": 4.5, "lr": 0.1}\n')
    draw_curves(folder)


def tokens(folder: Path) -> None:
    """Prepare a corpus."""
    text = folder.with_name("poem.txt")
    text.write_text(POEM)
    write_tokens(folder / "tokens", open_corpus(DataConfig(path=str(text))), 0.1, ByteTokenizer())


def exported(folder: Path) -> None:
    """A folder of Hugging Face's, as export.py makes it."""
    config = GPTConfig(n_layer=1, n_head=1, n_embd=8, vocab_size=257, context_length=8)
    torch.manual_seed(0)
    with whole_folder(folder / "out") as beside:
        huggingface.write_network(beside, config, ByteTokenizer(), checkpoint.model_tensors(GPT(config)))


def picture(folder: Path) -> None:
    """What explore.py --out draws."""
    from matplotlib.figure import Figure

    from lens.paint import save

    save(lambda: Figure(figsize=(1, 1)), folder / "a.png")


def page(folder: Path) -> None:
    """What explore.py --export writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lens.views.page, "answers_of", lambda request: None)
        patch.setattr(lens.standalone, "standalone", lambda answers: "<p>" * 500)
        asked = Request._make([None] * len(Request._fields))
        lens.views.page.show(asked._replace(export=folder / "page.html"))


class Response(io.BytesIO):
    """What a server sends."""

    url = "https://example.org/file.txt"


def fetched(folder: Path) -> None:
    """A download."""
    digest = "9a9f1b1ab2fd7ff7c3b3cd7e0e6bf85a2f1ad9fd3a7a1b9e5cbd1a0f0ba9b7d5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.fetch.urllib.request, "urlopen", lambda url, timeout: Response(1000 * b"x"))
        patch.setattr(data.fetch, "sha256", lambda path: digest if path.stat().st_size == 1000 else "")
        download(Source("file.txt", Response.url, digest, 1000), folder / "file.txt")


def unpacked(folder: Path) -> None:
    """One of MNIST's files."""
    (folder / "images.gz").write_bytes(gzip.compress(1000 * b"x"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.digits, "local", lambda path, digest: None)
        patch.setattr(data.digits, "fetch", lambda source: folder / "images.gz")
        data.digits.mnist_file("images", "", "", 0)


SAVED = in_run(lambda run: checkpoint.save(run.checkpoints, checkpoint.State(step=5, log_bytes=0), *network()))
BASE = in_run(lambda run: base.keep_base(run.checkpoints, network()[0]))
WHOLE: dict[str, Callable[[Path], None]] = {
    "run.json": in_run(lambda run: run.write("run.json", "{}\n" * 50)),
    "tokenizer.json": in_run(lambda run: run.write("tokenizer.json", "[]\n" * 50)),
    "curves.png": curves,
    "checkpoints/best": in_run(lambda run: checkpoint.set_best(run.checkpoints, 5)),
    **{f"checkpoints/step-000005/{name}": SAVED for name in sorted(checkpoint.FILES | {"manifest.json"})},
    **{f"base/{name}": BASE for name in (base.WEIGHTS, "manifest.json")},
    **{f"tokens/{n}": tokens for n in ("train-00000.bin", "val-00000.bin", "index.json", "tokenizer.json")},
    **{f"out/{name}": exported for name in ("config.json", "model.safetensors")},
    "a.png": picture,
    "page.html": page,
    "file.txt": fetched,
    "images": unpacked,
}
GROWING: dict[str, Callable[[Path], None]] = {
    "log.jsonl": in_run(lambda run: run.log(step=5, loss=1.25, lr=0.001, grad_norm=0.5)),
    "timing.jsonl": in_run(lambda run: run.time(step=5)),
    "samples.txt": in_run(lambda run: run.add("samples.txt", "--- step 5\nThe quick brown fox\n")),
}


def save_file_in(close_in: Callable[[object], None], tensors: dict, path: Path, **more: dict) -> None:
    """safetensors' own, whose opening of files Python does not see."""
    close_in(path)
    save_file(tensors, path, **more)


def cut_off(folder: Path, name: str, write: Callable[[Path], None], limit: int, end: str) -> Child:
    """Let another process write, in which the file `name` may not grow beyond so many bytes once it is opened."""

    def close_in(path: object) -> None:
        if Path(name).name in str(path):
            if end == "kill":
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def opened(event: str, found: tuple) -> None:
        if event == "open" and isinstance(found[2], int) and found[2] & (os.O_WRONLY | os.O_RDWR):
            close_in(found[0])

    def work(board: object) -> int:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for module in (manifest, tensorfile):
            module.save_file = partial(save_file_in, close_in)
        sys.addaudithook(opened)
        heard, code = io.StringIO(), 0  # what it prints goes into a file too
        with redirect_stderr(heard):
            try:
                write(folder)
            except (OSError, UserError):
                code = 7
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(heard.getvalue(), file=sys.stderr)
        return code

    return Child(folder.parent, work)


def content(folder: Path, name: str) -> bytes | None:
    """What is in the file under its own name."""
    return (folder / name).read_bytes() if (folder / name).exists() else None


@pytest.mark.parametrize("end", ["error", "kill"])
@pytest.mark.parametrize("name", WHOLE)
def test_a_file_whose_writing_is_cut_off_is_complete_or_absent(tmp_path, name, end):
    complete, folder = tmp_path / "complete" / "run", tmp_path / "cut off" / "run"
    for place in (complete, folder):
        place.mkdir(parents=True)
    WHOLE[name](complete)
    wanted = content(complete, name)
    assert wanted
    expected = {"error": {7, 0}, "kill": {-signal.SIGXFSZ}}[end]  # 0: a picture is no reason to stop
    for before in (None, wanted):
        child = cut_off(folder, name, WHOLE[name], len(wanted) // 2, end)
        assert child.wait() in expected, child.text()
        assert "Traceback" not in child.text()
        assert content(folder, name) == before
        if end == "error":
            assert not list(folder.rglob("*.partial")), "nothing is left of it either"
        WHOLE[name](folder)  # the next attempt succeeds
        assert content(folder, name) == wanted


@pytest.mark.parametrize("end", ["error", "kill"])
@pytest.mark.parametrize("name", GROWING)
def test_a_line_whose_writing_is_cut_off_spoils_no_other(tmp_path, name, end):
    folder = tmp_path / "folder"
    folder.mkdir()
    GROWING[name](folder)
    before = content(folder, name)
    assert before
    child = cut_off(folder, name, GROWING[name], len(before) + len(before) // 2, end)
    assert child.wait() == (0 if end == "error" else -signal.SIGXFSZ)
    assert child.text().count(f"warning: cannot write {folder / name}") == (end == "error")
    with Run(folder) as run:
        if end == "kill":
            assert len(content(folder, name)) == len(before) + len(before) // 2
            run.cut(name, len(before) if name == "samples.txt" else None)  # as a resume does
        assert content(folder, name) == before
    GROWING[name](folder)
    lines = content(folder, name).splitlines()
    assert len(lines) == 2 * len(before.splitlines())
    if name != "samples.txt":
        assert [json.loads(line)["step"] for line in lines] == [5, 5]


def test_half_a_line_at_the_end_of_a_log_is_not_read(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 0}\n{"step": 1, "lo')
    assert read_log(tmp_path) == [{"step": 0}]


def test_every_file_of_a_run_is_among_those_that_are_cut_off_and_those_that_are_overwritten(shell, tiny, workplace):
    assert shell("train.py", *tiny)[0] == 0
    (workplace / "tuned.toml").write_text(
        '[model]\nkind = "auto"\n[model.lora]\nrank = 2\n[data]\npath = "poem.txt"\n'
        "[train]\nsteps = 12\nbatch_size = 4\nthreads = 1\n[log]\nsample_tokens = 4\n"
    )
    code, _, err = shell("train.py", "tuned.toml", "--train.start", "tiny")
    assert code == 0, err
    tested = {name.replace("step-000005", "step-000012") for name in {**WHOLE, **GROWING}}
    for run in ("tiny", "tuned"):
        folder = workplace / "runs" / run
        files = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}
        assert all(WRITTEN.fullmatch(file) for file in files)
        newest = {file for file in files if not file.startswith("checkpoints/step") or "/step-000012/" in file}
        assert newest - {"run.lock"} <= tested
    assert "base/model.safetensors" in files


def test_what_is_no_file_is_written_to_directly_and_a_link_is_followed(tmp_path):
    write_whole(Path(os.devnull), "x")
    assert not Path(os.devnull).is_file()
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    reading, writing = os.pipe()
    write_whole(Path(f"/dev/fd/{writing}"), "through a pipe")
    assert os.read(reading, 100) == b"through a pipe"
    os.close(reading)
    os.close(writing)


def test_the_longest_name_that_a_file_system_allows_can_be_written(tmp_path):
    for letter in ("x", "ü"):
        name = letter * (255 // len(letter.encode()))
        write_whole(tmp_path / name, letter)
        assert (tmp_path / name).read_text() == letter


def test_two_processes_that_write_the_same_file_do_not_share_its_beginning(tmp_path):
    def other(board: object) -> int:
        write_whole(tmp_path / "file", "theirs")
        return 0

    with whole_file(tmp_path / "file") as beside:
        beside.write_text("ours")
        assert Child(tmp_path, other).wait() == 0
        assert (tmp_path / "file").read_text() == "theirs" and beside.read_text() == "ours"
    assert (tmp_path / "file").read_text() == "ours"


def test_a_folder_that_fails_leaves_the_older_one(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as beside:
        (beside / "new").touch()
        raise KeyboardInterrupt
    assert [f.name for f in folder.iterdir()] == ["old"] and not partial_of(folder).exists()


def test_what_export_would_replace_must_be_empty(tmp_path):
    folder = tmp_path / "folder"
    with pytest.raises(OSError, match="not empty"), whole_folder(folder, remove=Path.rmdir) as beside:
        (beside / "new").touch()
        folder.mkdir()
        (folder / "precious").touch()  # put there meanwhile
    assert [f.name for f in folder.iterdir()] == ["precious"]


def test_text_is_appended_as_utf_8(tmp_path):
    for text in ("ü\n", "€\n"):
        append(tmp_path / "file", text)
    assert (tmp_path / "file").read_bytes() == "ü\n€\n".encode()


ELSEWHERE = {  # calls that write into a folder, or under a name, which configs/files.py puts in its place
    "data/fetch.py": {"open"},
    "data/tokenizing.py": {"open"},
    "lens/paint.py": {"savefig"},
    "training/checkpoint.py": {"rename"},  # a folder that is complete
    "training/manifest.py": {"save_file"},
    "training/report.py": {"savefig"},
    "training/tensorfile.py": {"save_file"},
    "configs/errors.py": {"open"},  # the null device
    "configs/terminal.py": {"open"},  # the null device
}


def writing(node: ast.AST) -> str | None:
    """The name of a call that writes a file or renames one."""
    if not isinstance(node, ast.Call):
        return None
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    words = [word.value for word in (*node.args, *(k.value for k in node.keywords)) if isinstance(word, ast.Constant)]
    if name == "open":
        modes = [word for word in words if isinstance(word, str) and re.fullmatch(r"[rwaxbt+]+", word)]
        return name if set("wax+") & set("".join(modes)) else None
    if name == "replace":  # of a path; that of a text takes two
        return name if len(node.args) == 1 and not node.keywords else None
    if name == "rename" and isinstance(node.func, ast.Name):  # a function of ours
        return None
    return name if name in {"write_text", "write_bytes", "savefig", "save_file", "rename", "copyfile"} else None


def test_no_other_file_writes_in_place():
    found: dict[str, set[str]] = {}
    for path in PRODUCT:
        names = {name for node in ast.walk(ast.parse(path.read_text())) if (name := writing(node))}
        if names and path != ROOT / "configs/files.py":
            found[path.relative_to(ROOT).as_posix()] = names
    assert found == ELSEWHERE
