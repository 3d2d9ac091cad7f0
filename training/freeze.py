"""train.freeze: exclude parts of a network from training."""

import re
from collections.abc import Iterator
from itertools import product

from torch import nn

from configs.errors import UserError, did_you_mean

RANGE = re.compile(r"(\d{1,4})-(\d{1,4})")


def freeze(model: nn.Module, parts: list[str]) -> None:
    """Freeze these parts, such as "embedding", "blocks.0-3" or "blocks.0-1.attention".

    A tied embedding and unembedding are one matrix: freezing either freezes both.
    Raises UserError for an unknown part, or if every parameter would be frozen.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for part in parts:
        for place in places(part):
            found = [p for name, p in parameters.items() if f"{name}.".startswith(f"{place}.")]
            if not found:
                missing = part if place == part else f"{place}, which {part} includes"
                known = [name for name, _ in model.named_modules()]
                raise UserError(
                    f"train.freeze: no part named {missing}; available: {part_names(model)}{did_you_mean(place, known)}"
                )
            for parameter in found:
                parameter.requires_grad_(False)
    if not any(p.requires_grad for p in parameters.values()):
        raise UserError(f"train.freeze: {', '.join(parts)} freezes every parameter")


def places(part: str) -> Iterator[str]:
    """ "blocks.0-1.mlp" -> "blocks.0.mlp", "blocks.1.mlp"; a backward range is not expanded."""
    choices = []
    for word in part.split("."):
        first, last = map(int, found.groups()) if (found := RANGE.fullmatch(word)) else (1, 0)
        choices.append(map(str, range(first, last + 1)) if first <= last else [word])
    return map(".".join, product(*choices))


def part_names(model: nn.Module) -> str:
    """The parts that have parameters, such as "embedding, blocks.0-3, norm, unembedding"."""
    children = {name: child for name, child in model.named_children() if any(True for _ in child.parameters())}
    return ", ".join(
        f"{name}.0-{len(child) - 1}" if isinstance(child, nn.ModuleList) else name for name, child in children.items()
    )
