"""Checkpoints: save weights and optimiser state at a step, verify them by hash, and load the newest intact one."""

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
ADAPTERS = (".lora_A", ".lora_B")  # endings of their parameters' names


class State(Settings):
    """state.json: the step of a checkpoint, and how long the run's logs were then."""

    format: Literal[1] = 1
    step: Annotated[int, Field(ge=0)]
    """number of updates made"""
    log_bytes: Annotated[int, Field(ge=0)]
    """size of log.jsonl at that step; --resume truncates it to this"""
    samples_bytes: Annotated[int, Field(ge=0)] | None = None
    """the same for samples.txt; unknown in checkpoints of earlier versions"""
    quantized: bool = False
    """the weights are int8 (model/quantize.py): for sampling, not for training"""


class Checkpoint(NamedTuple):
    """A checkpoint folder that has been verified."""

    folder: Path
    state: State
    base: str | None
    """SHA-256 of the base weights that its adapters were trained on; None if it contains the full network"""

    def require_trainable(self) -> None:
        """Raises UserError if the weights are int8."""
        if self.state.quantized:
            raise UserError(f"{self.folder} has int8 weights, which cannot be trained; use the original run")


def save(checkpoints: Path, state: State, model: nn.Module, optimizers: list[Optimizer]) -> Path:
    """Write checkpoints/step-N atomically: a crash at any moment leaves all of it or nothing.

    For a network with adapters only these are written; their base is stored once, in base/ next to checkpoints/.
    Raises UserError (exit code 3), before anything is written, if a tensor is not finite.
    """
    weights = own_tensors(model)
    moments = optimizer_tensors(model, optimizers)
    for name, tensor in {**weights, **moments}.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(
                f"{name} contains NaN or infinity; step {state.step} was not saved, the previous checkpoint is valid",
                NOT_FINITE,
            )
    base = None
    if has_adapters(model):
        from training.base import keep_base

        base = keep_base(checkpoints, model)
    folder = step_folder(checkpoints, state.step)
    tensors = {"model.safetensors": weights, "optimizer.safetensors": moments}
    write(folder, tensors, {"state.json": state.model_dump_json()}, base=base, tokenizer=tokenizer_hash(checkpoints))
    return folder


def verify(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, after comparing every file with the hash in its manifest.

    Raises Damaged if a file is missing, unexpected or different; UserError if a newer version wrote the checkpoint, or
    if the run's tokenizer is not the one it was trained with.
    """
    state = b""
    try:
        if sorted(os.listdir(folder)) != sorted(FILES | {"manifest.json"}):
            with suppress(Damaged):
                parse_manifest(folder)  # raises if a newer version, which may have more files, wrote it
            raise Damaged(folder, "unexpected or missing files")
        manifest = read_manifest(folder)
        if manifest.sha256.keys() != FILES:
            raise Damaged(folder, "its manifest does not list its files")
        state = small(folder / "state.json")  # before hashing, which is slow for large files
        for name, digest in manifest.sha256.items():
            if sha256(folder / name) != digest:
                raise Damaged(folder, f"{name} has changed since it was saved")
        return Checkpoint(folder, State.model_validate_json(state), manifest.base)
    except (OSError, ValidationError, RecursionError) as error:
        refuse_newer(state, folder / "state.json")
        raise Damaged(folder, str(error).splitlines()[0]) from error


def step_folder(checkpoints: Path, step: int) -> Path:
    """The folder of this step's checkpoint, whether it exists or not: checkpoints/step-000500."""
    return checkpoints / f"step-{step:06d}"


def step_folders(checkpoints: Path) -> list[Path]:
    """All step folders, newest first."""
    found = [f for f in checkpoints.glob("step-*") if STEP.fullmatch(f.name)] if checkpoints.is_dir() else []
    return sorted(found, key=lambda folder: int(folder.name[5:]), reverse=True)


def last(checkpoints: Path) -> Checkpoint | None:
    """The newest intact checkpoint, with a warning for each damaged one; None if no checkpoint is intact."""
    for folder in step_folders(checkpoints):
        try:
            return verify(folder)
        except Damaged as error:
            print(f"warning: {error}; trying an older checkpoint", file=sys.stderr)
    return None


def best(checkpoints: Path) -> Checkpoint | None:
    """The checkpoint that the file `best` names, or the last intact one if that is missing or damaged."""
    file = checkpoints / "best"
    name = small(file).decode(errors="replace").strip() if file.is_file() else ""
    if STEP.fullmatch(name):
        try:
            return verify(checkpoints / name)
        except Damaged as error:
            print(f"warning: {error}; using the last checkpoint", file=sys.stderr)
    return last(checkpoints)


def set_best(checkpoints: Path, step: int) -> None:
    """Record this step's checkpoint as the best."""
    write_whole(checkpoints / "best", f"{step_folder(checkpoints, step).name}\n")


def prune(checkpoints: Path, keep: int) -> None:
    """Delete all checkpoints but the best and the newest `keep` (0: keep all), after verifying the newest."""
    folders = step_folders(checkpoints)
    file = checkpoints / "best"
    best_name = file.read_text().strip() if file.is_file() else ""
    if keep and len(folders) > keep:
        verify(folders[0])
        for folder in folders[keep:]:
            if folder.name != best_name:
                shutil.rmtree(folder)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter by name; tied weights appear once."""
    return {name: p.detach().contiguous() for name, p in model.named_parameters()}


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that a checkpoint contains: only the adapters if the network has any, otherwise all."""
    adapted = has_adapters(model)
    return {name: tensor for name, tensor in model_tensors(model).items() if name.endswith(ADAPTERS) or not adapted}


def has_adapters(model: nn.Module) -> bool:
    """Whether the network has LoRA adapters."""
    return any(name.endswith(ADAPTERS) for name, _ in model.named_parameters())


def resume(run: Run, model: nn.Module, optimizers: list[Optimizer]) -> int | None:
    """Load the run's newest intact checkpoint, and truncate its log and samples to that step.

    Returns the checkpoint's step, or None if the run has no checkpoint yet.
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
    """Clean up after a killed process: rename partial checkpoints that are complete, and delete the others."""
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
    """Copy weights into the model, leaving its adapters as initialised. Raises KeyError if the names differ."""
    tensors = {name: tensor for name, tensor in model_tensors(model).items() if not name.endswith(ADAPTERS)}
    for name in tensors.keys() | weights.keys():
        tensors[name].copy_(weights[name])


def load_model(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Copy the saved weights into the model, and with adapters also those of their base.

    Raises Damaged if names or shapes differ, or if the base is not the one that the adapters were trained on.
    """
    if has_adapters(model):
        from training.base import load_base

        load_base(checkpoint, model)
    wanted = own_tensors(model)
    for name, tensor in read_tensors(checkpoint.folder / "model.safetensors", wanted).items():
        wanted[name].copy_(tensor)


def optimizer_tensors(model: nn.Module, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """The optimisers' state tensors, named "parameter/moment": "norm.weight/exp_avg"."""
    names = {p: name for name, p in model.named_parameters()}
    return {
        f"{names[p]}/{key}": value.detach().contiguous()
        for optimizer in optimizers
        for p, memory in optimizer.state.items()
        for key, value in memory.items()
        if isinstance(value, Tensor)
    }


def load_optimizers(checkpoint: Checkpoint, model: nn.Module, optimizers: list[Optimizer]) -> None:
    """Load the saved state into the optimisers. Raises Damaged if it does not fit the model."""
    file = checkpoint.folder / "optimizer.safetensors"
    named = dict(model.named_parameters())
    names = {p: name for name, p in named.items()}
    memory: dict[str, dict[str, Tensor]] = {}
    for full, tensor in read_tensors(file, None).items():
        name, _, key = full.rpartition("/")
        if name not in named or (tensor.ndim and tensor.shape != named[name].shape):
            raise Damaged(checkpoint.folder, f"{file.name}: unexpected tensor {full} of shape {tuple(tensor.shape)}")
        memory.setdefault(name, {})[key] = tensor
    for optimizer in optimizers:
        saved = optimizer.state_dict()
        order = [p for group in optimizer.param_groups for p in group["params"]]
        state = {i: memory[names[p]] for i, p in enumerate(order) if names[p] in memory}
        optimizer.load_state_dict({**saved, "state": state})
