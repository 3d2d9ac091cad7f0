"""Memory used while training from a large corpus: python -m benchmarks.memory [--gigabytes 10].

The tokens are a sparse file of zeros, which takes no space on the disk; train.py trains a small network from them as
from any prepared tokens. The peak is the maximum resident size of that process. The same is measured with 1 MB of
tokens.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import about
from data.shards import SHARD_BYTES, Index, Shard, Split, shard_file, write_index
from data.tokenizer import ByteTokenizer

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "memory.json"
TRAIN = (
    "import resource, runpy, sys\n"
    "code = 0\n"
    "try: runpy.run_path('train.py', run_name='__main__')\n"
    "except SystemExit as end: code = end.code\n"
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\n"
    "sys.exit(code)"
)


def sparse_tokens(folder: Path, count: int) -> Path:
    """A folder of prepared tokens: `count` zeros of two bytes each."""
    folder.mkdir(parents=True)
    sizes = [min(SHARD_BYTES, 2 * count - at) for at in range(0, 2 * count, SHARD_BYTES)]
    for number, size in enumerate(sizes):
        shard_file(folder, "train", number).touch()
        os.truncate(shard_file(folder, "train", number), size)
    digests = {size: zeros_hash(size) for size in set(sizes)}
    shards = [Shard(tokens=size // 2, sha256=digests[size]) for size in sizes]
    tokenizer = ByteTokenizer()
    (folder / "tokenizer.json").write_text(tokenizer.file)
    splits = {"train": Split(byte_count=count, shards=shards)}
    corpus = hashlib.sha256(str(count).encode()).hexdigest()
    index = Index(corpus=corpus, document_count=1, tokenizer=tokenizer.sha256, dtype="uint16", splits=splits)
    write_index(folder, index)
    return folder


def zeros_hash(size: int) -> str:
    """SHA-256 of `size` zero bytes."""
    digest, block = hashlib.sha256(), bytes(2**20)
    for at in range(0, size, len(block)):
        digest.update(block[: size - at])
    return digest.hexdigest()


def train(folder: Path, run: Path, steps: int, *options: str) -> dict[str, Any]:
    """Peak memory and seconds of train.py on these tokens."""
    words = ["configs/python.toml", "--data.path", str(folder), "--data.tokenizer", "auto", "--run", str(run)]
    words += ["--train.steps", str(steps), "--log.sample_tokens", "0", "--train.threads", "1"]
    words += options
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", TRAIN, *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return {"peak_bytes": int(done.stdout.split()[-1]), "seconds": time.perf_counter() - begin, "steps": steps}


def main() -> None:
    """Measure both corpora and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=10, help="size of the large corpus (default: 10)")
    parser.add_argument("--steps", type=int, default=200, help="training steps (default: 200)")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for size in (1e6, asked.gigabytes * 1e9):
            folder = sparse_tokens(Path(place) / f"tokens{size:.0f}", int(size) // 2)
            rows.append({"token_bytes": int(size), **train(folder, Path(place) / f"run{size:.0f}", asked.steps)})
            print(rows[-1])
    RESULT.write_text(json.dumps({"figure": "memory", "rows": rows, "machine": about()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
