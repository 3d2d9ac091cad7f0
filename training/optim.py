"""How a gradient becomes a step: the optimisers, what each of them gets, and the learning rate over time."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from configs.schema import OptimConfig

Groups = list[dict]
Build = Callable[[Groups, OptimConfig, bool], Optimizer]


def sgd(groups: Groups, config: OptimConfig, fused: bool) -> Optimizer:
    """w <- w - lr * gradient, with momentum if asked for (lesson: "Gradient descent")."""
    return SGD(groups, momentum=config.momentum, fused=fused)


def rmsprop(groups: Groups, config: OptimConfig, fused: bool) -> Optimizer:
    """SGD with each step divided by a running root mean square (Hinton 2012)."""
    return RMSprop(groups, alpha=config.betas[1], momentum=config.momentum)


def adam(groups: Groups, config: OptimConfig, fused: bool) -> Optimizer:
    """RMSProp with momentum and bias correction (Kingma and Ba 2015)."""
    return Adam(groups, betas=(config.betas[0], config.betas[1]), fused=fused)


def adamw(groups: Groups, config: OptimConfig, fused: bool) -> Optimizer:
    """Adam whose weight decay stays out of the gradient (Loshchilov and Hutter 2019)."""
    return AdamW(groups, betas=(config.betas[0], config.betas[1]), fused=fused)


OPTIMIZERS: dict[str, Build] = {"sgd": sgd, "rmsprop": rmsprop, "adam": adam, "adamw": adamw}


def build_optimizers(model: nn.Module, config: OptimConfig, dtype: torch.dtype = torch.float32) -> list[Optimizer]:
    """The optimiser that the config names; for "muon" two: Muon for hidden matrices, AdamW for the rest.

    Only matrices have weight decay, not biases and gains. `dtype` is the precision in which Muon orthogonalises.
    """
    rest = [p for p in model.parameters() if p.requires_grad]
    fused = all(p.device.type in ("cpu", "cuda") for p in rest)
    if config.name != "muon":
        return [OPTIMIZERS[config.name](groups_of(rest, config), config, fused)]
    from training.muon import Muon

    hidden = [p for p in hidden_matrices(model) if p.requires_grad]
    others = [p for p in rest if not any(p is h for h in hidden)]
    optimizers: list[Optimizer] = []
    if hidden:
        groups = [{"params": hidden, "lr": config.muon_lr, "peak_lr": config.muon_lr}]
        optimizers.append(Muon(groups, config.momentum or 0.95, config.weight_decay, dtype))
    if others:
        optimizers.append(adamw(groups_of(others, config), config, fused))
    return optimizers


def groups_of(parameters: list[nn.Parameter], config: OptimConfig) -> Groups:
    """Matrices with weight decay, vectors without; each remembers its highest rate."""
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    # One group is faster than two, so there are two only if they differ.
    decays = [(matrices, config.weight_decay), (vectors, 0.0)] if config.weight_decay else [(parameters, 0.0)]
    rates = {"lr": config.lr, "peak_lr": config.lr}
    return [{"params": params, "weight_decay": decay} | rates for params, decay in decays if params]


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The matrices from hidden vectors to hidden vectors: a GPT's blocks, an MLP's layers but the last."""
    layers = model.get_submodule("blocks") if hasattr(model, "blocks") else model.get_submodule("layers")[:-1]
    return [p for p in layers.parameters() if p.ndim == 2]


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """The rate of one step out of `steps`: warm-up from zero, then the schedule."""
    if config.schedule == "one_cycle":
        return one_cycle(step / steps, config.lr, config.min_lr)
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return SCHEDULES[config.schedule](min(done, 1.0), config.lr, config.min_lr)


def constant(done: float, high: float, low: float) -> float:
    return high


def linear(done: float, high: float, low: float) -> float:
    """A straight line from high to low."""
    return high + (low - high) * done


def cosine(done: float, high: float, low: float) -> float:
    """Half a cosine wave from high to low: slow, fast, slow (Loshchilov and Hutter 2017)."""
    return low + (high - low) * (1 + math.cos(math.pi * done)) / 2


def one_cycle(done: float, high: float, low: float, rise: float = 0.3) -> float:
    """Up from high / 25 within the first 30 %, then down to low, both as half a wave (Smith 2018)."""
    if done < rise:
        return cosine(done / rise, high / 25, high)
    return cosine((done - rise) / (1 - rise), high, low)


SCHEDULES = {"constant": constant, "linear": linear, "cosine": cosine}


def set_learning_rate(optimizers: list[Optimizer], share: float) -> None:
    """Set every group to this share of its highest rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share


def add_l1(parameters: list[nn.Parameter], strength: float) -> None:
    """Add the gradient of strength * Σ|w| over the matrices: every weight is drawn to zero equally hard."""
    for p in parameters:
        if p.ndim >= 2 and p.grad is not None:
            p.grad.add_(p.detach().sign(), alpha=strength)


def clip(parameters: list[nn.Parameter], longest: float) -> Tensor:
    """The global gradient norm; a gradient with a larger norm than `longest` is scaled down to it (0: never)."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if longest and norm > longest:  # torch's would read and write all of them in any case
        nn.utils.clip_grads_with_norm_(parameters, longest, norm)
    return norm
