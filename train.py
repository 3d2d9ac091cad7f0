"""Train a network: a config in, a run folder out. `update` is one step, `train` the loop around it."""

if __name__ == "__main__":  # parse before torch is loaded: a mistake is reported at once
    import sys

    from configs.errors import end_quietly_at_interrupt, result_or_exit

    end_quietly_at_interrupt()

    from training.run import understand

    COMMAND = result_or_exit(lambda: understand(sys.argv[1:]))

import math
import sys
import time
from functools import partial

from configs.command import Command
from configs.errors import answer, for_shell
from training import checkpoint
from training.alarm import Spikes, not_finite
from training.device import memory_explained, seed_dropout
from training.examine import examine, out_of_patience, report_test
from training.learner import Learner, build_learner
from training.loss import LOSSES
from training.optim import add_l1, clip, learning_rate, set_learning_rate
from training.plan import seconds_per_step
from training.prepare import Job, prepare
from training.report import draw_curves, progress_bar, say, show_step
from training.run import Interruption
from training.world import Agreed, batches, together


def update(learner: Learner, step: int) -> tuple[float, float]:
    """One step downhill: average the gradients over the step's batches, move the weights. Returns loss, gradient norm.

    Raises UserError (exit code 3) before any weight changes if either of them is NaN or infinite.
    """
    train, optim = learner.config.train, learner.config.optim
    loss_of, total = LOSSES[train.loss], 0.0
    for number in batches(learner.world, learner.shared, step, train.accumulate):
        seed_dropout(train.seed, number, train.device)
        x, y = learner.data.batch("train", number, train.batch_size)
        logits = learner.forward(x.to(train.device, non_blocking=True))
        loss = loss_of(logits, y.to(train.device, non_blocking=True)) / train.accumulate
        loss.backward()
        total += float(loss.detach())
    total = learner.world.sum(total)
    if optim.l1:
        add_l1(learner.parameters, optim.l1)
    norm = float(clip(learner.parameters, optim.grad_clip))
    if not math.isfinite(total + norm):
        raise not_finite(step, total, norm, learner.model)
    for optimizer in learner.optimizers:
        optimizer.step()
    for parameter in learner.parameters:
        parameter.grad = None
    return total, norm


def train(job: Job, interruption: Interruption) -> int:
    """Train until the last step, the time limit, early stopping or an interrupt. Returns the exit code."""
    config, run, world, steps = job.config, job.run, job.world, job.config.train.steps or 0
    learner, stop = build_learner(config, job.data, world), Agreed(interruption, world)
    if job.weights:
        checkpoint.load_weights(learner.model, job.weights)
    resumed = checkpoint.resume(run, learner.model, learner.optimizers)
    world.align(learner.model)
    deadline = time.monotonic() + job.seconds
    bar, spikes = progress_bar(resumed or 0, steps), Spikes()
    for step in range(resumed or 0, steps + 1):
        stopping, last = stop(), step == steps or world.any(time.monotonic() > deadline)
        evaluating = last or step % config.train.eval_every == 0
        if (evaluating or stopping or step % config.train.save_every == 0) and step != resumed and world.leads:
            state = checkpoint.State(
                step=step, log_bytes=run.length("log.jsonl"), samples_bytes=run.length("samples.txt")
            )
            checkpoint.save(run.checkpoints, state, learner.model, learner.optimizers)
        if evaluating and not stopping:
            examine(learner, run, step, stop)
        if last or stopping or (evaluating and (stop() or world.any(out_of_patience(learner, run)))):
            break
        rate = learning_rate(step, steps, config.optim)
        set_learning_rate(learner.optimizers, rate / config.optim.lr)
        loss, norm = update(learner, step)
        spikes(step, loss, config.train.accumulate)
        if step % config.log.every == 0:
            run.log(step=step, loss=loss, lr=rate, grad_norm=norm)
            run.time(step=step)
        show_step(bar, step, loss, config.log.every)
    bar.close()
    if world.leads:
        draw_curves(run.folder)
    name = for_shell(run.folder)
    if stop():
        say(f"stopped after step {step}; everything is saved. Resume with: python train.py --resume --run {name}")
        return stop.exit_code
    report_test(learner, run, step)
    say(f"done: {step:,} steps, saved in {name}. Try it: python sample.py {name}")
    return 0


def main(command: Command) -> int:
    """Prepare and train the run that the command line describes. Returns the exit code."""
    with together() as world:
        job = prepare(command, partial(seconds_per_step, update), world)
        if job is None:
            return 0
        with job.run, memory_explained(job.config.train), Interruption() as interruption:
            return train(job, interruption)


if __name__ == "__main__":
    sys.exit(answer(partial(main, COMMAND)))
