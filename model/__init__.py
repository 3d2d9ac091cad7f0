"""Networks: everything the lessons draw, and the step from logits to text."""

from typing import TYPE_CHECKING, Any

from configs.schema import GPTConfig, MLPConfig

if TYPE_CHECKING:
    from model.build import GPT, MLP, build_model

__all__ = ["GPT", "MLP", "GPTConfig", "MLPConfig", "build_model"]


def __getattr__(name: str) -> Any:
    """What needs torch is loaded when it is asked for: `model.parameters` counts without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import model.build

    return getattr(model.build, name)
