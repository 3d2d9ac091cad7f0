"""The command line of sample.py, understood and checked against the run without loading torch."""

import argparse
import math
import secrets
import sys
import time
from pathlib import Path
from typing import NamedTuple

from configs.errors import OneLineParser, UserError
from configs.schema import GPTConfig
from training.run import Record, all_runs, read_log, read_record, run_folder

TEXT = {"prompt": "", "prompt_file": None, "temperature": 0.8, "top_k": None, "max_tokens": 300, "samples": 1}
DIGITS = {"image": [], "test_digits": 0}


class Request(NamedTuple):
    """What to sample; every value has been checked."""

    run: Path
    checkpoint: str
    device: str
    seed: int
    prompt: str
    temperature: float
    top_k: int | None
    max_tokens: int
    samples: int
    image: list[Path]
    test_digits: int


def parser() -> argparse.ArgumentParser:
    """All that sample.py can be told."""
    p = OneLineParser("sample.py", description="Let a trained network speak.", allow_abbrev=False)
    p.add_argument("run", nargs="?", help="a name under runs/, a folder, or a checkpoint (default: the newest run)")
    p.add_argument("--list", action="store_true", help="name the runs there are")
    p.add_argument("--checkpoint", default="best", metavar="WHICH", help="best (default), last, or step-N")
    p.add_argument("--device", default="auto", help="auto (default), cpu, mps, cuda, cuda:1 ...")
    p.add_argument("--seed", type=whole(0), help="of the draws: the same seed gives the same text")
    text = p.add_argument_group("text networks")
    prompt = text.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="what the text begins with")
    prompt.add_argument("--prompt-file", metavar="FILE", help="the same from a file, or - for standard input")
    text.add_argument("--temperature", type=number(0), metavar="T", help="0: always the likeliest (default 0.8)")
    text.add_argument("--top-k", type=whole(1), metavar="K", help="draw among the K likeliest tokens alone")
    text.add_argument("--max-tokens", type=whole(0), metavar="N", help="length of what is written (default 300)")
    text.add_argument("--samples", type=whole(1), metavar="N", help="how many texts (default 1)")
    digits = p.add_argument_group("digit networks")
    digits.add_argument("--image", nargs="+", type=Path, metavar="FILE", help="pictures of digits")
    digits.add_argument("--test-digits", type=whole(1), metavar="N", help="show N test images, half of them misread")
    return p


def whole(low: int):
    """A whole number from `low` up."""

    def convert(word: str) -> int:
        if not (word.strip().lstrip("+-").isdecimal() and low <= int(word) < 2**63):
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} up, got {word!r}")
        return int(word)

    return convert


def number(low: float):
    """A finite number from `low` up."""

    def convert(word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not low <= value < math.inf:
            raise argparse.ArgumentTypeError(f"must be a number from {low} up, got {word!r}")
        return value

    return convert


def understand(arguments: list[str]) -> Request:
    """Check sample.py's arguments against the run. Raises UserError, or SystemExit after --help and --list."""
    given = vars(parser().parse_args(arguments))
    if given["list"]:
        print(listing())
        sys.exit(0)
    folder = newest() if given["run"] is None else run_folder(given["run"])
    top = folder.parents[1] if folder.parent.name == "checkpoints" else folder
    record = read_record(top)
    check_kind(given, record, top)
    for name, default in {**TEXT, **DIGITS}.items():
        given[name] = default if given[name] is None else given[name]
    prompt = given["prompt"] if given["prompt_file"] is None else read_prompt(given["prompt_file"])
    seed = secrets.randbelow(2**32) if given["seed"] is None else given["seed"]
    wanted = {name: given[name] for name in Request._fields if name in given}
    return Request(**{**wanted, "run": folder, "prompt": prompt, "seed": seed})


def newest() -> Path:
    """The run that was begun last. Raises UserError if there is none."""
    runs = all_runs()
    if not runs:
        raise UserError("there is no run yet; train one first: python train.py configs/python.toml")
    return runs[0]


def check_kind(given: dict, record: Record, folder: Path) -> None:
    """Raises UserError for an option of the other kind of network, and for a top-k above the vocabulary."""
    is_text = isinstance(record.resolved.model, GPTConfig)
    kind, wrong = ("text", DIGITS) if is_text else ("digit", TEXT)
    for name in wrong:
        if given[name] is not None:
            raise UserError(f"--{name.replace('_', '-')} is not for {folder}, which is a {kind} network")
    if not is_text and not (given["image"] or given["test_digits"]):
        raise UserError(f"{folder} reads digits: give it --image FILE or --test-digits N")
    if is_text and given["top_k"] and given["top_k"] > record.resolved.model.vocab_size:
        size = record.resolved.model.vocab_size
        raise UserError(f"--top-k {given['top_k']} is over the vocabulary's {size} tokens")


def read_prompt(file: str) -> str:
    """A prompt from a file, or from standard input. Raises UserError unless it is UTF-8."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"--prompt-file: {file} is not UTF-8 text") from error
    except OSError as error:
        raise UserError(f"--prompt-file: {file}: {error.strerror}") from error


def listing() -> str:
    """All runs, the newest first: name, kind, steps, best validation loss, size, date."""
    rows = [("run", "kind", "step", "best loss", "MB", "begun")]
    for folder in all_runs():
        try:
            model = read_record(folder).resolved.model
        except UserError:
            continue
        log = read_log(folder)
        losses = [line["val_loss"] for line in log if "val_loss" in line]
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime((folder / "run.json").stat().st_mtime))
        step = str(log[-1]["step"]) if log else "0"
        best = f"{min(losses):.4f}" if losses else "-"
        rows.append((folder.name, model.kind if model else "-", step, best, f"{size / 1e6:.1f}", begun))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
