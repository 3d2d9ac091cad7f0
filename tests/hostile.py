"""Files that a stranger might send, written when a test asks for them, and the commands that would open each."""

import gzip
import json
import math
import os
import pickle
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from data.fetch import sha256

SPARSE = 10 * 2**30  # bytes that a file claims and no disk holds
CANARY = "canary"  # the file that a payload would make


class Executed:
    """Unpickled it makes the canary."""

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {CANARY}",)


def safetensors(header: bytes, body: bytes = b"") -> bytes:
    """A file of tensors with this header."""
    return len(header).to_bytes(8, "little") + header + body


def header(tensors: dict[str, list]) -> bytes:
    """A header that gives every tensor a shape and, where they fit, the bytes for it."""
    return json.dumps(
        {
            name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * math.prod(shape)]}
            for name, shape in tensors.items()
        }
    ).encode()


def png(width: int, height: int, body: bytes) -> bytes:
    """A black and white picture of this size, whose packed content is `body`."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    start = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def content(data: bytes) -> Callable[[Path], object]:
    """Writes these bytes."""
    return lambda path: path.write_bytes(data)


def sparse(path: Path) -> None:
    """Ten gigabytes of nothing."""
    with path.open("wb") as file:
        file.truncate(SPARSE)


def sparse_tensors(path: Path) -> None:
    """A well-formed file of one tensor that is ten gigabytes large."""
    path.write_bytes(safetensors(header({"embedding.token.weight": [SPARSE // 4]})))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + SPARSE)


def zipped(path: Path) -> None:
    """A zip, which torch.load would open, of a pickle and a hundred million zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Executed()))
        archive.writestr("archive/data/0", bytes(10**7))


def link(path: Path) -> None:
    """A link out of the folder."""
    path.symlink_to(Path("sentinel/precious").resolve())


RECORD, TOKENIZER, STATE, TENSORS = "run.json", "tokenizer.json", "state.json", "model.safetensors"
PARSED = ["config", RECORD, TOKENIZER, STATE, "manifest.json", "config.json", "index.json", "theirs"]
BINARY = [*PARSED, TENSORS, "optimizer.safetensors", "weights", "picture", "prompt", "text"]
JSON = PARSED[1:]
CODE = b"__import__('os').system('touch canary')\n"
EVIL = f"!!python/object/apply:os.system ['touch {CANARY}']\n".encode()

PAYLOADS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "pickle": (content(pickle.dumps(Executed(), protocol=4)), BINARY),
    "pickle in ASCII": (content(pickle.dumps(Executed(), protocol=0)), [*PARSED, TENSORS, "weights", "picture"]),
    "pickle in a zip bomb": (zipped, BINARY),
    "YAML tag": (content(EVIL), [*PARSED, TENSORS, "picture"]),
    "Python": (content(CODE), [*PARSED, TENSORS, "weights", "picture"]),
    "10 GB, sparse": (sparse, [*PARSED, TENSORS, "optimizer.safetensors", "weights", "picture", "prompt", "text"]),
    "10 GB of one tensor": (sparse_tensors, [TENSORS, "optimizer.safetensors", "weights"]),
    "a pipe": (os.mkfifo, [STATE, "manifest.json", TENSORS, "optimizer.safetensors", "picture"]),
    "a link": (link, [RECORD, TOKENIZER, STATE, "manifest.json", TENSORS]),
    "nothing": (content(b""), [*JSON, TENSORS, "weights", "picture", "text"]),
    "lists, 10,000 deep": (content(b"[" * 10_000 + b"]" * 10_000), JSON),
    "tables, 10,000 deep": (content(b'{"asked":' * 10_000 + b"1" + b"}" * 10_000), JSON),
    "a million lists": (content(b'{"asked":{"a":[' + b"[],"[:3] * 10**6 + b"[]]}}"), JSON),
    "a million numbers": (content(b"[" + b"1," * 10**6 + b"1]"), JSON),
    "a key of a megabyte": (content(b'{"' + b"a" * 10**6 + b'":1}'), JSON),
    "TOML with code": (content(b"[train]\nsteps = __import__('os').system('touch canary')\n"), ["config"]),
    "TOML with a key of a class": (content(b'[train]\n"__class__" = "os.system"\nsteps = 1\n'), ["config"]),
    "TOML, 10,000 deep": (content(b"a = " + b"[" * 10_000 + b"]" * 10_000), ["config"]),
    "TOML, a key with 100,000 dots": (content(b"a." * 100_000 + b"a = 1"), ["config"]),
    "TOML, 30,000 unknown keys": (content(b"".join(b"k%d=1\n" % i for i in range(25_000))), ["config"]),
    "TOML, a number of 200,000 digits": (content(b"[train]\nsteps = 0x" + b"f" * 200_000), ["config"]),
    "300,000 tensors": (content(safetensors(header({f"t{i}": [0] for i in range(300_000)}))), [TENSORS, "weights"]),
    "30,000 tensors": (content(safetensors(header({f"t{i}": [0] for i in range(30_000)}))), [TENSORS, "weights"]),
    "2^40 rows": (
        content(safetensors(header({"embedding.token.weight": [2**40, 16]}))),
        [TENSORS, "optimizer.safetensors", "weights"],
    ),
    "a header of 2^63 bytes": (content((2**63).to_bytes(8, "little") + b"{}"), [TENSORS, "weights"]),
    "PNG bomb": (content(png(60_000, 60_000, zlib.compress(bytes(10**7)))), ["picture"]),
    "PNG of 2^31 pixels a side": (content(png(2**31 - 1, 2**31 - 1, b"")), ["picture"]),
    "PostScript": (content(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(canary) (w) file\n"), ["picture"]),
    "gzip bomb": (content(gzip.compress(b"a" * 10**8)), ["text.gz", "picture", "prompt"]),
    "gzip bomb of one line": (content(gzip.compress(b'{"text":"' + b"a" * 10**8 + b'"}')), ["text.jsonl.gz"]),
    "gzip that breaks off": (content(gzip.compress(os.urandom(10**5))[:-100]), ["text.gz"]),
    "JSON Lines, 10,000 deep": (content(b'{"text":' * 10_000), ["text.jsonl"]),
    "JSON Lines, a million lists": (content(b'{"text":[' + b"[]," * 10**6 + b"1]}\n"), ["text.jsonl"]),
    "JSON Lines, a line of 50 MB": (content(b'{"text":"' + b"a" * 5 * 10**7), ["text.jsonl"]),
}

RESUME = "train.py --resume --run tiny"
OF_A_RUN = ["sample.py tiny", "export.py tiny out", RESUME, "train.py tiny.toml --run new --train.start tiny"]
STEP = "runs/tiny/checkpoints/step-000012"
THEIRS = "train.py tiny.toml --run new --train.start ./gpt2 --data.tokenizer auto"
TOKENS = "train.py tiny.toml --run new --data.path tokens --data.tokenizer auto"
PLACES: dict[str, dict[str, list[str]]] = {  # for each kind of file, where it lies and what opens it
    "config": {"evil.toml": ["train.py evil.toml", "train.py tiny.toml evil.toml --run new"]},
    RECORD: {"runs/tiny/run.json": OF_A_RUN},
    TOKENIZER: {"runs/tiny/tokenizer.json": OF_A_RUN, "tokens/tokenizer.json": [TOKENS]},
    STATE: {f"{STEP}/state.json": OF_A_RUN},
    "manifest.json": {f"{STEP}/manifest.json": OF_A_RUN},
    TENSORS: {f"{STEP}/model.safetensors": OF_A_RUN},
    "optimizer.safetensors": {f"{STEP}/optimizer.safetensors": [RESUME]},
    "weights": {"gpt2/model.safetensors": [THEIRS]},
    "config.json": {"gpt2/config.json": [THEIRS]},
    "theirs": {"gpt2/tokenizer.json": [THEIRS]},
    "index.json": {"tokens/index.json": [TOKENS], "gpt2/model.safetensors.index.json": [THEIRS]},
    "picture": {"evil.png": ["sample.py d --image evil.png"]},
    "prompt": {"evil.prompt": [f"sample.py tiny --prompt-{how} evil.prompt" for how in ("file", "lines")]},
    **{
        kind: {f"evil.{end}": [f"train.py tiny.toml --run new --data.path evil.{end}"]}
        for kind, end in (
            ("text", "txt"),
            ("text.gz", "txt.gz"),
            ("text.jsonl", "jsonl"),
            ("text.jsonl.gz", "jsonl.gz"),
        )
    },
}
GOOD = {"config": "tiny.toml", "picture": "good.png", "prompt": "poem.txt", "text": "poem.txt"}


def cases() -> list[tuple[str, str, str]]:
    """(payload, place, command): every payload in every place where its kind of file is opened, by every opener."""
    return [
        (payload, place, command)
        for payload, (_, kinds) in PAYLOADS.items()
        for kind in kinds
        for place, commands in PLACES[kind].items()
        for command in commands
    ]


def plant(payload: str, place: str) -> None:
    """Put a payload where a good file was; a run's manifest is made to agree, so that no hash protects."""
    path = Path(place)
    path.unlink(missing_ok=True)
    if place.endswith("model.safetensors.index.json"):
        (path.parent / TENSORS).unlink()
    PAYLOADS[payload][0](path)
    manifest = path.with_name("manifest.json")
    if "checkpoints" in place and path != manifest and path.is_file() and path.stat().st_size < 10**9:
        text = re.sub(rf'("{re.escape(path.name)}": ?")[0-9a-f]{{64}}', rf"\g<1>{sha256(path)}", manifest.read_text())
        manifest.write_text(text)
    if place == "runs/tiny/tokenizer.json":  # the same for the hash of the tokenizer
        manifest = Path(STEP, "manifest.json")
        manifest.write_text(re.sub(r',?\s*"tokenizer": ?"[0-9a-f]{64}"', "", manifest.read_text()))


def copy(world: Path, to: Path) -> None:
    """A world of one's own, without what an earlier command left in its runs."""
    shutil.rmtree(to / "runs", ignore_errors=True)
    shutil.copytree(world, to, dirs_exist_ok=True)
