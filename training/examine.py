"""Evaluations during training: validation loss, a sample, the best checkpoint, early stopping."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from data.dataset import IGNORED, Dataset
from data.seeds import seed_for
from data.text import Text
from data.tokenizer import decode, first_token
from training import checkpoint
from training.advice import Chance, chance_level, constant_loss, overfitting
from training.evaluate import evaluate
from training.learner import Learner
from training.loss import LOSSES
from training.report import say, visible
from training.run import Run, read_log
from training.validation import Evaluated, best_of, evaluations, judged_by, since_best

SAMPLE_TEMPERATURE = 0.8
COUNTED = 2**20  # training targets that are enough to estimate their frequencies
AT_ONCE = 2**16  # targets per batch while counting


def scores(learner: Learner, split: str, stop: Callable[[], bool] = lambda: False) -> dict[str, float]:
    """Loss over the whole split with its standard error; accuracy of digits, perplexity and bits per byte of text.

    Text is scored in nats of cross-entropy whatever trains it. Empty if `stop` interrupted it.
    """
    data, loss = learner.data, LOSSES[judged_by(learner.config)]
    size, world = learner.config.train.batch_size, learner.world
    result = evaluate(learner.model, data, split, loss, forward=learner.forward, size=size, stop=stop, world=world)
    if result is None:
        return {}
    found = {"loss": result.loss} | ({} if result.stderr is None else {"loss_stderr": result.stderr})
    if isinstance(data, Text):
        bits = result.bits_per_byte(data.byte_count(split))
        return found | {"perplexity": result.perplexity, "bits_per_byte": bits}
    return found | {"accuracy": result.accuracy}


def examine(learner: Learner, run: Run, step: int, stop: Callable[[], bool]) -> None:
    """Evaluate at this step, whose checkpoint is saved already, and log the result."""
    found = scores(learner, "val", stop) if learner.data.count("val") else None
    if found == {} or not learner.world.leads:
        return
    if found:
        record(found, learner, run, step)
    checkpoint.prune(run.checkpoints, learner.config.train.keep)
    show_sample(learner, run, step)


def record(found: dict[str, float], learner: Learner, run: Run, step: int) -> None:
    """Log the scores, mark the best checkpoint, and print warnings."""
    scored: dict[str, Any] = {f"val_{name}": value for name, value in found.items()}
    trains, cost = learner.config.train.loss, judged_by(learner.config)
    if trains != cost:
        scored |= {"train_cost": trains, "val_cost": cost}
        found = {cost.replace("_", "-"): found["loss"]} | {n: v for n, v in found.items() if n != "loss"}
    seen = evaluations([*read_log(run.folder), {"step": step, **scored}])
    best = chosen(seen, run)
    checkpoint.set_best(run.checkpoints, best.step)
    run.log(step=step, **scored, best=best.step, best_by="val_loss" if best.accuracy is None else "val_accuracy")
    say(f"step {step:,}: validation {listed(found)}" + ("" if best.step == step else f" (best: {described(best)})"))
    train, chance = learner.config.train, chance_of(learner)
    epoch = learner.data.count("train") / (train.batch_size * train.accumulate)
    for advice in (chance_level(seen, chance, learner.config), overfitting(seen, epoch, chance)):
        if advice:
            say(advice)


def chosen(seen: list[Evaluated], run: Run) -> Evaluated:
    """The best evaluation whose checkpoint still exists; a run of an earlier version may have deleted a better one."""
    return best_of([e for e in seen if checkpoint.step_folder(run.checkpoints, e.step).is_dir()] or seen)


def described(best: Evaluated) -> str:
    """Such as "step 5,064, accuracy 98.61%"."""
    return f"step {best.step:,}, {best.score}"


def chance_of(learner: Learner) -> Chance:
    """The scores of a constant answer, from the targets' frequencies in training."""
    counts, config = target_counts(learner.data), learner.config
    loss, training = (constant_loss(counts, cost) for cost in (judged_by(config), config.train.loss))
    return Chance(loss, training, max(counts) / sum(counts), learner.data.count("val"))


@lru_cache(maxsize=1)
def target_counts(data: Dataset) -> list[int]:
    """How often each target occurs in the training split, or in the first million of a long one."""
    counts = torch.zeros(0, dtype=torch.int64)
    size = max(1, AT_ONCE // data.positions)
    for number, (_, y) in enumerate(data.in_order("train", min(size, data.count("train")))):
        if number * size * data.positions >= COUNTED:
            break
        new = torch.bincount(y[y != IGNORED], minlength=len(counts))
        counts = new + torch.nn.functional.pad(counts, (0, len(new) - len(counts)))
    return counts.tolist()


def out_of_patience(learner: Learner, run: Run) -> bool:
    """Whether the last `patience` evaluations brought no new best."""
    patience = learner.config.train.patience
    if not (patience and learner.world.leads):  # the first process has written the log, and decides
        return False
    seen = evaluations(read_log(run.folder))
    if since_best(seen) < patience:
        return False
    say(f"stopping early: no improvement in {patience} evaluations (best: {described(best_of(seen))})")
    return True


def show_sample(learner: Learner, run: Run, step: int) -> None:
    """Sample text to the terminal and samples.txt, with a random generator of its own."""
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
    """After training: print the best checkpoint and its scores on the test images."""
    if learner.world.leads and (seen := evaluations(read_log(run.folder))):
        say(f"best: {described(chosen(seen, run))}")
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
    """Such as "loss 0.2310, accuracy 93.90%"; the standard error appears only in the log."""
    shown = {"accuracy": "{:.2%}", "perplexity": "{:.2f}"}
    said = {name: value for name, value in found.items() if name != "loss_stderr"}
    return ", ".join(f"{n.replace('_', ' ')} {shown.get(n, '{:.4f}').format(v)}" for n, v in said.items())
