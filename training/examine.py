"""What is done at every evaluation: the loss on the whole validation split, a sample, and the best kept."""

import math
from collections.abc import Callable

import torch

from data.seeds import seed_for
from data.text import Text
from data.tokenizer import decode, first_token
from training import checkpoint
from training.evaluate import evaluate, outputs
from training.learner import Learner
from training.loss import LOSSES
from training.report import rising, say, visible
from training.run import Run, read_log

SAMPLE_TEMPERATURE = 0.8
AWAKE = 0.98  # a network above this share of a blind guess has learned nothing yet


def scores(learner: Learner, split: str, stop: Callable[[], bool] = lambda: False) -> dict[str, float]:
    """Loss over the whole split, with accuracy for digits, perplexity and bits per byte for text.

    Empty if `stop` asked to give up.
    """
    train, data = learner.config.train, learner.data
    loss = LOSSES[train.loss]
    size, world = train.batch_size, learner.world
    result = evaluate(learner.model, data, split, loss, forward=learner.forward, size=size, stop=stop, world=world)
    if result is None:
        return {}
    if isinstance(data, Text):
        bits = result.bits_per_byte(data.byte_count(split))
        return {"loss": result.loss, "perplexity": result.perplexity, "bits_per_byte": bits}
    return {"loss": result.loss, "accuracy": result.accuracy}


def examine(learner: Learner, run: Run, step: int, stop: Callable[[], bool]) -> None:
    """Evaluate at this step, whose checkpoint is on disk already; write down what is found."""
    found = scores(learner, "val", stop) if learner.data.count("val") else None
    if found == {} or not learner.world.leads:
        return
    if found:
        losses = [*validation_losses(run), found["loss"]]
        run.log(step=step, **{f"val_{name}": value for name, value in found.items()})
        say(f"step {step:,}: validation {listed(found)}")
        if advice := asleep(step, found["loss"], learner):
            say(advice)
        if losses[-1] == min(losses):
            checkpoint.set_best(run.checkpoints, step)
        if advice := rising(losses):
            say(advice)
    checkpoint.prune(run.checkpoints, learner.config.train.keep)
    show_sample(learner, run, step)


def asleep(step: int, loss: float, learner: Learner) -> str | None:
    """Advice if the loss, soon after warm-up, is still that of a blind guess."""
    guess = math.log(outputs(learner.model))
    warm = max(100, 2 * learner.config.optim.warmup_steps)
    if learner.config.train.loss != "cross_entropy" or step < warm or loss < AWAKE * guess:
        return None
    return f"warning: after {step:,} steps the loss is still that of a blind guess, {guess:.2f}; try another --optim.lr"


def validation_losses(run: Run) -> list[float]:
    """The validation loss of every evaluation so far, the first first."""
    return [line["val_loss"] for line in read_log(run.folder) if "val_loss" in line]


def out_of_patience(learner: Learner, run: Run) -> bool:
    """Whether the last `patience` evaluations brought no new best."""
    if not learner.world.leads:
        return False  # the first process has written the log, and decides
    patience, seen = learner.config.train.patience, [line for line in read_log(run.folder) if "val_loss" in line]
    best = min(seen, key=lambda line: line["val_loss"], default={})
    if not (patience and seen) or len(seen) - 1 - seen.index(best) < patience:
        return False
    say(f"no better validation loss in {patience} evaluations; the best is step {best['step']:,}")
    return True


def show_sample(learner: Learner, run: Run, step: int) -> None:
    """Let a text network speak, to the terminal and samples.txt; training's random state is not touched."""
    length = learner.config.log.sample_tokens
    if not (isinstance(learner.data, Text) and length):
        return
    from model.generate import Sampling, generate

    tokenizer = learner.data.tokenizer
    generator = torch.Generator().manual_seed(seed_for(learner.config.train.seed, "sample", step))
    training = learner.model.training
    tokens = generate(learner.model, [first_token(tokenizer)], length, Sampling(SAMPLE_TEMPERATURE), generator)
    text = decode(tokenizer, tokens)
    learner.model.train(training)
    run.add("samples.txt", f"--- step {step}\n{text}\n")
    say(visible(text))


def report_test(learner: Learner, run: Run, step: int) -> None:
    """At the end: what the best checkpoint scores on the images that chose nothing."""
    splits = [name for name in ("test", "mnist-test") if learner.data.count(name)]
    best = checkpoint.best(run.checkpoints) if splits else None
    if best is None:
        return
    checkpoint.load_model(best, learner.model)
    for split in splits:
        found = scores(learner, split)
        run.log(step=step, of=best.state.step, **{f"{split}_{name}": value for name, value in found.items()})
        say(f"{split} images, step {best.state.step:,}: {listed(found)}")


def listed(found: dict[str, float]) -> str:
    """Scores as a person reads them."""
    shown = {"accuracy": "{:.2%}", "perplexity": "{:.2f}"}
    return ", ".join(f"{n.replace('_', ' ')} {shown.get(n, '{:.4f}').format(v)}" for n, v in found.items())
