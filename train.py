"""Learning: a config in, a run folder out. `update` is one step of it, `train` the loop around it."""

if __name__ == "__main__":  # understood before torch is loaded, so that a mistake costs no time
    import sys

    from configs.command import parse
    from configs.errors import result_or_exit

    COMMAND = result_or_exit(lambda: parse(sys.argv[1:]))

import json
import math
import sys
import time
from functools import partial
from pathlib import Path

from configs.command import Command, check
from configs.errors import UserError, answer
from configs.schema import Config
from data.dataset import Dataset, open_data
from data.text import Text
from training import checkpoint
from training.device import seed_dropout
from training.examine import examine, out_of_patience, report_test
from training.learner import Learner, build_learner
from training.loss import LOSSES
from training.optim import add_l1, clip, learning_rate, set_learning_rate
from training.plan import (
    LATEST,
    continued,
    describe,
    require_memory,
    require_same_data,
    resolve,
    seconds_per_step,
    with_base,
    with_vocabulary,
)  # fmt: skip
from training.report import progress_bar, say, show_step
from training.restore import Restored, restore, tokenizer_of
from training.run import Interruption, Record, Run, claim, open_run, read_record, run_folder


def update(learner: Learner, step: int) -> tuple[float, float]:
    """One step downhill: batches in, gradients averaged, weights moved. Returns the loss and the gradient's length.

    Raises UserError (exit code 3), before any weight has changed, if one of the two is not a number.
    """
    train, optim = learner.config.train, learner.config.optim
    loss_of, total = LOSSES[train.loss], 0.0
    for number in range(step * train.accumulate, (step + 1) * train.accumulate):
        seed_dropout(train.seed, number, train.device)
        x, y = learner.data.batch("train", number, train.batch_size)
        logits = learner.forward(x.to(train.device, non_blocking=True))
        loss = loss_of(logits.float(), y.to(train.device, non_blocking=True)) / train.accumulate
        loss.backward()
        total += float(loss.detach())
    if optim.l1:
        add_l1(learner.parameters, optim.l1)
    length = float(clip(learner.parameters, optim.grad_clip))
    if not math.isfinite(total + length):
        raise UserError(
            f"step {step}: the loss is {total} and its gradient {length} long; no weight was changed, and the last "
            f"checkpoint is good. Try a lower --optim.lr, or --optim.grad_clip 1", 3
        )  # fmt: skip
    for optimizer in learner.optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return total, length


def train(config: Config, data: Dataset, run: Run, base: Restored | None = None, seconds: float = math.inf) -> int:
    """Learn until the steps are made, patience is out, time is over or someone stops it; returns the exit code."""
    learner, steps = build_learner(config, data), config.train.steps or 0
    if base:
        checkpoint.load_model(base.checkpoint, learner.model)
    saved = checkpoint.resume(run, learner.model, learner.optimizers)
    stop, deadline = Interruption(), time.monotonic() + seconds
    bar = progress_bar(saved or 0, steps)
    for step in range(saved or 0, steps + 1):
        last = step == steps or time.monotonic() > deadline
        look = last or step % config.train.eval_every == 0
        if (look or stop() or step % config.train.save_every == 0) and step != saved:
            state = checkpoint.State(step=step, log_bytes=run.log_bytes())
            checkpoint.save(run.checkpoints, state, learner.model, learner.optimizers)
            saved = step
        if look and not stop():
            examine(learner, run, step, stop)
        if last or stop() or out_of_patience(learner, run):
            break
        rate = learning_rate(step, steps, config.optim)
        set_learning_rate(learner.optimizers, rate / config.optim.lr)
        loss, length = update(learner, step)
        if step % config.log.every == 0:
            run.log(step=step, loss=loss, lr=rate, grad_norm=length)
            show_step(bar, step, steps, loss)
    bar.close()
    if stop():
        say(f"stopped after step {step}, all saved; go on with: python train.py --resume --run {run.folder}")
        return stop.exit_code
    report_test(learner, run, step)
    say(f"done: {run.folder}")
    return 0


def time_step(data: Dataset, config: Config) -> float:
    """Seconds of one step, found by making a few with a network that is then thrown away."""
    return seconds_per_step(partial(update, build_learner(config, data)))


def main(command: Command) -> int:
    """From a command line that has been understood to a trained network."""
    folder = run_folder(command.run)
    claim(folder, command.resume, command.overwrite)
    if command.resume and (folder / "run.json").exists():
        return go_on(command, folder)
    config, base = check(command.settings, command.origins), None
    if config.train.start:
        base = restore(config.train.start)
        config = with_base(config, base)
    require_memory(config)
    data = open_data(config, base.tokenizer if base else None)
    resolved, seconds = resolve(with_vocabulary(config, data), data, partial(time_step, data))
    say(describe(resolved, data, seconds))
    if command.dry_run:
        return 0
    run = open_run(folder, command.resume, command.overwrite)
    run.describe(Record.of(command.settings, command.origins, resolved, data.sha256))
    if isinstance(data, Text):
        run.write("tokenizer.json", json.dumps(data.tokenizer.to_json()))
    return train(resolved, data, run, base, LATEST * 60 * (config.train.minutes or math.inf))


def go_on(command: Command, folder: Path) -> int:
    """Continue a run from its newest good checkpoint, with its own settings, tokenizer and data."""
    record = read_record(folder)
    config = continued(command.settings, record)
    data = open_data(config, tokenizer_of(folder))
    require_same_data(record, data)
    if command.dry_run:
        return 0
    run = open_run(folder, resume=True, overwrite=False)
    run.describe(record.model_copy(update={"resolved": config}))
    return train(config, data, run)


if __name__ == "__main__":
    sys.exit(answer(partial(main, COMMAND)))
