"""The command line of sample.py, understood and checked against the run without loading torch."""

import argparse
import math
import secrets
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from pydantic import ConfigDict, ValidationError

from configs.errors import OneLineParser, UserError, one_line, reason
from configs.files import Damaged, lines_of
from configs.schema import GPTConfig, Settings
from training.run import Record, all_runs, read_record, run_folder
from training.validation import Evaluated, best_of, evaluations

LONGEST_PROMPT = 2**24  # bytes
LARGEST_LOG = 2**28  # bytes; of a run with millions of steps

TEXT = {
    "prompt": None,
    "prompt_file": None,
    "prompt_lines": None,
    "interactive": False,
    "temperature": 0.8,
    "top_k": None,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "max_tokens": 300,
    "stop": [],
    "samples": 1,
    "logprobs": None,
    "dtype": "float32",
    "quantize": None,
}
DIGITS = {"image": [], "test_digits": 0}


class Request(NamedTuple):
    """What to sample; every value has been checked."""

    run: Path
    checkpoint: str
    device: str
    seed: int
    prompts: list[str]
    """at least one; empty text is a prompt too"""
    interactive: bool
    temperature: float
    top_k: int | None
    top_p: float
    min_p: float
    repetition_penalty: float
    max_tokens: int
    stop: list[str]
    samples: int
    logprobs: int | None
    dtype: str
    quantize: str | None
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
    prompt.add_argument("--prompt", action="append", metavar="TEXT", help="what a text begins with; may be repeated")
    prompt.add_argument("--prompt-file", metavar="FILE", help="the same from a file, or - for standard input")
    prompt.add_argument("--prompt-lines", metavar="FILE", help="many: each line that isn't empty is a prompt")
    text.add_argument("--interactive", action="store_true", default=None, help="go on from what you type")
    text.add_argument("--temperature", type=number(0), metavar="T", help="0: always the likeliest (default 0.8)")
    text.add_argument("--top-k", type=whole(1), metavar="K", help="draw among the K likeliest tokens alone")
    text.add_argument(
        "--top-p", type=number(0, 1, above=True), metavar="P", help="among the likeliest with probability P together"
    )
    text.add_argument("--min-p", type=number(0, 1), metavar="P", help="among those P times as likely as the likeliest")
    text.add_argument(
        "--repetition-penalty", type=number(0, above=True), metavar="R", help="above 1: avoid what was said"
    )
    text.add_argument("--max-tokens", type=whole(0), metavar="N", help="length of what is written (default 300)")
    text.add_argument("--stop", action="append", type=some, metavar="TEXT", help="end before this; may be repeated")
    text.add_argument("--samples", type=whole(1), metavar="N", help="how many texts of each prompt (default 1)")
    text.add_argument("--logprobs", type=whole(0), metavar="K", help="JSON lines: each token, and the K likeliest")
    speed = text.add_mutually_exclusive_group()
    speed.add_argument("--dtype", choices=["float32", "bfloat16"], help="of all numbers (default float32)")
    speed.add_argument("--quantize", choices=["int8"], help="weights in eight bits: less memory, faster on a CPU")
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


def some(word: str) -> str:
    """A text that isn't empty."""
    if not word:
        raise argparse.ArgumentTypeError("must not be empty")
    return word


def number(low: float, high: float = math.inf, above: bool = False):
    """A finite number from `low` (or above it) to `high`."""
    rule = f"{'above' if above else 'from'} {low}" + (" up" if high == math.inf else f" to {high}")

    def convert(word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not (low <= value <= high and value < math.inf) or (above and value == low):
            raise argparse.ArgumentTypeError(f"must be a number {rule}, got {word!r}")
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
    given["prompts"] = read_prompts(given)
    seed = secrets.randbelow(2**32) if given["seed"] is None else given["seed"]
    wanted = {name: given[name] for name in Request._fields if name in given}
    return Request(**{**wanted, "run": folder, "seed": seed})


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
    for name in ("top_k", "logprobs") if is_text else ():
        if (given[name] or 0) > (size := record.resolved.model.vocab_size):
            raise UserError(f"--{name.replace('_', '-')} {given[name]} is over the vocabulary's {size} tokens")
    for name in ("samples", "logprobs", "prompt_lines") if given["interactive"] else ():
        if given[name] is not None:
            raise UserError(f"--{name.replace('_', '-')} is not for --interactive, which has one text")
    if given["interactive"] and given["prompt_file"] == "-":
        raise UserError("--prompt-file - is not for --interactive, which reads standard input itself")


def read_prompts(given: dict) -> list[str]:
    """What the texts begin with. Raises UserError for a file that holds no prompt."""
    if (file := given["prompt_lines"]) is not None:
        lines = [line for line in read_prompt(file, "--prompt-lines").split("\n") if line]
        if not lines:
            raise UserError(f"--prompt-lines: {file} holds no prompt")
        return lines
    return given["prompt"] or [read_prompt(given["prompt_file"], "--prompt-file") if given["prompt_file"] else ""]


def read_prompt(file: str, option: str) -> str:
    """A prompt from a file, or from standard input. Raises UserError unless it is UTF-8."""
    try:
        with nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as source:
            content = source.read(LONGEST_PROMPT + 1)
        if len(content) > LONGEST_PROMPT:
            raise UserError(f"{option}: {file} is longer than {LONGEST_PROMPT:,} bytes, far beyond any context")
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{option}: {file} is not UTF-8 text") from error
    except OSError as error:
        raise UserError(f"{option}: {file}: {error.strerror}") from error


class Line(Settings):
    """A line of log.jsonl, as far as the list of runs needs it."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=True)
    step: int | None = None
    """none in the line of a loss that was no number"""
    val_loss: float | None = None
    val_accuracy: float | None = None


def summary(log: Path) -> tuple[int, list[Evaluated]]:
    """The last step in a log and all evaluations. Raises UserError for what is no log."""
    step, found = 0, []
    if log.exists():
        if log.stat().st_size > LARGEST_LOG:
            raise Damaged(log.parent, f"{log.name} is too large")
        try:
            for line in map(Line.model_validate_json, lines_of(log)):
                step = step if line.step is None else line.step
                found += evaluations([line.model_dump(exclude_none=True)]) if line.step is not None else []
        except ValidationError as error:
            raise Damaged(log.parent, f"{log.name}: {reason(error)}") from error
    return step, found


def listing() -> str:
    """All runs, the newest first: name, kind, steps, best evaluation, size, date."""
    rows = [("run", "kind", "step", "best", "MB", "begun")]
    for folder in all_runs():
        try:
            model = read_record(folder).resolved.model
            step, found = summary(folder / "log.jsonl")
        except UserError:
            continue
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime((folder / "run.json").stat().st_mtime))
        best = f"{best_of(found).score} (step {best_of(found).step:,})" if found else "-"
        rows.append((one_line(folder.name), model.kind if model else "-", str(step), best, f"{size / 1e6:.1f}", begun))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
