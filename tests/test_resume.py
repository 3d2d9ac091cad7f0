"""A run can be stopped anywhere and goes on as if nothing had happened."""

import json
import os
import signal
import threading
import time

import pytest

from tests.processes import fingerprint
from training import examine as examine_module
from training.run import Run

RECIPES = {
    "adamw, dropout, accumulation": ["--model.dropout", "0.2", "--train.accumulate", "2"],
    "muon": ["--optim.name", "muon", "--optim.schedule", "linear"],
    "sgd with momentum": ["--optim.name", "sgd", "--optim.momentum", "0.9", "--optim.lr", "0.1"],
    "rmsprop": ["--optim.name", "rmsprop"],
}
CUTS = [(name, 7) for name in RECIPES] + [("adamw, dropout, accumulation", cut) for cut in (1, 4, 12)]


@pytest.mark.parametrize(("recipe", "cut"), CUTS)
def test_a_run_cut_in_two_equals_the_run_uncut(shell, tiny, workplace, monkeypatch, recipe, cut):
    words = [*tiny, *RECIPES[recipe]]
    assert shell("train.py", *words, "--run", "uncut")[0] == 0
    stop_at(monkeypatch, cut)
    code, _, err = shell("train.py", *words, "--run", "cut")
    assert code == 143 and f"stopped after step {cut}" in err and "--resume" in err
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    assert shell("train.py", "--resume", "--run", "cut")[0] == 0
    assert fingerprint(workplace / "runs/cut") == fingerprint(workplace / "runs/uncut")


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send this process a SIGTERM while it writes the log line of the step before `step`."""
    log = Run.log

    def log_and_stop(run: Run, **record: object) -> None:
        log(run, **record)
        if record["step"] == step - 1 and "lr" in record:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "log", log_and_stop)


def test_digits_go_on_exactly_too(shell, workplace, monkeypatch):
    config = workplace / "digits.toml"
    config.write_text(
        '[model]\nkind = "mlp"\n[data]\npath = "mnist-5k"\naugment = true\n'
        "[train]\nsteps = 90\neval_every = 40\n[log]\nevery = 1\n"
    )
    assert shell("train.py", config, "--run", "uncut")[0] == 0
    stop_at(monkeypatch, 51)
    assert shell("train.py", config, "--run", "cut")[0] == 143
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    assert shell("train.py", "--resume", "--run", "cut")[0] == 0
    assert fingerprint(workplace / "runs/cut") == fingerprint(workplace / "runs/uncut")


def test_ctrl_c_while_validating_loses_nothing(shell, tiny, workplace, monkeypatch):
    assert shell("train.py", *tiny, "--run", "uncut")[0] == 0
    scores = examine_module.scores

    def interrupted(learner, split, stop):
        os.kill(os.getpid(), signal.SIGINT)
        return scores(learner, split, stop)

    monkeypatch.setattr(examine_module, "scores", interrupted)
    code, _, err = shell("train.py", *tiny, "--run", "cut")
    assert code == 130 and "Traceback" not in err
    monkeypatch.setattr(examine_module, "scores", scores)
    assert shell("train.py", "--resume", "--run", "cut")[0] == 0
    assert fingerprint(workplace / "runs/cut") == fingerprint(workplace / "runs/uncut")


def test_the_command_that_starts_a_run_also_continues_it(shell, tiny, workplace):
    words = [*tiny, "--resume", "--run", "r"]
    assert shell("train.py", *words)[0] == 0
    before = fingerprint(workplace / "runs/r")
    assert shell("train.py", *words)[0] == 0
    assert fingerprint(workplace / "runs/r") == before


def test_a_finished_run_learns_on_when_it_is_given_more_steps(shell, tiny, workplace):
    constant = [*tiny, "--optim.schedule", "constant"]
    shell("train.py", *constant, "--train.steps", "20", "--run", "long")
    shell("train.py", *constant, "--run", "short")
    assert shell("train.py", "--resume", "--run", "short", "--train.steps", "20")[0] == 0
    assert fingerprint(workplace / "runs/short") == fingerprint(workplace / "runs/long")


def test_what_would_change_the_run_cant_change_on_resume(shell, tiny):
    shell("train.py", *tiny)
    code, _, err = shell("train.py", *tiny, "--resume", "--optim.lr", "0.5")
    assert code == 2 and "optim.lr" in err and err.count("\n") == 1


def test_a_corpus_that_has_changed_is_noticed(shell, tiny, poem):
    shell("train.py", *tiny)
    poem.write_text(poem.read_text() + "The lazy dog.\n")
    code, _, err = shell("train.py", *tiny, "--resume")
    assert code == 2 and "has changed" in err and "--train.start" in err


def test_the_sample_in_between_doesnt_touch_training(shell, tiny, workplace):
    shell("train.py", *tiny, "--model.dropout", "0.3", "--run", "talks")
    shell("train.py", *tiny, "--model.dropout", "0.3", "--run", "silent", "--log.sample_tokens", "0")
    talks, silent = (fingerprint(workplace / "runs" / name) for name in ("talks", "silent"))
    for name in ("log.jsonl", "model.safetensors", "optimizer.safetensors"):
        assert talks[name] == silent[name]
    assert "--- step 12" in (workplace / "runs/talks/samples.txt").read_text()


def test_the_logged_loss_is_the_mean_over_the_whole_step(shell, tiny, workplace):
    shell("train.py", *tiny, "--train.accumulate", "1", "--train.batch_size", "1", "--run", "single")
    shell("train.py", *tiny, "--train.accumulate", "3", "--train.batch_size", "1", "--run", "triple")
    config = json.loads((workplace / "runs/triple/run.json").read_text())["resolved"]
    import train
    from configs.schema import Config
    from training.learner import build_learner
    from training.prepare import open_data

    config = Config.model_validate(config)
    data = open_data(config)
    learner = build_learner(config, data)
    losses = []
    for number in range(3):
        x, y = data.batch("train", number, 1)
        losses.append(train.LOSSES["cross_entropy"](learner.model(x), y).item())
    first = json.loads((workplace / "runs/triple/log.jsonl").read_text().splitlines()[1])
    assert first["loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_two_processes_cant_use_one_run(shell, tiny, workplace):
    shell("train.py", *tiny)
    held = Run(workplace / "runs/tiny")
    code, _, err = shell("train.py", *tiny, "--resume")
    assert code == 2 and f"in use by process {os.getpid()}" in err and err.count("\n") == 1
    held.lock.close()
    assert shell("train.py", *tiny, "--resume")[0] == 0


def test_a_run_stops_when_its_time_is_over(shell, tiny, workplace, monkeypatch):
    clock = time.monotonic
    began = clock()
    monkeypatch.setattr("train.time", type("T", (), {"monotonic": lambda: began + 1000 * (clock() - began)}))
    code, _, _ = shell("train.py", *tiny, "--train.minutes", "0.1", "--train.eval_every", "100000")
    assert code == 0
    resolved = json.loads((workplace / "runs/tiny/run.json").read_text())["resolved"]["train"]
    last = json.loads((workplace / "runs/tiny/log.jsonl").read_text().splitlines()[-1])
    assert "minutes" not in resolved and 0 < last["step"] < resolved["steps"]


def test_nothing_is_left_running(shell, tiny):
    before = threading.active_count()
    shell("train.py", *tiny)
    assert threading.active_count() <= before + 1  # tqdm's monitor
