"""The same commands on an NVIDIA GPU."""

import json

import pytest
import torch

from training.device import seed_dropout

pytestmark = pytest.mark.cuda


def resolved(run) -> dict:
    """What a run's `auto` settings became."""
    return json.loads((run / "run.json").read_text())["resolved"]["train"]


def test_auto_takes_the_gpu_and_its_bfloat16(shell, tiny, workplace):
    assert shell("train.py", *tiny, "--train.compile", "off")[0] == 0
    train = resolved(workplace / "runs/tiny")
    assert train["device"] == "cuda"
    assert (train["dtype"] == "bfloat16") == torch.cuda.is_bf16_supported(including_emulation=False)


def test_a_network_trained_on_the_gpu_speaks_on_the_cpu(shell, tiny):
    shell("train.py", *tiny, "--train.dtype", "float32")
    words = ["sample.py", "tiny", "--temperature", "0", "--max-tokens", "20", "--seed", "1", "--device"]
    assert shell(*words, "cpu")[1] == shell(*words, "cuda")[1]


MODERN = ["--model.position", "rotary", "--optim.name", "muon"]


@pytest.mark.parametrize("words", [[], MODERN], ids=["as it is", "rotary, muon"])
def test_float32_learns_the_same_on_both(shell, tiny, workplace, words):
    losses = []
    for device in ("cpu", "cuda"):
        shell("train.py", *tiny, *words, "--run", device, "--train.device", device, "--train.dtype", "float32")
        lines = (workplace / "runs" / device / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["val_loss"] for line in lines if "val_loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("words", [[], MODERN], ids=["as it is", "rotary, muon"])
def test_a_compiled_network_keeps_its_names(shell, tiny, words):
    assert shell("train.py", *tiny, *words, "--train.compile", "on")[0] == 0
    assert shell("sample.py", "tiny", "--device", "cpu")[0] == 0


def test_dropout_on_the_gpu_is_a_function_of_the_batch_number():
    draws = []
    for number in (3, 4, 3):
        seed_dropout(1, number, "cuda")
        draws.append(torch.nn.functional.dropout(torch.ones(100, device="cuda")).cpu())
    assert torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[1])
