"""Where training stood, on disk: all of it, verified before it is used, the newest good one first."""

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer

from configs.errors import UserError
from configs.files import Damaged, refuse_newer, small, sync, write_whole
from configs.schema import Settings
from data.fetch import sha256
from training.manifest import parse_manifest, read_manifest, tokenizer_hash, write
from training.run import CHECKPOINT_FILES, NOT_FINITE, STEP, Run
from training.tensorfile import read_tensors

FILES = set(CHECKPOINT_FILES)
ADAPTERS = (".lora_A", ".lora_B")  # how their parameters' names end


class State(Settings):
    """state.json: where training stood."""

    format: Literal[1] = 1
    step: Annotated[int, Field(ge=0)]
    """updates made"""
    log_bytes: Annotated[int, Field(ge=0)]
    """length of log.jsonl at that moment; --resume cuts it back to this"""
    samples_bytes: Annotated[int, Field(ge=0)] | None = None
    """the same of samples.txt; unknown in checkpoints of earlier versions"""
    quantized: bool = False
    """the weights are int8 (model/quantize.py): for sampling, not for training"""


class Checkpoint(NamedTuple):
    """A folder whose every file has been found whole."""

    folder: Path
    state: State
    base: str | None
    """SHA-256 of the weights beside which its adapters learned; None if it holds the whole network"""

    def require_trainable(self) -> None:
        """Raises UserError if the weights are int8."""
        if self.state.quantized:
            raise UserError(f"{self.folder} holds int8 weights, which can't learn; go on from the run it was made of")


def save(checkpoints: Path, state: State, model: nn.Module, optimizers: list[Optimizer]) -> Path:
    """Write checkpoints/step-N so that a crash at any moment leaves either all of it or nothing.

    Of a network with adapters these alone are written; what they adapt is kept once, in base/ beside checkpoints/.
    Raises UserError (exit code 3), before anything is written, if a tensor is not finite.
    """
    weights = own_tensors(model)
    moments = optimizer_tensors(model, optimizers)
    for name, tensor in {**weights, **moments}.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{name} is not finite, so step {state.step} is not saved; the last is good", NOT_FINITE)
    base = None
    if has_adapters(model):
        from training.base import keep_base

        base = keep_base(checkpoints, model)
    folder = step_folder(checkpoints, state.step)
    tensors = {"model.safetensors": weights, "optimizer.safetensors": moments}
    write(folder, tensors, {"state.json": state.model_dump_json()}, base=base, tokenizer=tokenizer_hash(checkpoints))
    return folder


def verify(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, if its files are exactly those of its manifest, hash by hash.

    Raises Damaged otherwise, and UserError if a newer version wrote it, or if the run's tokenizer is not the one it was
    trained with.
    """
    state = b""
    try:
        if sorted(os.listdir(folder)) != sorted(FILES | {"manifest.json"}):
            with suppress(Damaged):
                parse_manifest(folder)  # a newer version may have added some
            raise Damaged(folder, "its files are not those of a checkpoint")
        manifest = read_manifest(folder)
        if manifest.sha256.keys() != FILES:
            raise Damaged(folder, "its manifest does not list its files")
        state = small(folder / "state.json")  # before anything is hashed, which takes as long as files are large
        for name, digest in manifest.sha256.items():
            if sha256(folder / name) != digest:
                raise Damaged(folder, f"{name} has changed since it was saved")
        return Checkpoint(folder, State.model_validate_json(state), manifest.base)
    except (OSError, ValidationError, RecursionError) as error:
        refuse_newer(state, folder / "state.json")
        raise Damaged(folder, str(error).splitlines()[0]) from error


def step_folder(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of this step is or would be."""
    return checkpoints / f"step-{step:06d}"


def step_folders(checkpoints: Path) -> list[Path]:
    """All step folders, the newest first."""
    found = [f for f in checkpoints.glob("step-*") if STEP.fullmatch(f.name)] if checkpoints.is_dir() else []
    return sorted(found, key=lambda folder: int(folder.name[5:]), reverse=True)


def last(checkpoints: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; what is damaged is named on the way. None if there is none."""
    for folder in step_folders(checkpoints):
        try:
            return verify(folder)
        except Damaged as error:
            print(f"warning: {error}; looking for an older one", file=sys.stderr)
    return None


def best(checkpoints: Path) -> Checkpoint | None:
    """The checkpoint that `best` names, if there is one and it is whole, else the last."""
    file = checkpoints / "best"
    name = small(file).decode(errors="replace").strip() if file.is_file() else ""
    if STEP.fullmatch(name):
        try:
            return verify(checkpoints / name)
        except Damaged as error:
            print(f"warning: {error}; taking the last one", file=sys.stderr)
    return last(checkpoints)


def set_best(checkpoints: Path, step: int) -> None:
    """Name the checkpoint of this step the best."""
    write_whole(checkpoints / "best", f"{step_folder(checkpoints, step).name}\n")


def prune(checkpoints: Path, keep: int) -> None:
    """Delete all but the best and the newest `keep` (0: keep all), once the newest is known to be whole."""
    folders = step_folders(checkpoints)
    file = checkpoints / "best"
    best_name = file.read_text().strip() if file.is_file() else ""
    if keep and len(folders) > keep:
        verify(folders[0])
        for folder in folders[keep:]:
            if folder.name != best_name:
                shutil.rmtree(folder)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter by name; one that is tied to another appears once."""
    return {name: p.detach().contiguous() for name, p in model.named_parameters()}


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds of a network: its adapters where it has some, else all of it."""
    adapted = has_adapters(model)
    return {name: tensor for name, tensor in model_tensors(model).items() if name.endswith(ADAPTERS) or not adapted}


def has_adapters(model: nn.Module) -> bool:
    """Whether the network is one of [model.lora]."""
    return any(name.endswith(ADAPTERS) for name, _ in model.named_parameters())


def resume(run: Run, model: nn.Module, optimizers: list[Optimizer]) -> int | None:
    """Load the run's newest intact checkpoint, and cut its log and samples back to that moment.

    Returns the steps made so far, None for a run that has no checkpoint yet.
    """
    found = last(run.checkpoints)
    if found:
        found.require_trainable()
        load_model(found, model)
        load_optimizers(found, model, optimizers)
    run.cut("log.jsonl", found.state.log_bytes if found else 0)
    run.cut("samples.txt", found.state.samples_bytes if found else 0)
    run.cut("timing.jsonl")
    return found.state.step if found else None


def adopt(checkpoints: Path) -> None:
    """Finish what a process that was killed had begun: a checkpoint all written but not renamed; half ones go."""
    for beside in checkpoints.glob(".step-*.partial"):
        folder = beside.with_name(beside.name[1:].removesuffix(".partial"))
        try:
            verify(beside)
        except Damaged:
            shutil.rmtree(beside)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
            sync(checkpoints)


@torch.no_grad()
def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights into the model; adapters, which only it has, stay as they begin. Raises KeyError for other names."""
    tensors = {name: tensor for name, tensor in model_tensors(model).items() if not name.endswith(ADAPTERS)}
    for name in tensors.keys() | weights.keys():
        tensors[name].copy_(weights[name])


def load_model(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Copy the saved weights, and those of the base that adapters belong to, into the model.

    Raises Damaged if names, shapes or types differ, and if the base is not the one that the checkpoint belongs to.
    """
    if has_adapters(model):
        from training.base import load_base

        load_base(checkpoint, model)
    wanted = own_tensors(model)
    for name, tensor in read_tensors(checkpoint.folder / "model.safetensors", wanted).items():
        wanted[name].copy_(tensor)


def optimizer_tensors(model: nn.Module, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """What the optimisers remember: "parameter name/moment name" -> tensor."""
    names = {p: name for name, p in model.named_parameters()}
    return {
        f"{names[p]}/{key}": value.detach().contiguous()
        for optimizer in optimizers
        for p, memory in optimizer.state.items()
        for key, value in memory.items()
        if isinstance(value, Tensor)
    }


def load_optimizers(checkpoint: Checkpoint, model: nn.Module, optimizers: list[Optimizer]) -> None:
    """Give the optimisers back what they remembered. Raises Damaged if it does not fit the model."""
    file = checkpoint.folder / "optimizer.safetensors"
    named = dict(model.named_parameters())
    names = {p: name for name, p in named.items()}
    memory: dict[str, dict[str, Tensor]] = {}
    for full, tensor in read_tensors(file, None).items():
        name, _, key = full.rpartition("/")
        if name not in named or (tensor.ndim and tensor.shape != named[name].shape):
            raise Damaged(checkpoint.folder, f"{file.name}: {full} does not belong to this network")
        memory.setdefault(name, {})[key] = tensor
    for optimizer in optimizers:
        saved = optimizer.state_dict()
        order = [p for group in optimizer.param_groups for p in group["params"]]
        state = {i: memory[names[p]] for i, p in enumerate(order) if names[p] in memory}
        optimizer.load_state_dict({**saved, "state": state})
