"""Export a run: its network and tokenizer in the formats of Transformers or PEFT, or with int8 weights."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from configs.errors import OneLineParser, UserError, answer, for_shell, one_line
from configs.files import whole_folder
from configs.schema import GPTConfig
from training.run import read_record, require_utf8, run_folder

USAGE = "python export.py RUN FOLDER [options]"
EXAMPLES = """examples:
  python export.py python exported
  python export.py python small --quantize int8
"""


class Request(NamedTuple):
    """What to export, and where to."""

    run: Path
    """a run folder or a checkpoint folder"""
    checkpoint: str
    folder: Path
    """new or empty"""
    format: str


def understand(arguments: list[str]) -> Request:
    """Parse and check the arguments, without torch. Raises UserError, or SystemExit after --help."""
    about = "Export a run for Transformers or PEFT, or with int8 weights for sample.py."
    p = OneLineParser("export.py", USAGE, about, EXAMPLES, allow_abbrev=False)
    p.formatter_class = argparse.RawDescriptionHelpFormatter
    p.add_argument("run", metavar="RUN", help="run name, folder or checkpoint")
    p.add_argument("folder", metavar="FOLDER", type=Path, help="output folder; must be new or empty")
    p.add_argument("--checkpoint", default="best", metavar="WHICH", help="best, last or step-N (default: best)")
    form = p.add_argument_group("format (choose one)").add_mutually_exclusive_group()
    form.add_argument(
        "--format",
        default="transformers",
        choices=("transformers", "peft"),
        metavar="NAME",
        help="transformers, or peft for LoRA (default: transformers)",
    )
    form.add_argument("--quantize", choices=("int8",), metavar="int8", help="a run with int8 weights, for sample.py")
    given = p.parse_args(arguments)
    run, folder = run_folder(given.run), given.folder.expanduser().resolve()
    model = read_record(run.parents[1] if run.parent.name == "checkpoints" else run).resolved.model
    if not isinstance(model, GPTConfig):
        raise UserError(f"{run} is a digit network; only text networks can be exported")
    require_utf8(str(given.folder))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{given.folder} already exists and is not an empty folder; choose a new folder")
    return Request(run, given.checkpoint, folder, given.quantize or given.format)


def as_transformers(request: Request, folder: Path) -> str:
    """Write Hugging Face's GPT-2 or GPT-NeoX in float32, with the tokenizer if it is BPE; return a summary."""
    from data.bpe import BPETokenizer
    from training.checkpoint import model_tensors
    from training.huggingface import write_network
    from training.restore import restore

    restored = restore(str(request.run), request.checkpoint)
    config, tokenizer = restored.model_config, restored.tokenizer
    assert isinstance(config, GPTConfig) and tokenizer is not None
    write_network(folder, config, tokenizer, model_tensors(restored.model))
    step = f"{restored.folder}, step {restored.checkpoint.state.step:,}"
    if isinstance(tokenizer, BPETokenizer):
        return f"{step}, with its tokenizer"
    kind = tokenizer.to_json()["kind"]
    return f"{step}, without a tokenizer.json (Transformers has no {kind} tokenizer)"


def as_peft(request: Request, folder: Path) -> str:
    """Write a LoRA run's adapters for PEFT, and their base model to base/; return a summary."""
    from training.huggingface import write_network
    from training.peft import read_base, write_peft
    from training.restore import restore

    restored = restore(str(request.run), request.checkpoint)
    config, tokenizer = restored.model_config, restored.tokenizer
    assert isinstance(config, GPTConfig) and tokenizer is not None
    write_peft(folder, restored, str(request.folder / "base"))
    (folder / "base").mkdir()
    write_network(folder / "base", config, tokenizer, read_base(restored))
    return f"the adapters of {restored.folder}, step {restored.checkpoint.state.step:,}, and the base model in base/"


def as_int8(request: Request, folder: Path) -> str:
    """Write a copy of the run with int8 weights; return a summary."""
    from training.quantized import save_quantized
    from training.restore import restore

    restored = restore(str(request.run), request.checkpoint)
    save_quantized(restored, folder)
    step = f"{restored.folder}, step {restored.checkpoint.state.step:,}"
    return f"{step}, with int8 weights. Try it: python sample.py {for_shell(request.folder)}"


FORMATS: dict[str, Callable[[Request, Path], str]] = {"transformers": as_transformers, "peft": as_peft, "int8": as_int8}


def main(request: Request) -> None:
    """Write the folder and print a summary to stderr."""
    request.folder.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(request.folder, remove=Path.rmdir) as temporary:  # rmdir fails if files appeared in the meantime
        summary = FORMATS[request.format](request, temporary)
    print(one_line(f"wrote {request.folder}: {summary}"), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(answer(lambda: main(understand(sys.argv[1:]))))
