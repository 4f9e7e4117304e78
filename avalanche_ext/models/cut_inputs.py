"""On what a model is run to see where it can be cut."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from avalanche.models.utils import is_multi_task_module
from torch import Tensor, nn

from avalanche_ext._checks import require_kind

Example = Tensor | Sequence[int]


def require_eager(model: nn.Module) -> None:
    """Refuse what is no module, or was compiled: its hooks need not run.

    Args:
        model: Any model.

    Raises:
        ValueError: If it is.
    """
    require_kind(nn.Module, model=model)
    for module in model.modules():
        # by name: importing torch's compiler takes seconds
        wrapped = type(module).__name__ == "OptimizedModule"
        if wrapped or getattr(module, "_compiled_call_impl", None) is not None:
            raise ValueError("the model is compiled; wanted it before torch.compile")


def probe_inputs(model: nn.Module, example: Example) -> Tensor:
    """Three samples for the model.

    Args:
        model: Any model.
        example: The shape of one input, ``(C, H, W)`` for instance, of which random
            numbers are made; or a batch, whose first samples are taken.

    Returns:
        Shape ``(3, ...)``, on the model's device.

    Raises:
        ValueError: If the example is neither, or the model no module or compiled.
    """
    require_eager(model)
    floating = (p.detach() for p in model.parameters() if p.is_floating_point())
    like = next(floating, torch.empty(0))
    if isinstance(example, Tensor):
        if example.ndim < 2 or not len(example):
            raise ValueError(
                f"the example has shape {tuple(example.shape)}; wanted a batch of "
                "inputs, or the shape of one input as a tuple"
            )
        return example.detach()[torch.arange(3) % len(example)].to(like.device)
    shape = tuple(example) if isinstance(example, Sequence) else ()
    if not shape or any(not isinstance(n, int) or n < 1 for n in shape):
        raise ValueError(
            f"input_shape is {example!r}; wanted a shape such as (3, 32, 32), of one "
            "input, or a batch of inputs"
        )
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, *shape, generator=generator).to(like)


def task_labels_for(model: nn.Module, x: Tensor, label: int = 0) -> Tensor | None:
    """The same task label for each sample, if the model takes task labels.

    Args:
        model: Any model.
        x: Inputs, shape ``(n, ...)``.
        label: The task label.

    Returns:
        Shape ``(n,)``, or None.
    """
    if not is_multi_task_module(model):
        return None
    return torch.full((len(x),), label, device=x.device)
