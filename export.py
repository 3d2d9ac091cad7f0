"""A run is handed on: its network and tokenizer in the files that other software reads."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from configs.errors import OneLineParser, UserError, answer, for_shell, one_line
from configs.files import whole_folder
from configs.schema import GPTConfig
from training.run import read_record, require_utf8, run_folder


class Request(NamedTuple):
    """What to hand on, and where to."""

    run: Path
    """a run, or one of its checkpoints"""
    checkpoint: str
    folder: Path
    """new or empty"""
    format: str


def understand(arguments: list[str]) -> Request:
    """Check the command line against the run, before torch is loaded. Raises UserError, or SystemExit after --help."""
    p = OneLineParser("export.py", description=__doc__, allow_abbrev=False)
    p.add_argument("run", metavar="RUN", help="a name under runs/, a folder, or a checkpoint")
    p.add_argument("folder", metavar="FOLDER", type=Path, help="where to: a new folder, or an empty one")
    p.add_argument("--checkpoint", default="best", metavar="WHICH", help="best (default), last, or step-N")
    form = p.add_mutually_exclusive_group()
    form.add_argument(
        "--format",
        default="transformers",
        choices=("transformers", "peft"),
        help="transformers (default): the whole network as it loads it; peft: a LoRA run's adapters",
    )
    form.add_argument("--quantize", choices=("int8",), help="a run for sample.py, in a quarter of the memory")
    given = p.parse_args(arguments)
    run, folder = run_folder(given.run), given.folder.expanduser().resolve()
    model = read_record(run.parents[1] if run.parent.name == "checkpoints" else run).resolved.model
    if not isinstance(model, GPTConfig):
        raise UserError(f"{run} is a digit network, which has no form in {given.format}; only text networks have")
    require_utf8(str(given.folder))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{given.folder} is there already, and only a new or an empty folder is written to")
    return Request(run, given.checkpoint, folder, given.quantize or given.format)


def as_transformers(request: Request, folder: Path) -> str:
    """Hugging Face's GPT-2 or GPT-NeoX: float32 weights, and for a BPE run the tokenizer. Returns what to say of it."""
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
    return f"{step}, without a tokenizer.json: a {kind} tokenizer has no form there, and stays in the run"


def as_peft(request: Request, folder: Path) -> str:
    """The adapters of a LoRA run as PEFT loads them, and in base/ the network that they belong to."""
    from training.huggingface import write_network
    from training.peft import read_base, write_peft
    from training.restore import restore

    restored = restore(str(request.run), request.checkpoint)
    config, tokenizer = restored.model_config, restored.tokenizer
    assert isinstance(config, GPTConfig) and tokenizer is not None
    write_peft(folder, restored, str(request.folder / "base"))
    (folder / "base").mkdir()
    write_network(folder / "base", config, tokenizer, read_base(restored))
    return f"the adapters of {restored.folder}, step {restored.checkpoint.state.step:,}, and in base/ what they adapt"


def as_int8(request: Request, folder: Path) -> str:
    """The run with its weights in eight bits, for sampling."""
    from training.quantized import save_quantized
    from training.restore import restore

    restored = restore(str(request.run), request.checkpoint)
    save_quantized(restored, folder)
    step = f"{restored.folder}, step {restored.checkpoint.state.step:,}"
    return f"{step}, in eight bits; python sample.py {for_shell(request.folder)}"


FORMATS: dict[str, Callable[[Request, Path], str]] = {"transformers": as_transformers, "peft": as_peft, "int8": as_int8}


def main(request: Request) -> None:
    """Write the folder and say what is in it."""
    request.folder.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(request.folder, remove=Path.rmdir) as beside:  # which it refuses if files were put there
        said = FORMATS[request.format](request, beside)
    print(one_line(f"{request.folder} holds {said}"), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(answer(lambda: main(understand(sys.argv[1:]))))
