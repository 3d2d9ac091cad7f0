"""What a machine can do is used where it gains, and done without where it can't be had."""

import os
import stat
from pathlib import Path

import pytest
import torch
import torch._inductor.config

from configs.errors import UserError
from configs.schema import TrainConfig
from training import compiled
from training.device import choose_compile, choose_dtype, memory_explained, seed_dropout


@pytest.mark.parametrize(
    ("has", "parameters", "dtype"),
    [
        ({"avx512_bf16": True}, 10_700_000, "bfloat16"),
        ({"amx_bf16": True}, 10_700_000, "bfloat16"),
        ({"avx512_bf16": True}, 800_000, "float32"),
        ({"avx512_bf16": True, "amx_bf16": True}, 800_000, "bfloat16"),
        ({"amx_bf16": True}, 500_000, "bfloat16"),
        ({"amx_bf16": True}, 499_999, "float32"),
        ({"bf16": True}, 1_500_000, "bfloat16"),
        ({"bf16": True}, 1_499_999, "float32"),
        ({"avx512_f": True, "avx512_bf16": False}, 10_700_000, "float32"),
    ],
)
def test_a_processor_takes_bfloat16_where_it_has_it_and_the_network_is_large(monkeypatch, has, parameters, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert choose_dtype("auto", "cpu", parameters) == dtype
    assert choose_dtype("float32", "cpu", parameters) == "float32"


def test_a_torch_that_does_not_tell_what_its_processor_has_stays_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_dtype("auto", "cpu", 10**9) == "float32"


def test_no_processor_is_compiled_for_unasked():
    assert choose_compile("auto", "cpu", 10**9) == "off" and choose_compile("on", "cpu", 1) == "on"


def test_dropout_is_seeded_on_whatever_gpu_draws_it(monkeypatch):
    seeds: list[int] = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)  # which seeds the generators of all devices
    for device in ("cuda", "cuda:1", "mps"):
        seed_dropout(1, 3, device)
    assert len(seeds) == 3 and len(set(seeds)) == 1


@pytest.fixture
def without_compiler(monkeypatch, tmp_path):
    """A machine with no compiler, and an empty cache of what was compiled before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    compiled.give_up.cache_clear()
    torch._dynamo.reset()
    with torch._inductor.config.patch({"cpp.cxx": (None, "/nonexistent")}):  # it has read CXX when it was imported
        yield tmp_path / "cache/pellucid/compiled"
    os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)  # which `compiled` has set
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # within torch's compiler
def test_without_a_compiler_one_line_says_so_and_training_goes_on(shell, tiny, without_compiler):
    code, _, err = shell("train.py", *tiny, "--train.compile", "on")
    assert code == 0
    assert err.count("torch.compile failed (") == 1 and "done: " in err
    with_log = Path("runs/tiny/log.jsonl").read_text()
    assert shell("train.py", *tiny, "--run", "plain")[0] == 0
    assert with_log == Path("runs/plain/log.jsonl").read_text()  # it is the same network, step for step


def test_compiled_code_is_kept_where_no_one_else_can_write(without_compiler):
    compiled.compiled(torch.nn.Linear(1, 1))
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(without_compiler)
    assert stat.S_IMODE(without_compiler.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("sizes", "less"), [((32, 1), (16, 2)), ((9, 1), (3, 3)), ((7, 2), (1, 14)), ((15, 4), (5, 12)), ((2, 3), (1, 6))]
)
def test_what_a_lack_of_memory_is_answered_with_makes_the_same_steps(sizes, less):
    train = TrainConfig(steps=1, batch_size=sizes[0], accumulate=sizes[1])
    with pytest.raises(UserError, match=f"batch_size {less[0]} --train.accumulate {less[1]}$"), memory_explained(train):
        raise torch.OutOfMemoryError
    assert sizes[0] * sizes[1] == less[0] * less[1] and less[1] % sizes[1] == 0  # processes can still share it


def test_single_examples_that_do_not_fit_need_a_smaller_network():
    with pytest.raises(UserError, match="smaller model"), memory_explained(TrainConfig(steps=1, batch_size=1)):
        raise MemoryError
