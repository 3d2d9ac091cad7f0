"""Several processes share a run: they come to the same numbers, stop together, and one of them speaks.

Every test starts real processes through torchrun; those that need several runs are campaigns.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.schema import TrainConfig
from tests.conftest import ROOT
from tests.processes import fingerprint
from training.parallel import join
from training.world import World, require_equal_shares

SINGLE = [sys.executable, "-W", "error"]
DOUBLE = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


def begin(launcher: list[str], *words: object) -> subprocess.Popen:
    """Start train.py in the current folder."""
    options = ["--"] if launcher != SINGLE else []  # else torchrun reads --run as its own --run-path
    command = [*launcher, *options, str(ROOT / "train.py"), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def run(launcher: list[str], *words: object) -> tuple[int, str]:
    """Exit code and stderr of train.py, run to its end in the current folder."""
    process = begin(launcher, *words)
    _, err = process.communicate(timeout=250)
    return process.returncode, err


def stop(process: subprocess.Popen, number: int) -> str:
    """Send a signal once the process has logged a step; what it says from then on."""
    assert process.stderr
    for line in process.stderr:
        if line.startswith("step 2 of"):
            process.send_signal(number)
            break
    return process.communicate(timeout=250)[1]


def losses(folder: Path) -> list[float]:
    """The training losses that a run has logged."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_two_processes_with_a_batch_each_equal_one_with_both_bit_for_bit(tiny, workplace):
    words = [*tiny, "--train.accumulate", 2, "--model.dropout", 0.2, "--run"]
    assert run(SINGLE, *words, "one")[0] == 0
    code, err = run(DOUBLE, *words, "two")
    assert code == 0
    assert fingerprint(workplace / "runs/one") == fingerprint(workplace / "runs/two")
    lines = [line for line in err.splitlines() if line.startswith(("step", "done", "12 steps"))]
    assert len(lines) == len(set(lines)) == 12 + 4 + 2  # steps, evaluations, the plan and the end; each said once


AT_THE_END = f"""
import atexit, os, pathlib, runpy
def note():
    names = [task.joinpath("comm").read_text().strip() for task in pathlib.Path("/proc/self/task").iterdir()]
    pathlib.Path("threads" + os.environ["RANK"]).write_text(" ".join(names))
atexit.register(note)
runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_no_thread_of_gloo_outlives_the_group_and_aborts_a_process_that_is_done(tiny, workplace):
    (workplace / "noting.py").write_text(AT_THE_END)
    words = ["--", "noting.py", *tiny, "--train.accumulate", "2", "--train.steps", "2", "--run", "r"]
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    subprocess.run([*DOUBLE, *words], check=True, capture_output=True, timeout=250, env=environment)
    for rank in (0, 1):
        names = (workplace / f"threads{rank}").read_text()
        assert "python" in names and "gloo" not in names


def test_a_step_that_cant_be_shared_is_one_line_and_leaves_no_folder(tiny, workplace):
    code, err = run(DOUBLE, *tiny, "--run", "r")
    assert code == 1  # torchrun's own
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: train.accumulate=1 is not divisible by 2 processes; "
        "for the same steps, use --train.batch_size 2 --train.accumulate 2"
    ]
    assert "exitcode  : 2" in err and not (workplace / "runs").exists()


@pytest.mark.parametrize("size", range(2, 7))
@pytest.mark.parametrize("batch_size", range(1, 9))
@pytest.mark.parametrize("accumulate", range(1, 7))
def test_the_setting_that_is_named_makes_the_same_steps_and_can_be_shared(size, batch_size, accumulate):
    train = TrainConfig(steps=1, batch_size=batch_size, accumulate=accumulate)
    if accumulate % size == 0:
        require_equal_shares(train, World(0, size))
        return
    with pytest.raises(UserError) as caught:
        require_equal_shares(train, World(0, size))
    words = str(caught.value).split()
    if "--train.batch_size" not in words:
        assert batch_size * accumulate % size
        return
    batch, count = (int(words[words.index(f"--train.{name}") + 1]) for name in ("batch_size", "accumulate"))
    assert batch * count == batch_size * accumulate and count % size == 0


def test_every_batch_of_a_step_belongs_to_exactly_one_process():
    shares = [number for rank in range(3) for number in World(rank, 3).share(5, 12)]
    assert sorted(shares) == list(range(60, 72))


def test_on_apple_s_gpu_it_is_said_that_steps_are_shared_on_a_processor():
    with pytest.raises(UserError, match="use --train"):
        join(World(0, 2), "mps")


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "words",
    [
        ["--optim.name", "muon"],
        ["--model.position", "sinusoidal"],
        ["--model.position", "rotary"],
        ["--train.freeze", "embedding"],
        ["--optim.l1", "1e-4"],
    ],
)
def test_whatever_learns_two_processes_equal_one(tiny, workplace, words):
    words = [*tiny, "--train.accumulate", 2, *words, "--run"]
    assert run(SINGLE, *words, "one")[0] == 0
    assert run(DOUBLE, *words, "two")[0] == 0
    assert fingerprint(workplace / "runs/one") == fingerprint(workplace / "runs/two")


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "near"), [("adamw", 1e-5), ("muon", 0.01)])
def test_with_more_batches_each_the_losses_are_equal_to_rounding(tiny, workplace, name, near):
    words = [*tiny, "--train.accumulate", 6, "--train.steps", 20, "--optim.name", name, "--run"]
    assert run(SINGLE, *words, "one")[0] == 0
    assert run(DOUBLE, *words, "two")[0] == 0
    assert losses(workplace / "runs/two") == pytest.approx(losses(workplace / "runs/one"), abs=near)


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_both_at_one_step_and_the_run_goes_on_exactly(tiny, workplace, number):
    words = [*tiny, "--train.accumulate", 2, "--train.steps", 300, "--train.eval_every", 100, "--log.every", 2]
    assert run(SINGLE, *words, "--run", "uncut")[0] == 0
    process = begin(DOUBLE, *words, "--run", "cut")
    err = stop(process, number)
    assert process.returncode and err.count("everything is saved. Resume with") == 1, err
    assert "error: " not in err, err
    assert run(DOUBLE, "--resume", "--run", "cut")[0] == 0
    assert fingerprint(workplace / "runs/cut") == fingerprint(workplace / "runs/uncut")


def workers(of: int) -> list[int]:
    """The process ids of the processes that torchrun has started."""
    return [int(word) for word in Path(f"/proc/{of}/task/{of}/children").read_text().split()]


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_is_started_again_and_the_run_equals_the_uncut_one(tiny, workplace, rank):
    words = [*tiny, "--train.accumulate", 2, "--train.steps", 300, "--train.save_every", 50, "--log.every", 2]
    words += ["--train.eval_every", 100, "--resume"]
    assert run(SINGLE, *words, "--run", "uncut")[0] == 0
    process = begin([*DOUBLE, "--max-restarts", "1"], *words, "--run", "cut")
    while not (workplace / "runs/cut/checkpoints/step-000100").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(workers(process.pid)[rank], signal.SIGKILL)
    _, err = process.communicate(timeout=250)
    assert process.returncode == 0 and "Traceback" not in err, err
    assert fingerprint(workplace / "runs/cut") == fingerprint(workplace / "runs/uncut")


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_numbers_that_are_not_finite_stop_all_with_one_line(tiny):
    code, err = run(DOUBLE, *tiny, "--train.accumulate", 2, "--optim.name", "sgd", "--optim.lr", "1e30", "--run", "r")
    assert code == 1 and err.count("error: ") == 1 and "exitcode  : 3" in err, err


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_minutes_become_the_same_steps_for_all(tiny, workplace):
    words = [*tiny, "--train.accumulate", 2, "--train.minutes", 0.05, "--log.every", 50, "--run", "r"]
    file = workplace / "tiny.toml"
    file.write_text(file.read_text().replace("steps = 12", ""))
    code, err = run(DOUBLE, *words)
    assert code == 0 and err.count("done: ") == 1, err


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_a_plan_is_said_once_and_writes_nothing(tiny, workplace):
    process = begin(DOUBLE, *tiny, "--train.accumulate", 2, "--dry-run")
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0 and err == "", err
    assert out.count("parameters") == 1 and not (workplace / "runs").exists()


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_fine_tuning_begins_with_the_first_processes_base_for_all(tiny, workplace):
    assert run(SINGLE, *tiny, "--run", "base")[0] == 0
    words = [*tiny, "--train.accumulate", 2, "--train.start", "base", "--model.lora.rank", 2, "--run"]
    assert run(SINGLE, *words, "one")[0] == 0
    assert run(DOUBLE, *words, "two")[0] == 0
    assert fingerprint(workplace / "runs/one") == fingerprint(workplace / "runs/two")
