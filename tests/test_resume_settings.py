"""What --resume takes and refuses: the machine is not the run's identity, the recipe is."""

import hashlib
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from configs.command import SETTINGS
from configs.errors import UserError
from configs.schema import LoRAConfig
from data import digits
from tests.conftest import POEM, TINY
from tests.processes import fingerprint, untimed
from training.resume import go_on
from training.run import Hardware, read_record, understand
from training.world import World

DIGITS = '[model]\nkind = "mlp"\n[data]\npath = "mnist-5k"\n[train]\nsteps = 12\nbatch_size = 4\neval_every = 4\n'
FREE = ["train.steps", "train.eval_every", "train.save_every", "train.keep", "train.patience", "log.every",
        "log.sample_tokens"]  # fmt: skip
MACHINE = ["train.device", "train.dtype", "train.compile", "train.threads"]
OTHER = {  # a value that neither run has
    "model.sizes": "[784, 8, 10]", "model.lora": "{}", "model.kind": "auto", "model.activation": "relu",
    "model.position": "rotary", "model.norm": "post", "model.dropout": "0.1", "model.bias": "false",
    "model.tied": "false", "model.init": "normal", "model.n_layer": "1", "model.n_head": "1", "model.n_embd": "8",
    "model.vocab_size": "300", "model.context_length": "8", "model.lora.rank": "2", "model.lora.alpha": "3.0",
    "model.lora.targets": "query", "data.path": "other.txt", "data.extensions": "txt", "data.field": "body",
    "data.tokenizer": "byte", "data.vocab_size": "270", "data.val_fraction": "0.2", "data.extend": "true",
    "data.augment": "true", "optim.name": "sgd", "optim.lr": "0.5", "optim.muon_lr": "0.5", "optim.min_lr": "1e-5",
    "optim.warmup_steps": "3", "optim.schedule": "linear", "optim.momentum": "0.5", "optim.betas": "[0.8, 0.9]",
    "optim.weight_decay": "0.1", "optim.l1": "0.1", "optim.grad_clip": "1.0", "train.steps": "14",
    "train.epochs": "30", "train.minutes": "0.5", "train.batch_size": "2", "train.accumulate": "2",
    "train.loss": "squared_error", "train.eval_every": "5", "train.save_every": "3", "train.keep": "5",
    "train.patience": "7", "train.start": "text", "train.freeze": "embedding", "train.seed": "5",
    "train.device": "cpu", "train.dtype": "bfloat16", "train.compile": "on", "train.threads": "2", "log.every": "3",
    "log.sample_tokens": "4",
}  # fmt: skip
FOR_DIGITS = {"data.path": "mnist", "train.freeze": "layers.0", "model.kind": "gpt", "train.start": "digits"}
NAMES = dict.fromkeys([*SETTINGS, *(f"model.lora.{name}" for name in LoRAConfig.model_fields)])


def few_digits(val_fraction: float = 0.1, seed: int = 0) -> dict:
    """A hundred random images in the place of five thousand real ones."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (100, 784), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (100,), generator=generator)
    held = round(100 * val_fraction)
    rest = digits.hold_out(images[20:], labels[20:], held)
    return {**rest, "test": (images[:20], labels[:20])}


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Few images, and no step is timed."""
    monkeypatch.setitem(digits.DATASETS, "mnist-5k", few_digits)
    monkeypatch.setitem(digits.DATASETS, "mnist", few_digits)
    monkeypatch.setattr("train.seconds_per_step", untimed)
    monkeypatch.setattr("train.draw_curves", lambda folder: None)
    monkeypatch.setattr("training.dryrun.product_speed", lambda device, dtype: 1e9)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with two finished runs, runs/text and runs/digits, and all that they were made from."""
    import train

    folder = tmp_path_factory.mktemp("trained")
    files = {"text.toml": TINY, "digits.toml": DIGITS, "poem.txt": POEM, "other.txt": POEM[::-1] + "ß"}
    for name, content in files.items():
        (folder / name).write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(digits.DATASETS, "mnist-5k", few_digits)
        patch.setattr("train.seconds_per_step", untimed)
        for name in ("text", "digits"):
            assert train.main(understand([f"{name}.toml"])) == 0
    return folder


@pytest.fixture
def runs(trained, workplace) -> Path:
    """Copies of the two runs, in the current folder."""
    shutil.copytree(trained, workplace, dirs_exist_ok=True)
    return workplace / "runs"


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def resolved(run: Path) -> dict:
    """What every setting became."""
    return json.loads((run / "run.json").read_text())["resolved"]


def edit(run: Path, **values) -> None:
    """Make run.json say something else: `train={"device": "cuda"}` of what was resolved; a None is taken out."""
    record = json.loads((run / "run.json").read_text())
    for name, value in values.items():
        if name == "asked":
            record["asked"] |= value
            record["origins"] |= dict.fromkeys(value, "command line")
        elif name in record["resolved"]:
            record["resolved"][name] |= value
        else:
            record[name] = value
    (run / "run.json").write_text(json.dumps({name: value for name, value in record.items() if value is not None}))


def refused(result: tuple[int, str, str]) -> list[str]:
    """The words, after `python`, of the command that the one line of a refusal ends with."""
    code, out, err = result
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("error: "), result
    _, _, command = err.rpartition(": python ")
    return shlex.split(command)


@pytest.mark.parametrize("run", ["text", "digits"])
@pytest.mark.parametrize("name", NAMES)
def test_each_setting_of_the_recipe_is_refused_with_a_command_that_works_and_every_other_is_taken(
    shell, runs, run, name, monkeypatch
):
    value = (FOR_DIGITS if run == "digits" else {}).get(name, OTHER[name])
    words = ["--resume", "--run", f"runs/{run}", f"--{name}", value]
    before = content(runs)
    planned, done = shell("train.py", *words, "--dry-run"), None
    assert content(runs) == before
    if name in FREE + MACHINE:
        assert planned[0] == 0, planned
        section, _, key = name.partition(".")
        monkeypatch.setattr("train.train", lambda job, interruption: 0)
        done = shell("train.py", *words)
        assert done[0] == 0 and str(resolved(runs / run)[section][key]) == value
        assert planned[2] == done[2]  # the same warning, if there is one
        return
    done = shell("train.py", *words)
    assert done == planned and content(runs) == before
    command = refused(done)
    again = shell(*command, "--dry-run")
    assert again[0] == 0, (done, again)


def test_the_commands_that_are_named_train(shell, runs):
    for words in (["--optim.lr", "0.5"], ["--data.path", "other.txt"], ["--model.n_layer", "1"]):
        command = refused(shell("train.py", "--resume", "--run", "text", *words))
        assert shell(*command)[0] == 0, command
    made = [resolved(runs / name) for name in ("text-2", "text-3", "text-4")]
    assert [run["train"].get("start") for run in made] == ["runs/text", "runs/text", None]
    assert (
        made[0]["optim"]["lr"] == 0.5 and made[1]["data"]["path"] == ["other.txt"] and made[2]["model"]["n_layer"] == 1
    )


def test_numbers_are_named_as_they_were_and_as_they_were_given(shell, runs):
    err = shell("train.py", "--resume", "--run", "text", "--optim.lr", "0.5")[2]
    assert "cannot change optim.lr (0.001 to 0.5) with --resume; fine-tune from it in a new run: " in err
    assert "python train.py text.toml --optim.lr 0.5 --train.start runs/text --run runs/text-2\n" in err


def test_what_may_change_takes_effect(shell, runs):
    words = ["--train.steps", "24", "--train.eval_every", "6", "--train.keep", "1", "--log.every", "4"]
    assert shell("train.py", "--resume", "--run", "text", *words, "--log.sample_tokens", "3")[0] == 0
    log = [json.loads(line) for line in (runs / "text/log.jsonl").read_text().splitlines()]
    later = [line for line in log if line["step"] > 12]
    assert [line["step"] for line in later if "loss" in line] == [16, 20]
    assert [line["step"] for line in later if "val_loss" in line] == [18, 24]
    best = (runs / "text/checkpoints/best").read_text().strip()
    kept = {folder.name for folder in (runs / "text/checkpoints").glob("step-*")}
    assert kept == {best, "step-000024"}
    samples = (runs / "text/samples.txt").read_text()
    assert len(samples.partition("--- step 24\n")[2]) == 3 + 1


def test_save_every_and_patience_take_effect(shell, runs):
    words = ["--train.steps", "40", "--train.save_every", "5", "--train.keep", "0", "--train.eval_every", "9"]
    assert shell("train.py", "--resume", "--run", "text", *words)[0] == 0
    steps = {int(folder.name[5:]) for folder in (runs / "text/checkpoints").glob("step-*")}
    assert {15, 18, 20, 25, 27, 30, 35, 36, 40} <= steps and not {16, 19, 24, 28} & steps
    with (runs / "text/log.jsonl").open("a") as log:
        log.write('{"step": 40, "val_loss": 0.0}\n')  # no later one is better
    state = max((runs / "text/checkpoints").glob("step-*")) / "state.json"
    longer = json.loads(state.read_text()) | {"log_bytes": (runs / "text/log.jsonl").stat().st_size}
    rewrite(state, json.dumps(longer))
    words = ["--train.steps", "60", "--train.eval_every", "9", "--train.patience", "2"]
    assert shell("train.py", "--resume", "--run", "text", *words)[0] == 0
    assert json.loads((runs / "text/log.jsonl").read_text().splitlines()[-1])["step"] == 54  # 45 and 54 were no better


def rewrite(file: Path, text: str) -> None:
    """Change a file of a checkpoint, and its hash in the manifest."""
    file.write_text(text)
    manifest = json.loads(file.with_name("manifest.json").read_text())
    manifest["sha256"][file.name] = hashlib.sha256(text.encode()).hexdigest()
    file.with_name("manifest.json").write_text(json.dumps(manifest))


SAME = [
    ["--optim.lr", "1e-3"],
    ["--optim.lr=0.00100"],
    ["--optim.betas", "[0.90, 0.950]"],
    ["--data.path", "./poem.txt"],
    ["--data.path", '["poem.txt"]'],
    ["--train.steps", "12"],
    ["--train.save_every", "4"],
    ["--model.n_layer", "2"],
    ["--model.kind", "gpt"],
    ["--train.compile", "auto", "--train.dtype", "auto", "--train.device", "auto"],
]


@pytest.mark.parametrize("words", SAME, ids=" ".join)
def test_the_same_value_in_another_spelling_is_no_change(shell, runs, words):
    before = content(runs)
    code, _, err = shell("train.py", "--resume", "--run", "text", *words, "--dry-run")
    assert code == 0 and err == "" and content(runs) == before


def test_an_absolute_path_and_the_config_given_again_are_no_change(shell, runs):
    words = ["text.toml", "--resume", "--data.path", str(runs.parent / "poem.txt"), "--dry-run"]
    assert shell("train.py", *words)[::2] == (0, "")


def test_a_config_that_has_changed_since_is_refused_too(shell, runs):
    file = runs.parent / "text.toml"
    file.write_text(file.read_text() + "[optim]\nlr = 0.25\n")
    command = refused(shell("train.py", "text.toml", "--resume"))
    assert shell(*command, "--dry-run")[0] == 0
    assert "optim.lr (0.001 to 0.25)" in shell("train.py", "text.toml", "--resume")[2]


def test_a_command_names_settings_of_a_config_that_is_gone_itself(shell, runs):
    (runs.parent / "text.toml").unlink()
    command = refused(shell("train.py", "--resume", "--run", "text", "--optim.lr", "0.5"))
    assert shell(*command)[0] == 0
    first, second = (resolved(runs / name) for name in ("text", "text-2"))
    assert second["model"] == first["model"] and second["optim"]["lr"] == 0.5


def test_a_run_with_spaces_and_quotes_in_its_name_is_named_so_that_a_shell_reads_it(shell, runs):
    name = "it's  my\trun"
    (runs / "text").rename(runs / name)
    command = refused(shell("train.py", "--resume", "--run", name, "--optim.lr", "0.5"))
    assert command[-1].startswith("$") and "\\x09" in command[-1]  # bash's own form, which shlex does not know
    _, _, err = shell("train.py", "--resume", "--run", name, "--optim.lr", "0.5")

    words = err.rpartition(": python ")[2].strip()
    heard = subprocess.run(["bash", "-c", f"printf '%s\\0' {words}"], capture_output=True, text=True, check=True)
    assert heard.stdout.split("\0")[:-1][-1] == f"runs/{name}-2"


@pytest.mark.parametrize("name", ["train.minutes", "train.epochs"])
def test_a_length_in_other_units_is_answered_with_steps(shell, runs, name):
    (runs / "text/timing.jsonl").write_text('{"step": 0, "at": 0}\n{"step": 10, "at": 5}\n')  # 0.5 s a step
    code, _, err = shell("train.py", "--resume", "--run", "text", f"--{name}", "3")
    windows = -(-(int(len(POEM) * 0.9) - 1) // 16)
    steps = {"train.minutes": 3 * 60 * 2, "train.epochs": -(-3 * windows // 4)}[name]
    assert code == 2 and f"cannot change {name} with --resume" in err and "fixed at 12 steps" in err
    assert err.endswith(f"python train.py --resume --train.steps {steps} --run runs/text\n")


def test_more_minutes_of_a_run_of_minutes_are_as_many_more_steps(shell, runs):
    edit(runs / "text", asked={"train.minutes": 2.0})
    assert "--train.steps 30 " in shell("train.py", "--resume", "--run", "text", "--train.minutes", "5")[2]


def test_steps_may_not_fall_below_those_that_were_made(shell, runs):
    result = shell("train.py", "--resume", "--run", "text", "--train.steps", "5")
    command = refused(result)
    assert "cannot lower train.steps to 5: runs/text has already finished 12 steps" in result[2]
    assert shell(*command)[0] == 0 and resolved(runs / "text-2")["train"]["steps"] == 5


@pytest.mark.parametrize(
    ("words", "way"),
    [
        (["--train.batch_size", "2"], "--train.batch_size 2 --train.accumulate 2"),
        (["--train.accumulate", "4"], "--train.batch_size 1 --train.accumulate 4"),
        (["--train.batch_size", "3"], "--train.batch_size 2 --train.accumulate 2"),
        (["--train.batch_size", "8"], "--train.batch_size 8 --train.start"),
        (
            ["--train.batch_size", "2", "--train.accumulate", "3"],
            "--train.batch_size 2 --train.accumulate 3 --train.start",
        ),
    ],
)
def test_a_step_of_another_size_is_refused(shell, runs, words, way):
    before = content(runs)
    result = shell("train.py", "--resume", "--run", "text", *words)
    command = refused(result)
    assert way in result[2] and "cannot change the step from 4 to " in result[2] and content(runs) == before
    assert shell(*command)[0] == 0


@pytest.mark.parametrize("sizes", [(2, 2), (1, 4)])
def test_smaller_batches_that_make_an_equal_step_are_taken_with_a_warning(shell, runs, sizes):
    words = ["--train.batch_size", sizes[0], "--train.accumulate", sizes[1], "--train.steps", "14"]
    code, _, err = shell("train.py", "--resume", "--run", "text", *words)
    assert code == 0 and err.count("warning: ") == 1
    assert f"resuming with train.batch_size {sizes[0]} instead of 4, train.accumulate {sizes[1]} instead of 1" in err
    assert "no longer bit-exact" in err
    assert [resolved(runs / "text")["train"][name] for name in ("batch_size", "accumulate")] == [*sizes]
    assert "warning" not in shell("train.py", "--resume", "--run", "text", "--train.steps", "16")[2]


def test_digits_learn_from_the_same_images_in_smaller_batches(shell, runs):
    words = ["--train.threads", "1", "--optim.name", "sgd", "--train.steps"]
    shell("train.py", "digits.toml", *words, "20", "--run", "whole")
    shell("train.py", "digits.toml", *words, "12", "--run", "parts")
    sizes = ["--train.batch_size", "1", "--train.accumulate", "4"]
    assert shell("train.py", "--resume", "--run", "parts", "--train.steps", "20", *sizes)[0] == 0
    whole, parts = (
        [json.loads(line) for line in (runs / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    )
    last = [
        next(line["val_loss"] for line in log if line["step"] == 20 and "val_loss" in line) for log in (whole, parts)
    ]
    assert last[0] == pytest.approx(last[1], rel=1e-5)


def test_a_step_that_several_processes_cannot_share_can_be_resumed_as_is_advised(shell, runs, monkeypatch):
    command = understand(["--resume", "--run", "text", "--dry-run"])
    with pytest.raises(UserError, match=r"--train\.batch_size 2 --train\.accumulate 2"):
        go_on(command, runs / "text", World(size=2))
    command = understand(
        ["--resume", "--run", "text", "--dry-run", "--train.batch_size", "2", "--train.accumulate", "2"]
    )
    assert go_on(command, runs / "text", World(size=2)) is None
    assert read_record(runs / "text").resolved.train.accumulate == 1


GPU = {"processor": "Intel Xeon", "cores": 64, "gpu": "NVIDIA H200"}
AS_ON_A_GPU = {"device": "cuda", "dtype": "bfloat16", "compile": "on", "threads": 32}


@pytest.mark.parametrize("run", ["text", "digits"])
@pytest.mark.parametrize("machine", [GPU, None], ids=["described", "from before machines were described"])
def test_a_run_of_a_gpu_resumes_without_one_and_says_what_that_changes(shell, runs, run, machine):
    edit(runs / run, hardware=machine, train=AS_ON_A_GPU)
    edit(runs / run, asked={"train.threads": "auto"})
    before, words = content(runs), ["--resume", "--run", run, "--train.steps", "14"]
    planned = shell("train.py", *words, "--dry-run")
    assert planned[0] == 0 and content(runs) == before and "2 of 14 steps left" in planned[1]
    code, _, err = shell("train.py", *words)
    warnings = [line for line in err.splitlines() if "warning" in line]
    assert code == 0 and len(warnings) == 1 and warnings[0] in planned[2], err
    assert "train.device cpu instead of cuda, train.dtype float32 instead of bfloat16, " in warnings[0]
    assert "train.compile off instead of on, train.threads 1 instead of 32" in warnings[0]
    assert warnings[0].endswith("the rest of the run is no longer bit-exact")
    assert ("on another machine (before: Intel Xeon, 64 cores, NVIDIA H200)" in warnings[0]) == (machine is not None)
    train = resolved(runs / run)["train"]
    assert [train[name] for name in AS_ON_A_GPU] == ["cpu", "float32", "off", 1]
    again = shell("train.py", "--resume", "--run", run, "--train.steps", "16")
    assert again[0] == 0 and "warning" not in again[2]


def test_what_was_asked_for_stays_where_this_machine_can_do_it(shell, runs):
    asked = {"train.device": "cuda", "train.dtype": "bfloat16", "train.compile": "off", "train.threads": 1}
    edit(runs / "text", hardware=GPU, asked=asked, train=AS_ON_A_GPU | {"compile": "off", "threads": 1})
    code, _, err = shell("train.py", "--resume", "--run", "text", "--train.steps", "14")
    assert code == 0 and "with train.device cpu instead of cuda; the rest" in err  # dtype, compile and threads stay
    train = resolved(runs / "text")["train"]
    assert [train[name] for name in AS_ON_A_GPU] == ["cpu", "bfloat16", "off", 1]


def test_on_the_same_machine_everything_stays_as_it_was_chosen(shell, runs, monkeypatch):
    edit(runs / "text", train={"threads": 2, "dtype": "bfloat16"})  # as another torch might have chosen
    edit(runs / "text", asked={"train.threads": "auto"})
    assert shell("train.py", "--resume", "--run", "text", "--dry-run")[2] == ""
    other = Hardware(processor="another", cores=2)
    monkeypatch.setattr("training.resume.hardware", lambda: other)
    err = shell("train.py", "--resume", "--run", "text", "--dry-run")[2]
    assert "train.dtype float32 instead of bfloat16, train.threads 1 instead of 2" in err


def test_another_machine_that_computes_alike_is_named_too(shell, runs):
    edit(runs / "text", hardware=GPU | {"gpu": None})
    err = shell("train.py", "--resume", "--run", "text", "--dry-run")[2]
    assert err == (
        "warning: resuming on another machine (before: Intel Xeon, 64 cores); "
        "the rest of the run is no longer bit-exact\n"
    )


def test_a_run_of_a_cpu_moves_to_a_gpu_when_it_resumes_beside_one(shell, runs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("training.resume.hardware", lambda: Hardware(**GPU))
    err = shell("train.py", "--resume", "--run", "text", "--dry-run")[2]
    assert "with train.device cuda instead of cpu, train.dtype bfloat16 instead of float32; the rest" in err
    err = shell("train.py", "--resume", "--run", "text", "--dry-run", "--train.device", "cpu")[2]
    assert "train.device" not in err and "on another machine" in err


def test_a_device_that_is_typed_now_and_is_not_there_is_an_error_as_for_a_new_run(shell, runs):
    edit(runs / "text", hardware=GPU, train=AS_ON_A_GPU)
    before = content(runs)
    code, _, err = shell("train.py", "--resume", "--run", "text", "--train.device", "cuda")
    assert code == 2 and "train.device" in err and "use cpu" in err and err.count("\n") == 1
    assert content(runs) == before
    code, _, new = shell("train.py", "text.toml", "--run", "new", "--train.device", "cuda")
    assert code == 2 and new == err


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_without_the_gpu(shell, runs):
    edit(runs / "text", asked={"train.device": "cuda"}, train=AS_ON_A_GPU)
    shutil.rmtree(runs / "text/checkpoints")
    code, _, err = shell("train.py", "--resume", "--run", "text", "--train.epochs", "0.1")
    assert code == 0 and "warning: starting without train.device=cuda" in err
    assert resolved(runs / "text")["train"]["device"] == "cpu"


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "rmsprop", "muon"])
def test_what_optimisers_of_a_gpu_remember_is_taken_up_on_a_cpu(shell, runs, name):
    """A fused optimiser keeps its count of steps beside the weights, others on the processor: files are alike."""
    words = ["text.toml", "--optim.name", name, "--optim.momentum", "0.5", "--run"]
    assert (
        shell("train.py", *words, "cut")[0] == 0 and shell("train.py", *words, "uncut", "--train.steps", "16")[0] == 0
    )
    edit(runs / "cut", hardware=GPU, train={"device": "cuda"})
    assert shell("train.py", "--resume", "--run", "cut", "--train.steps", "16")[0] == 0
    assert fingerprint(runs / "cut") == fingerprint(runs / "uncut")
