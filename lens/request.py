"""Parse the command line of explore.py and check it against the run, without importing torch."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

from configs.errors import OneLineParser, UserError, did_you_mean
from configs.schema import GPTConfig
from training.request import read_prompt, some, whole
from training.run import Record, read_record, run_folder


class View(NamedTuple):
    """One view: the networks it applies to, its line in --help, its options."""

    kind: str
    """network it applies to: text, digit, any, live (the page, any network) or demo (no network)"""
    shows: str
    options: tuple[str, ...] = ()
    """accepted besides --out and --checkpoint"""


PROMPT = ("prompt", "prompt_file")
VIEWS = {
    "page": View("live", "live page in the browser (the default view)", (*PROMPT, "port", "export", "no_browser")),
    "parameters": View("any", "parameter counts by matrix", ("lesson",)),
    "curves": View("any", "loss, accuracy, learning rate, gradient norms by layer"),
    "weights": View("digit", "weights of each first-layer neuron as an image", ("neuron",)),
    "activations": View("digit", "all layers for a digit, a shifted one, noise and a blank", ("image", "seed")),
    "mistakes": View("digit", "misclassified test images and the confusion matrix", ("top",)),
    "attention": View(
        "text", "attention by head: scores, masked, pattern, weighted",
        (*PROMPT, "layer", "head", "stage", "layout"),
    ),
    "logit-lens": View("text", "most likely next token after each layer", PROMPT),
    "embedding": View(
        "text", "neighbours, analogies, directions, PCA",
        ("token", "analogy", "direction", "top"),
    ),
    "heads": View("text", "head scores (induction, copying ...), ranks, composition", ("seed",)),
    "neurons": View("text", "text that activates a neuron, tokens it promotes", (*PROMPT, "layer", "neuron", "top")),
    "surprise": View("text", "text coloured by per-token loss", PROMPT),
    "softmax": View("demo", "softmax at several temperatures"),
    "descent": View("demo", "gradient descent on a small surface"),
    "directions": View("demo", "angles between random vectors in high dimensions", ("seed",)),
    "fact": View("demo", "a hand-set neuron that stores one fact", ("seed",)),
    "zero": View("demo", "why zero initialisation fails", ("seed",)),
    "saturation": View("demo", "weights from N(0, 1) saturate sigmoids", ("seed",)),
    "vanishing": View("demo", "vanishing gradients, with and without residuals", ("seed",)),
}  # fmt: skip
DEMOS = tuple(name for name, view in VIEWS.items() if view.kind == "demo")
STAGES = ("scores", "masked", "pattern", "weighted")
FORMATS = (".png", ".svg", ".pdf")
USAGE = """python explore.py RUN [VIEW] [options]
       python explore.py CONFIG.toml parameters [--lesson]
       python explore.py DEMO [options]"""
EXAMPLES = """examples:
  python explore.py digits_demo
  python explore.py python attention --layer 1 --head 0 --out attention.png"""


class Request(NamedTuple):
    """Parsed arguments, checked as far as possible without loading the weights."""

    view: str
    target: Path | None
    """run, checkpoint folder or config; None for a demo"""
    out: Path | None
    checkpoint: str
    prompt: str | None
    layer: int | None
    head: int | None
    neuron: int | None
    stage: str | None
    """None: all stages for a single head, else the pattern"""
    layout: str
    token: list[str]
    analogy: list[str] | None
    direction: list[str] | None
    image: Path | None
    top: int
    seed: int
    lesson: bool
    port: int | None
    """None: 8000, or any free port if that is taken"""
    export: Path | None
    no_browser: bool


def parser() -> argparse.ArgumentParser:
    about = "Inspect a trained network, a config or a demo, on the CPU."
    p = OneLineParser("explore.py", USAGE, about, f"{listing()}\n\n{EXAMPLES}", allow_abbrev=False)
    p.formatter_class = argparse.RawDescriptionHelpFormatter  # keeps the line breaks of the list of views
    p.add_argument("target", nargs="?", metavar="RUN", help="run name, checkpoint folder, config file or demo")
    p.add_argument("view", nargs="?", metavar="VIEW", help="one of the views below (default: page)")
    p.add_argument("--checkpoint", metavar="WHICH", help="best, last or step-N (default: best)")
    p.add_argument("--out", type=Path, metavar="FILE", help="also save a picture: .png, .svg or .pdf (default: none)")
    p.add_argument("--top", type=whole(1), metavar="N", help="entries per list (default: 10)")
    p.add_argument("--seed", type=whole(0), metavar="N", help="random seed (default: 0)")
    p.add_argument(
        "--neuron", type=whole(0), metavar="N", help="neuron, from 0 (default: all; neurons: 6 selective ones)"
    )
    p.add_argument(
        "--lesson", action="store_true", default=None, help="count parameters as in the lessons (default: exact)"
    )
    text = p.add_argument_group("text networks")
    prompt = text.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="text to analyse (default: start of validation text)")
    prompt.add_argument("--prompt-file", metavar="FILE", help="read the text from FILE, - for stdin (default: none)")
    text.add_argument("--layer", type=whole(0), metavar="N", help="layer, from 0 (default: all; neurons: the last)")
    text.add_argument("--head", type=whole(0), metavar="N", help="head, from 0 (default: all)")
    stage = "attention stage (default: pattern; all for one head)"
    text.add_argument("--stage", choices=STAGES, metavar="STAGE", help=stage)
    layout = "lesson: query columns; paper: rows (default: lesson)"
    text.add_argument("--layout", choices=["lesson", "paper"], metavar="LAYOUT", help=layout)
    neighbours = "list its neighbours, repeatable (default: e)"
    text.add_argument("--token", action="append", type=some, metavar="TEXT", help=neighbours)
    text.add_argument(
        "--analogy", nargs=3, type=some, metavar=("A", "B", "C"), help="list tokens near A - B + C (default: none)"
    )
    text.add_argument(
        "--direction", nargs=2, type=some, metavar=("A", "B"), help="order tokens from A to B (default: none)"
    )
    digits = p.add_argument_group("digit networks")
    digits.add_argument("--image", type=Path, metavar="FILE", help="picture of a digit (default: a test image)")
    page = p.add_argument_group("page")
    page.add_argument("--port", type=whole(1), metavar="N", help="local port (default: 8000, or any free one)")
    page.add_argument(
        "--export", type=Path, metavar="FILE", help="write one .html file instead of serving (default: off)"
    )
    page.add_argument(
        "--no-browser", action="store_true", default=None, help="print the address only (default: open it)"
    )
    return p


def listing() -> str:
    """All views, one per line, grouped by the networks they apply to."""
    titles = {
        ("live", "any"): "views of any network",
        ("digit",): "views of digit networks",
        ("text",): "views of text networks",
        ("demo",): "demos (no run needed)",
    }
    blocks = []
    for kinds, title in titles.items():
        rows = [f"  {name:<19} {view.shows}" for name, view in VIEWS.items() if view.kind in kinds]
        blocks.append("\n".join([f"{title}:", *rows]))
    return "\n\n".join(blocks)


def understand(arguments: list[str]) -> Request:
    """Parse and check the arguments. Raises UserError for a mistake, SystemExit after --help."""
    given = vars(parser().parse_args(arguments))
    target, view = given["target"], given["view"]
    if target is None:
        raise UserError("nothing to show: usage is python explore.py RUN [VIEW]; --help lists views and demos")
    if target in DEMOS and view is None:
        target, view = None, target
    view = "page" if view is None else view
    check_view(target, view)
    check_options(view, given)
    check_out(given["out"])
    if view == "page":
        check_page(given)
    folder = None if target is None else find_target(target)
    if folder is not None and folder.suffix == ".toml" and view != "parameters":
        raise UserError(f"{view} needs a run, got config {target}; only the parameters view accepts a config")
    if folder is not None and is_gpt2(folder):
        if view != "page" or given["checkpoint"] is not None:
            raise UserError(
                f"{folder} is a Hugging Face folder, not a run: only the page, without --checkpoint, supports it"
            )
    elif folder is not None and folder.suffix != ".toml":
        check_run(read_record(run_of(folder)), folder, view, given)
    prompt = given["prompt"]
    if given["prompt_file"] is not None:
        prompt = read_prompt(given["prompt_file"], "--prompt-file")
    defaults = {"checkpoint": "best", "layout": "lesson", "token": [], "top": 10, "seed": 0}
    chosen = {name: given[name] if given[name] is not None else defaults.get(name) for name in Request._fields[2:]}
    return Request(
        view,
        folder,
        **{**chosen, "prompt": prompt, "lesson": bool(given["lesson"]), "no_browser": bool(given["no_browser"])},
    )


def check_view(target: str | None, view: str) -> None:
    """Raises UserError for an unknown view, or a run given to a demo."""
    if view not in VIEWS:
        raise UserError(f"unknown view {view!r}; python explore.py --help lists all views{did_you_mean(view, VIEWS)}")
    if target is not None and view in DEMOS:
        raise UserError(f"{view} is a demo and takes no run: python explore.py {view}")


def check_options(view: str, given: dict[str, Any]) -> None:
    """Raises UserError for an option that does not apply to this view."""
    for name in {name for view in VIEWS.values() for name in view.options}:
        if given[name] is not None and name not in VIEWS[view].options:
            takers = [other for other, view in VIEWS.items() if name in view.options]
            raise UserError(f"--{name.replace('_', '-')} does not apply to {view}, only to {', '.join(takers)}")
    if given["checkpoint"] is not None and VIEWS[view].kind == "demo":
        raise UserError(f"--checkpoint does not apply to {view}, a demo")


def check_out(out: Path | None) -> None:
    """Raises UserError unless a picture can be drawn and saved as `out`."""
    if out is None:
        return
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"--out {out}: must end in one of {', '.join(FORMATS)}")
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f"--out {out}: " + ("is a folder" if out.is_dir() else f"folder not found: {out.parent}"))
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("--out needs matplotlib: pip install matplotlib", 1)


def check_page(given: dict[str, Any]) -> None:
    """Raises UserError for options that do not apply to the page, and if its server is not installed."""
    if given["out"] is not None:
        raise UserError("--out does not apply to the page; save it with --export FILE.html")
    export = given["export"]
    if export is None:
        missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(f"the page needs {' and '.join(missing)}: pip install fastapi uvicorn", 1)
    elif export.suffix.lower() not in (".html", ".htm") or not export.parent.is_dir() or export.is_dir():
        raise UserError(f"--export {export}: must be a .html file in an existing folder")
    if (given["port"] or 0) > 65_535:
        raise UserError(f"--port {given['port']} is out of range (1 to 65535)")


def find_target(target: str) -> Path:
    """The path of a config, run or checkpoint. Raises UserError if the run does not exist or is damaged."""
    if target.endswith(".toml"):
        return Path(target)
    folder = run_folder(target)
    if is_gpt2(folder):
        return folder
    if not (run_of(folder) / "run.json").is_file() and target in VIEWS:
        raise UserError(f"{target} needs a run: python explore.py RUN {target}")
    read_record(run_of(folder))
    return folder


def is_gpt2(folder: Path) -> bool:
    """Whether this is a Hugging Face folder with a GPT-2, not a run."""
    return not (run_of(folder) / "run.json").is_file() and (folder / "config.json").is_file()


def run_of(folder: Path) -> Path:
    """The run folder of a checkpoint folder; a run folder itself is returned as is."""
    return folder.parents[1] if folder.parent.name == "checkpoints" else folder


def check_run(record: Record, folder: Path, view: str, given: dict[str, Any]) -> None:
    """Raises UserError for a view of the other kind of network, or a layer, head or neuron out of range."""
    model = record.resolved.model
    kind = "text" if isinstance(model, GPTConfig) else "digit"
    if VIEWS[view].kind not in (kind, "any", "live"):
        names = [name for name, other in VIEWS.items() if other.kind in (kind, "any")]
        raise UserError(f"{view} does not apply to {folder} (a {kind} network); available views: {', '.join(names)}")
    if view == "page" and kind == "digit" and not given["prompt"] is given["prompt_file"] is None:
        raise UserError(f"--prompt does not apply to {folder} (a digit network)")
    if isinstance(model, GPTConfig):
        counts = {"layer": model.n_layer, "head": model.n_head, "neuron": 4 * model.n_embd}
    else:
        counts = {"neuron": model.sizes[1]}
    for name, count in counts.items():
        if given[name] is not None and given[name] >= count:
            raise UserError(f"--{name} {given[name]} is out of range (0 to {count - 1})")
