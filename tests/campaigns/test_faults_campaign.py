"""Kills, signals, cuts and mutations by the hundred. By hand: pytest -m campaign tests/campaigns.

Each test takes its numbers at random from a fixed seed and writes what it counted to benchmarks/results.
"""

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from configs.files import Damaged
from tests.conftest import ROOT
from tests.processes import PHASES, Child, fingerprint, training
from tests.test_checkpoint import saved, trained
from training import checkpoint

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]
RESULTS = ROOT / "benchmarks/results/faults.json"
RECIPE = "--model.dropout 0.2 --train.accumulate 2 --train.save_every 2 --train.steps 24 --log.sample_tokens 0".split()


def record(name: str, **counts: object) -> None:
    """Put the counts of one campaign into the file of results."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["versions"] = {"python": sys.version.split()[0], "torch": torch.__version__}
    results[name] = counts
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def finished(folder: Path, *words: str) -> dict[str, str]:
    """The fingerprint of a run that nobody disturbs (any more)."""
    child = training(folder, list(words))
    assert child.wait() == 0, child.text()
    return fingerprint(folder / "runs" / words[words.index("--run") + 1])


def test_200_kills_in_a_save_loop_lose_nothing(tmp_path):
    dice, kills, acknowledged_saves, adopted = random.Random(1), 0, 0, 0
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    step = 0
    while kills < 200:

        def work(board, begin=step):
            network = trained()
            board[0] = 1
            for number in range(begin, begin + 10_000):
                for _ in range(2):  # the second takes the place of the first
                    checkpoint.save(checkpoints, checkpoint.State(step=number, log_bytes=0), *network)
                    board[8:16] = (number + 1).to_bytes(8, "little")
                checkpoint.set_best(checkpoints, number)
                checkpoint.prune(checkpoints, 2)
            return 0

        child = Child(tmp_path, work)
        assert child.reached("start-up", 1)
        time.sleep(dice.uniform(0, 0.6))  # several saves long, on a busy machine too
        child.kill()
        assert child.wait() == -signal.SIGKILL, child.text()
        kills += 1
        before = set(checkpoint.step_folders(checkpoints))
        checkpoint.adopt(checkpoints)
        adopted += bool(set(checkpoint.step_folders(checkpoints)) - before)
        found = checkpoint.last(checkpoints)
        if child.acknowledged() >= 0:
            acknowledged_saves += child.acknowledged() - step + 1
            assert found is not None and found.state.step >= child.acknowledged()
        for name in ("last", "best"):  # the newest and the best are whole
            found = getattr(checkpoint, name)(checkpoints)
            assert found is None or checkpoint.verify(found.folder)
        step = found.state.step + 1 if found else 0
    assert acknowledged_saves > kills  # else it proves nothing
    record("kill -9 in a save loop", kills=kills, acknowledged=acknowledged_saves, lost=0, wrong=0, finished=adopted)


def test_50_kills_of_a_real_run_leave_it_equal_to_the_uncut_run(tmp_path, tiny):
    dice, kills, phases = random.Random(2), 0, Counter()
    began = time.monotonic()
    uncut = finished(tmp_path, *tiny, *RECIPE, "--run", "uncut")
    lasts = time.monotonic() - began
    for number in range(1000):
        words = [*tiny, *RECIPE, "--resume", "--run", f"cut{number}"]
        child = training(tmp_path, words)
        time.sleep(dice.uniform(0, lasts))
        child.kill()
        if child.wait() == 0:
            continue
        kills += 1
        phases["after a save" if child.acknowledged() >= 0 else "before any save"] += 1
        found = checkpoint.last(tmp_path / f"runs/cut{number}/checkpoints")
        assert (found.state.step if found else -1) >= child.acknowledged()
        assert finished(tmp_path, *words) == uncut
        if kills == 50:
            break
    record("kill -9 in training", kills=kills, lost=0, wrong=0, unequal=0, moments=phases)


DIGITS = (
    '[model]\nkind = "mlp"\ndropout = 0.2\n[data]\npath = "mnist-5k"\naugment = true\n'
    "[train]\nsteps = 60\neval_every = 20\naccumulate = 2\n[log]\nevery = 1\n"
)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("network", ["text", "digits"])
def test_20_random_cuts_equal_the_uncut_run(tmp_path, tiny, network, optimizer):
    (tmp_path / "digits.toml").write_text(DIGITS)
    words = [*tiny, *RECIPE] if network == "text" else ["digits.toml"]
    words += ["--optim.name", optimizer, "--optim.schedule", "cosine"]
    cuts = random.Random(3).sample(range(1, 24 if network == "text" else 60), 20)
    uncut = finished(tmp_path, *words, "--run", "uncut")
    for cut in cuts:
        child = training(tmp_path, [*words, "--run", f"cut{cut}"], lambda cut=cut: stop_after(cut))
        assert child.wait() == 143 and f"stopped after step {cut}," in child.text(), child.text()
        assert finished(tmp_path, "--resume", "--run", f"cut{cut}") == uncut
    record(f"exact resume, {network}, {optimizer}", cuts=sorted(cuts), unequal=0)


def stop_after(step: int) -> None:
    """Let this process send itself a SIGTERM in the middle of the step before."""
    import train

    update = train.update  # of which no throwaway steps are made here, see tests/processes.py

    def update_and_stop(learner, number):
        if number == step - 1:
            signal.raise_signal(signal.SIGTERM)
        return update(learner, number)

    train.update = update_and_stop


LEAST = {"step": 1, "evaluation": 1, "save": 1}
MOST = {"step": 22, "evaluation": 5, "save": 10}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("phase", PHASES[1:])
def test_20_signals_in_each_phase_save_and_say_how_to_go_on(tmp_path, tiny, phase, number):
    dice, sent, late = random.Random(f"{phase}{number}"), 0, 0
    uncut = finished(tmp_path, *tiny, *RECIPE, "--run", "uncut")
    while sent < 20:
        name = f"cut{sent}-{late}"
        child = training(tmp_path, [*tiny, *RECIPE, "--run", name])
        assert child.reached(phase, dice.randint(LEAST[phase], MOST[phase]))
        time.sleep(dice.uniform(0, 0.004))
        child.kill(number)
        code = child.wait()
        if code == 0:  # it came after the last step
            late += 1
            continue
        sent += 1
        text = child.text()
        assert code == 128 + number and "Traceback" not in text, text
        stopped = re.search(rf"stopped after step (\d+); everything is saved. Resume with: (.*runs/{name})", text)
        assert stopped, text
        found = checkpoint.last(tmp_path / f"runs/{name}/checkpoints")
        assert found is not None and found.state.step == int(stopped[1])
        again = stopped[2].removeprefix("python train.py ").split()
        assert training(tmp_path, again).wait() == 0
        assert fingerprint(tmp_path / f"runs/{name}") == uncut
    record(f"{number.name} in {phase}", sent=sent, saved=sent, after_the_end=late, unequal=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_20_signals_at_start_up_end_at_once_and_do_no_harm(tmp_path, tiny, number):
    dice, codes = random.Random(int(number)), Counter()
    uncut = finished(tmp_path, *tiny, *RECIPE, "--run", "uncut")
    for trial in range(20):
        words = [*tiny, *RECIPE, "--resume", "--run", f"cut{trial}"]
        process = subprocess.Popen(
            [sys.executable, ROOT / "train.py", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        time.sleep(dice.uniform(0.1, 3.0))
        process.send_signal(number)
        _, err = process.communicate()
        codes[process.returncode] += 1
        assert process.returncode in (128 + number, -number) and "Traceback" not in err, err
        if trial % 4 == 0:
            assert finished(tmp_path, *words) == uncut
    record(f"{number.name} at start-up", sent=20, exit_codes={str(c): n for c, n in codes.items()}, unequal=0)


def test_10000_mutations_load_nothing_wrong(tmp_path):
    folder = saved(tmp_path)
    dice, outcomes = random.Random(4), Counter()
    good = {file: file.read_bytes() for file in sorted(folder.iterdir())}
    meant = checkpoint.verify(folder), checkpoint.read_manifest(folder)
    for _ in range(10_000):
        file = dice.choice(list(good))
        content = bytearray(good[file])
        for _ in range(dice.randint(1, 4)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        if dice.random() < 0.3:
            content = content[: dice.randrange(len(content))]
        if content == good[file]:
            outcomes["no change"] += 1
            continue
        file.write_bytes(content)
        try:
            assert (checkpoint.verify(folder), checkpoint.read_manifest(folder)) == meant, file
            outcomes["the same in other white space"] += 1
        except Damaged:
            outcomes["refused"] += 1
        file.write_bytes(good[file])
    assert outcomes["refused"] > 9_900
    record("mutations", **outcomes)


def test_two_runs_in_one_folder_20_times(tmp_path, tiny):
    dice, named = random.Random(5), 0
    for trial in range(20):
        words = [*tiny, *RECIPE, "--resume", "--run", f"r{trial}"]
        folders = [tmp_path / "a", tmp_path / "b"]
        children = []
        for folder in folders:
            folder.mkdir(exist_ok=True)
            for name in ("tiny.toml", "poem.txt"):
                (folder / name).write_text((tmp_path / name).read_text())
            path = str(tmp_path / f"shared/r{trial}")
            children.append(training(folder, [*words[:-1], path]))
            time.sleep(dice.uniform(0, 0.02))
        codes = [child.wait() for child in children]
        assert sorted(codes) == [0, 2], [child.text() for child in children]
        winner, loser = sorted(children, key=lambda child: codes[children.index(child)])
        assert f"in use by process {winner.pid} on " in loser.text() and loser.text().count("error:") == 1
        named += 1
        # The lock of a process that was killed is free again.
        dead = training(tmp_path, [*tiny, *RECIPE, "--run", f"dead{trial}"])
        assert dead.reached("step", 2)
        dead.kill()
        dead.wait()
        assert (tmp_path / f"runs/dead{trial}/run.lock").read_text().startswith(f"process {dead.pid} ")
        assert training(tmp_path, ["--resume", "--run", f"dead{trial}"]).wait() == 0
    record("two runs in one folder", pairs=20, one_went_on=20, other_named_it=named, dead_locks_taken_over=20)
