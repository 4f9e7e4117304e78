"""Calling a model for gradients of gradients, and giving it back as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DataParallel, DistributedDataParallel


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, out of what ``torch.compile`` or data parallelism put around.

    Args:
        model: Any module.

    Returns:
        The innermost module that is none of these wrappers; often the model itself.

    Example:
        >>> linear = nn.Linear(2, 2)
        >>> unwrapped(nn.DataParallel(linear)) is linear
        True
    """
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif isinstance(inner := model._modules.get("_orig_mod"), nn.Module):
            model = inner
        else:
            return model


def own(tensor: Tensor) -> Tensor:
    """The values without a graph, usable in one even if made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


@contextmanager
def undisturbed(
    model: nn.Module, device: torch.device, *, batch_statistics: bool = False
) -> Iterator[None]:
    """Evaluation mode and twice differentiable operations; all is put back.

    Within, gradients are on, also under ``no_grad`` or ``inference_mode``; autocast is
    off; attention takes the form that has a second derivative; compiled modules run
    uncompiled. Afterwards every module's attributes (modes, what it noted of a batch)
    and the random state are as before, also after an exception.

    Args:
        model: Its parameters and buffers are the caller's to replace (by
            `torch.func.functional_call`).
        device: Where it is.
        batch_statistics: Batch normalisations use those of the batch, and update
            nothing.
    """
    modules = list(model.modules())
    found = [(vars(module), dict(vars(module))) for module in modules]
    on_cpu = device.type == "cpu"
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.autocast(device.type, enabled=False))
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            devices, kind = ([], "cuda") if on_cpu else ([device], device.type)
            stack.enter_context(torch.random.fork_rng(devices, device_type=kind))
            if any(_is_compiled(module) for module in modules):
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            for module in modules:
                module.training = False
                if batch_statistics and isinstance(module, _BatchNorm):
                    module.training, module.track_running_stats = True, False
            yield
    finally:
        for now, before in found:
            now.clear()
            now.update(before)


def _is_compiled(module: nn.Module) -> bool:
    in_place = getattr(module, "_compiled_call_impl", None) is not None
    return in_place or "_orig_mod" in module._modules
