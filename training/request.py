"""The command line of sample.py: parsed and checked against the run without importing torch."""

import argparse
import math
import secrets
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import ConfigDict, ValidationError

from configs.errors import OneLineParser, UserError, one_line, reason
from configs.files import Damaged, lines_of
from configs.schema import GPTConfig, Settings
from training.run import Record, all_runs, read_record, run_folder
from training.validation import Evaluated, best_of, evaluations

LONGEST_PROMPT = 2**24  # bytes
LARGEST_LOG = 2**28  # bytes; the log of a run with millions of steps

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
    """What to sample; every value is valid for the run."""

    run: Path
    checkpoint: str
    device: str
    seed: int
    prompts: list[str]
    """at least one; may be empty text"""
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


USAGE = "python sample.py [RUN] [options]"
EXAMPLES = """examples:
  python sample.py python --prompt "import " --temperature 0.5 --max-tokens 100
  python sample.py digits_demo --test-digits 4
"""


def parser() -> argparse.ArgumentParser:
    """The options of sample.py."""
    about = "Generate text from a GPT, or classify images with a digit network."
    p = OneLineParser("sample.py", USAGE, about, EXAMPLES, allow_abbrev=False)
    p.formatter_class = partial(argparse.RawDescriptionHelpFormatter, max_help_position=27)
    p.add_argument("run", nargs="?", metavar="RUN", help="run name, folder or checkpoint (default: newest)")
    p.add_argument("--list", action="store_true", help="list all runs and exit")
    p.add_argument("--checkpoint", default="best", metavar="WHICH", help="best, last or step-N (default: best)")
    p.add_argument("--device", default="auto", help="auto, cpu, mps, cuda, cuda:1 ... (default: auto)")
    p.add_argument("--seed", type=whole(0), metavar="N", help="random seed (default: a different one each time)")
    text = p.add_argument_group("prompt (GPT)")
    prompt = text.add_mutually_exclusive_group()
    prompt.add_argument(
        "--prompt", action="append", metavar="TEXT", help="text to continue; repeatable (default: none)"
    )
    prompt.add_argument("--prompt-file", metavar="FILE", help="read the prompt from FILE (- for stdin)")
    prompt.add_argument("--prompt-lines", metavar="FILE", help="read one prompt per non-empty line (- for stdin)")
    text.add_argument("--interactive", action="store_true", default=None, help="chat: continue each line you type")
    sampling = p.add_argument_group("sampling (GPT)")
    sampling.add_argument("--temperature", type=number(0), metavar="T", help="0 is greedy (default: 0.8)")
    sampling.add_argument("--top-k", type=whole(1), metavar="K", help="sample only the K most likely (default: all)")
    sampling.add_argument(
        "--top-p", type=number(0, 1, above=True), metavar="P", help="nucleus: top tokens summing to P (default: 1, off)"
    )
    sampling.add_argument(
        "--min-p", type=number(0, 1), metavar="P", help="drop tokens below P x top probability (default: 0)"
    )
    sampling.add_argument(
        "--repetition-penalty",
        type=number(0, above=True),
        metavar="R",
        help="above 1 discourages repetition (default: 1)",
    )
    sampling.add_argument("--max-tokens", type=whole(0), metavar="N", help="tokens to generate (default: 300)")
    sampling.add_argument("--stop", action="append", type=some, metavar="TEXT", help="stop before TEXT; repeatable")
    sampling.add_argument("--samples", type=whole(1), metavar="N", help="texts per prompt (default: 1)")
    sampling.add_argument(
        "--logprobs", type=whole(0), metavar="K", help="JSON lines with each token's logprob and the top K"
    )
    speed = p.add_argument_group("precision (GPT)").add_mutually_exclusive_group()
    speed.add_argument(
        "--dtype", choices=["float32", "bfloat16"], metavar="TYPE", help="float32 or bfloat16 (default: float32)"
    )
    speed.add_argument("--quantize", choices=["int8"], metavar="int8", help="int8 weights: less memory, faster on CPUs")
    digits = p.add_argument_group("digit networks")
    digits.add_argument("--image", nargs="+", type=Path, metavar="FILE", help="image files to classify")
    digits.add_argument(
        "--test-digits", type=whole(1), metavar="N", help="show N test images, half of them misclassified"
    )
    return p


def whole(low: int):
    """argparse type: an integer >= `low`."""

    def convert(word: str) -> int:
        if not (word.strip().lstrip("+-").isdecimal() and low <= int(word) < 2**63):
            raise argparse.ArgumentTypeError(f"must be an integer >= {low}, got {word!r}")
        return int(word)

    return convert


def some(word: str) -> str:
    """argparse type: a non-empty string."""
    if not word:
        raise argparse.ArgumentTypeError("must not be empty")
    return word


def number(low: float, high: float = math.inf, above: bool = False):
    """argparse type: a finite number in [low, high], or in (low, high] with `above`."""
    if high == math.inf:
        rule = f"a finite number {'>' if above else '>='} {low}"
    else:
        rule = f"in {'(' if above else '['}{low}, {high}]"

    def convert(word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not (low <= value <= high and value < math.inf) or (above and value == low):
            raise argparse.ArgumentTypeError(f"must be {rule}, got {word!r}")
        return value

    return convert


def understand(arguments: list[str]) -> Request:
    """Parse the arguments and check them against the run. Raises UserError, or SystemExit after --help and --list."""
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
    """The run started last. Raises UserError if there are no runs."""
    runs = all_runs()
    if not runs:
        raise UserError("no runs yet; train one first: python train.py configs/python.toml")
    return runs[0]


def check_kind(given: dict, record: Record, folder: Path) -> None:
    """Raises UserError for options that do not fit the network or exclude each other."""
    is_text = isinstance(record.resolved.model, GPTConfig)
    kind, wrong = ("text", DIGITS) if is_text else ("digit", TEXT)
    for name in wrong:
        if given[name] is not None:
            raise UserError(f"--{name.replace('_', '-')} does not apply to {folder} (a {kind} network)")
    if not is_text and not (given["image"] or given["test_digits"]):
        raise UserError(f"{folder} is a digit network: pass --image FILE or --test-digits N")
    for name in ("top_k", "logprobs") if is_text else ():
        if (given[name] or 0) > (size := record.resolved.model.vocab_size):
            raise UserError(f"--{name.replace('_', '-')} {given[name]} exceeds the vocabulary size, {size}")
    for name in ("samples", "logprobs", "prompt_lines") if given["interactive"] else ():
        if given[name] is not None:
            raise UserError(f"--{name.replace('_', '-')} cannot be combined with --interactive")
    if given["interactive"] and given["prompt_file"] == "-":
        raise UserError("--prompt-file - cannot be combined with --interactive: both read standard input")


def read_prompts(given: dict) -> list[str]:
    """The prompts, from the command line or a file. Raises UserError for a file without any."""
    if (file := given["prompt_lines"]) is not None:
        lines = [line for line in read_prompt(file, "--prompt-lines").split("\n") if line]
        if not lines:
            raise UserError(f"--prompt-lines: {file} contains no prompts")
        return lines
    return given["prompt"] or [read_prompt(given["prompt_file"], "--prompt-file") if given["prompt_file"] else ""]


def read_prompt(file: str, option: str) -> str:
    """The text of a file, or of stdin for "-". Raises UserError for one that is too long or not UTF-8."""
    try:
        with nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as source:
            content = source.read(LONGEST_PROMPT + 1)
        if len(content) > LONGEST_PROMPT:
            raise UserError(f"{option}: {file} is larger than {LONGEST_PROMPT:,} bytes, the limit for a prompt")
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{option}: {file} is not UTF-8 text") from error
    except OSError as error:
        raise UserError(f"{option}: {file}: {error.strerror}") from error


class Line(Settings):
    """The fields of a line of log.jsonl that --list needs."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=True)
    step: int | None = None
    """None in the line that records a non-finite loss"""
    val_loss: float | None = None
    val_accuracy: float | None = None


def summary(log: Path) -> tuple[int, list[Evaluated]]:
    """The last step in a log and all evaluations. Raises UserError if the file is not a log."""
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
    """The table that --list prints, newest run first."""
    rows = [("run", "kind", "step", "best", "MB", "started")]
    for folder in all_runs():
        try:
            model = read_record(folder).resolved.model
            step, found = summary(folder / "log.jsonl")
        except UserError:
            continue
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime((folder / "run.json").stat().st_mtime))
        best = f"{best_of(found).score} (step {best_of(found).step:,})" if found else "-"
        rows.append(
            (one_line(folder.name), model.kind if model else "-", str(step), best, f"{size / 1e6:.1f}", started)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
