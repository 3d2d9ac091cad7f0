"""The command line of explore.py, understood and checked against the run without loading torch."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

from configs.errors import OneLineParser, UserError, did_you_mean
from configs.schema import GPTConfig
from training.request import read_prompt, some, whole
from training.run import Record, read_record, run_folder


class View(NamedTuple):
    """One way to look at a network."""

    kind: str
    """of the network that it is for: text, digit, or any, as is the live page; demo needs none"""
    shows: str
    options: tuple[str, ...] = ()
    """those that it takes, besides --out and --checkpoint"""


PROMPT = ("prompt", "prompt_file")
VIEWS = {
    "page": View("live", "live in the browser: draw, write, click", (*PROMPT, "port", "export", "no_browser")),
    "parameters": View("any", "every matrix with its shape, the product spelled out, its share", ("lesson",)),
    "curves": View("any", "cost, accuracy, rate, the gradient's length, and that of each layer"),
    "weights": View("digit", "what each neuron of the first layer looks for, as an image", ("neuron",)),
    "activations": View("digit", "a digit, a shifted one, noise and a blank through all layers", ("image", "seed")),
    "mistakes": View("digit", "the test images that are read wrongly", ("top",)),
    "attention": View(
        "text", "who looks at whom: scores, masked, softmax, value-weighted",
        (*PROMPT, "layer", "head", "stage", "layout"),
    ),
    "logit-lens": View("text", "the likeliest next token, layer by layer", PROMPT),
    "embedding": View(
        "text", "neighbours, a - b + c, a direction, the plane of greatest spread",
        ("token", "analogy", "direction", "top"),
    ),
    "heads": View("text", "previous-token, duplicate-token, induction and copying scores; ranks", ("seed",)),
    "neurons": View("text", "what excites neurons, and which tokens they add", (*PROMPT, "layer", "neuron", "top")),
    "surprise": View("text", "a text coloured by the network's loss on each token", PROMPT),
    "softmax": View("demo", "scores become probabilities, at several temperatures"),
    "descent": View("demo", "gradient descent on a small surface"),
    "directions": View("demo", "random directions are nearly perpendicular; how many fit", ("seed",)),
    "fact": View("demo", "a hand-set neuron that knows one fact", ("seed",)),
    "zero": View("demo", "weights that begin at zero never separate", ("seed",)),
    "saturation": View("demo", "weights from N(0, 1) leave sigmoids fully on or off", ("seed",)),
    "vanishing": View("demo", "gradients that vanish, and residuals that carry them", ("seed",)),
}  # fmt: skip
DEMOS = tuple(name for name, view in VIEWS.items() if view.kind == "demo")
STAGES = ("scores", "masked", "pattern", "weighted")
FORMATS = (".png", ".svg", ".pdf")
USAGE = "python explore.py RUN VIEW [options], RUN for the page, CONFIG.toml parameters, or a demo; --help lists all"


class Request(NamedTuple):
    """What to look at; every value has been checked as far as that goes without the weights."""

    view: str
    target: Path | None
    """a run, one of its checkpoints, or a config; None for a demo"""
    out: Path | None
    checkpoint: str
    prompt: str | None
    layer: int | None
    head: int | None
    neuron: int | None
    stage: str | None
    """None: every one"""
    layout: str
    token: list[str]
    analogy: list[str] | None
    direction: list[str] | None
    image: Path | None
    top: int
    seed: int
    lesson: bool
    port: int | None
    """None: 8000, or else one that is free"""
    export: Path | None
    no_browser: bool


def parser() -> argparse.ArgumentParser:
    """All that explore.py can be told."""
    p = OneLineParser("explore.py", USAGE, "Look inside a network, on the CPU.", listing(), allow_abbrev=False)
    p.formatter_class = argparse.RawDescriptionHelpFormatter
    p.add_argument("target", nargs="?", help="a run, a checkpoint, a config file, or a demo")
    p.add_argument("view", nargs="?", help="what to see of it")
    p.add_argument("--out", type=Path, metavar="FILE", help="draw it too: a .png, .svg or .pdf")
    p.add_argument("--checkpoint", metavar="WHICH", help="best (default), last, or step-N")
    prompt = p.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="the text to look at")
    prompt.add_argument("--prompt-file", metavar="FILE", help="the same from a file, or - for standard input")
    p.add_argument("--layer", type=whole(0), metavar="N", help="which block, 0 for the first")
    p.add_argument("--head", type=whole(0), metavar="N", help="which of the layer's heads, from 0")
    p.add_argument("--neuron", type=whole(0), metavar="N", help="which neuron of the layer, from 0")
    p.add_argument("--stage", choices=STAGES, help="of attention (default: all for one head, else pattern)")
    p.add_argument("--layout", choices=["lesson", "paper"], help="a query is a column (default) or a row")
    p.add_argument("--token", action="append", type=some, metavar="TEXT", help="whose neighbours; may be repeated")
    p.add_argument("--analogy", nargs=3, type=some, metavar=("A", "B", "C"), help="what is near A - B + C")
    p.add_argument("--direction", nargs=2, type=some, metavar=("A", "B"), help="every token on the way from A to B")
    p.add_argument("--image", type=Path, metavar="FILE", help="a picture of a digit (default: a test image)")
    p.add_argument("--top", type=whole(1), metavar="N", help="how many of each list (default 10)")
    p.add_argument("--seed", type=whole(0), metavar="N", help="of what is drawn at random (default 0)")
    p.add_argument("--lesson", action="store_true", default=None, help="count as the lessons do")
    page = p.add_argument_group("the page")
    page.add_argument("--port", type=whole(1), metavar="N", help="of this machine (default: 8000, or one that is free)")
    page.add_argument("--export", type=Path, metavar="FILE", help="write it as one .html that needs no server instead")
    page.add_argument("--no-browser", action="store_true", default=None, help="print its address and open nothing")
    return p


def listing() -> str:
    """All views by the kind of network they are for, one a line."""
    titles = {
        "live": "the page (no VIEW is this too)",
        "any": "any network",
        "digit": "digit networks",
        "text": "text networks",
        "demo": "demos, without a run",
    }
    lines = []
    for kind, title in titles.items():
        lines.append(f"{title}:")
        lines += [f"  {name:<12} {view.shows}" for name, view in VIEWS.items() if view.kind == kind]
    return "\n".join(lines)


def understand(arguments: list[str]) -> Request:
    """Check explore.py's arguments. Raises UserError, or SystemExit after --help and the list of views."""
    given = vars(parser().parse_args(arguments))
    target, view = given["target"], given["view"]
    if target is None:
        raise UserError(f"look at what? {USAGE}")
    if target in DEMOS and view is None:
        target, view = None, target
    view = "page" if view is None else view
    check_view(target, view)
    check_options(view, given)
    check_out(given["out"])
    if view == "page":
        check_page(given)
    folder = None if target is None else place(target)
    if folder is not None and folder.suffix == ".toml" and view != "parameters":
        raise UserError(f"{view} looks at a run, not at a config; {target} can be asked for parameters")
    if folder is not None and is_gpt2(folder):
        if view != "page" or given["checkpoint"] is not None:
            raise UserError(f"{folder} is a Hugging Face folder, not a run: it has the page alone, and no checkpoints")
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
    """Raises UserError for a view that is none."""
    if view not in VIEWS:
        raise UserError(f"there is no view {view!r}{did_you_mean(view, VIEWS)}; python explore.py --help lists them")
    if target is not None and view in DEMOS:
        raise UserError(f"{view} is a demo and needs no run: python explore.py {view}")


def check_options(view: str, given: dict[str, Any]) -> None:
    """Raises UserError for an option that this view has no use for."""
    for name in {name for view in VIEWS.values() for name in view.options}:
        if given[name] is not None and name not in VIEWS[view].options:
            takers = [other for other, view in VIEWS.items() if name in view.options]
            raise UserError(f"--{name.replace('_', '-')} is not for {view}; it is for {', '.join(takers)}")
    if given["checkpoint"] is not None and VIEWS[view].kind == "demo":
        raise UserError(f"--checkpoint is not for {view}, which needs no run")


def check_out(out: Path | None) -> None:
    """Raises UserError unless a picture can be drawn and has a place to go."""
    if out is None:
        return
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"--out {out}: a picture is one of {', '.join(FORMATS)}")
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f"--out {out}: " + ("is a folder" if out.is_dir() else f"there is no folder {out.parent}"))
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("--out needs matplotlib, which is not installed: pip install matplotlib", 1)


def check_page(given: dict[str, Any]) -> None:
    """Raises UserError for what the page can't be given, and if what serves it is not installed."""
    if given["out"] is not None:
        raise UserError("--out is for one view; the page is written with --export FILE.html")
    export = given["export"]
    if export is None:
        missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(
                f"the page needs {' and '.join(missing)}, not installed here: pip install fastapi uvicorn", 1
            )
    elif export.suffix.lower() not in (".html", ".htm") or not export.parent.is_dir() or export.is_dir():
        raise UserError(f"--export {export}: must be a .html file in a folder that is there")
    if (given["port"] or 0) > 65_535:
        raise UserError(f"--port {given['port']}: ports end at 65535")


def place(target: str) -> Path:
    """The config or the run that is meant. Raises UserError if there is none."""
    if target.endswith(".toml"):
        return Path(target)
    folder = run_folder(target)
    if is_gpt2(folder):
        return folder
    if not (run_of(folder) / "run.json").is_file() and target in VIEWS:
        raise UserError(f"{target} of what? python explore.py RUN {target}")
    read_record(run_of(folder))
    return folder


def is_gpt2(folder: Path) -> bool:
    """Whether this is a GPT-2 in a Hugging Face folder, not a run."""
    return not (run_of(folder) / "run.json").is_file() and (folder / "config.json").is_file()


def run_of(folder: Path) -> Path:
    """The run that a checkpoint belongs to, or the run itself."""
    return folder.parents[1] if folder.parent.name == "checkpoints" else folder


def check_run(record: Record, folder: Path, view: str, given: dict[str, Any]) -> None:
    """Raises UserError for a view of the other kind of network, and for a part that this one lacks."""
    model = record.resolved.model
    kind = "text" if isinstance(model, GPTConfig) else "digit"
    if VIEWS[view].kind not in (kind, "any", "live"):
        names = [name for name, other in VIEWS.items() if other.kind in (kind, "any")]
        raise UserError(f"{view} is not for {folder}, which is a {kind} network; its views: {', '.join(names)}")
    if view == "page" and kind == "digit" and not given["prompt"] is given["prompt_file"] is None:
        raise UserError(f"--prompt is not for {folder}, which is a digit network")
    if isinstance(model, GPTConfig):
        counts = {"layer": model.n_layer, "head": model.n_head, "neuron": 4 * model.n_embd}
    else:
        counts = {"neuron": model.sizes[1]}
    for name, count in counts.items():
        if given[name] is not None and given[name] >= count:
            raise UserError(f"--{name} {given[name]} is not one of this network's {count}: 0 to {count - 1}")
