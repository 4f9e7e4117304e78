"""What is below and what above a module, found by running the model once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from avalanche_ext.models.cut_inputs import Example, probe_inputs, task_labels_for
from avalanche_ext.models.feature_classifier import evaluating
from avalanche_ext.models.past_data import forward

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


class NotRunnableError(ValueError):
    """The model itself cannot run on the example, whatever the cut."""


class Trace:
    """What one forward pass of three samples tells about a module.

    Attributes:
        calls: How often the module ran.
        latents: Its output, detached; None if it is no tensor.
        output: The model's, detached.
        below: Modules that ended before or with it, in this order.
        above: Modules that ended after it.
        macs: Multiply-accumulates a sample, below and in all.
        parameters_below: Those that the latents depend on.
        parameters_above: Those that the output depends on by way of the latents only.
        bypassed: The output depends on the input also by another way.
        reached: The output depends on the latents.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.latents: Tensor | None = None
        self.output = torch.empty(0)
        self.below: list[nn.Module] = []
        self.above: list[nn.Module] = []
        self.macs = (0, 0)
        self.parameters_below: set[Tensor] = set()
        self.parameters_above: set[Tensor] = set()
        self.bypassed = self.reached = False


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; modes, attributes, buffers and random numbers are put back.

    Args:
        model: Any module.
    """
    attributes = {module: dict(vars(module)) for module in model.modules()}
    buffers = [(b, b.clone()) for b in model.buffers()]
    flags = [(p, p.requires_grad) for p in model.parameters()]
    cuda = sorted({p.device.index or 0 for p, _ in flags if p.is_cuda})
    try:
        with torch.random.fork_rng(cuda), evaluating(model):
            yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for buffer, before in buffers:
            if not torch.equal(buffer, before):
                buffer.copy_(before)
        for module, before_ in attributes.items():
            for name in vars(module).keys() - before_.keys():
                delattr(module, name)
            vars(module).update(before_)


def run(model: nn.Module, x: Tensor, task_labels: Tensor | None) -> Tensor:
    """The model's output, refused if it is no tensor.

    Args:
        model: Any model.
        x: Inputs.
        task_labels: Or None.

    Returns:
        Its output.

    Raises:
        NotRunnableError: If it raises an error, or returns no tensor.
    """
    try:
        output: Any = forward(model, x, task_labels)
    except Exception as error:
        raise NotRunnableError(
            f"{type(model).__name__} cannot run on inputs of shape "
            f"{tuple(x.shape[1:])}: {error}"
        ) from error
    if not isinstance(output, Tensor):
        raise NotRunnableError(
            f"{type(model).__name__} returns a {type(output).__name__}; wanted a tensor"
        )
    return output


def trace(
    model: nn.Module, module: nn.Module, x: Tensor, task_labels: Tensor | None
) -> Trace:
    """Run the model and see what ends before a module, and what depends on it.

    Args:
        model: Any model; found as it was.
        module: One of its modules.
        x: Inputs, shape ``(3, ...)``.
        task_labels: Or None.

    Returns:
        What was seen.

    Raises:
        NotRunnableError: If the model cannot run on the inputs.
    """
    found = Trace()
    latents: list[Tensor] = []
    leaf: list[Tensor] = []

    def ended(m: nn.Module, args: Any, output: Any) -> Tensor | None:
        (found.below if not found.calls or m is module else found.above).append(m)
        if m is not module:
            return None
        found.macs = (_macs(work, x), 0)
        found.calls += 1
        if found.calls > 1 or not isinstance(output, Tensor):
            return None
        latents.append(output)
        leaf.append(output.detach().requires_grad_(output.is_floating_point()))
        return leaf[0].clone()

    x = x.detach().requires_grad_(x.is_floating_point())
    with _watched(model, ended) as work:
        output = run(model, x, task_labels)
        found.output, found.macs = output.detach(), (found.macs[0], _macs(work, x))
        if latents:
            found.latents = latents[0].detach()
            found.parameters_below = _leaves(latents[0]) - {x}
            above = _leaves(output)
            found.reached, found.bypassed = leaf[0] in above, x in above
            found.parameters_above = above - {x, leaf[0]}
    return found


def macs_by_module(model: nn.Module, example: Example) -> dict[str, int]:
    """Multiply-accumulates a sample of convolutions and matrix products, attention too.

    Args:
        model: Any model; found as it was.
        example: See `probe_inputs`.

    Returns:
        By name of the module in which they end, in the order in which modules end.

    Example:
        >>> macs_by_module(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), (3, 5, 5))
        {'0': 1944}
    """
    x = probe_inputs(model, example)
    ended = ended_modules(model, x, task_labels_for(model, x))
    return {
        name: after - before
        for (_, before), (name, after) in pairwise([("", 0), *ended])
        if after > before
    }


def ended_modules(
    model: nn.Module, x: Tensor, task_labels: Tensor | None
) -> list[tuple[str, int]]:
    """Modules in the order in which they end, with the work done by then.

    Args:
        model: Any model; found as it was.
        x: Inputs.
        task_labels: Or None.

    Returns:
        Name, and multiply-accumulates a sample when it has ended.
    """
    names = {m: n for n, m in model.named_modules()}
    found: list[tuple[str, int]] = []

    def ended(m: nn.Module, args: Any, output: Any) -> None:
        found.append((names[m], _macs(work, x)))

    with _watched(model, ended) as work:
        run(model, x, task_labels)
    return found


@contextmanager
def _watched(model: nn.Module, ended: Callable[..., Any]) -> Iterator[FlopCounterMode]:
    """A hook at the end of each module, all gradients wanted, and work counted."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    # of fused attention torch itself leaves out that of the CPU
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    count: Any = sdpa_flop_count
    formula = {fused: lambda q, k, v, *_, **__: count(q, k, v)}
    work = FlopCounterMode(display=False, custom_mapping=formula)
    with untouched(model), torch.enable_grad(), work:
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        handles = [m.register_forward_hook(ended) for m in model.modules()]
        try:
            yield work
        finally:
            for handle in handles:
                handle.remove()


def _macs(work: FlopCounterMode, x: Tensor) -> int:
    """Multiply-accumulates a sample, counted so far."""
    return work.get_total_flops() // 2 // len(x)


def _leaves(tensor: Tensor) -> set[Tensor]:
    """Tensors with gradients that a tensor was computed from."""
    if tensor.grad_fn is None:
        return {tensor} if tensor.requires_grad else set()
    todo, met, leaves = [tensor.grad_fn], {tensor.grad_fn}, set()
    while todo:
        node = todo.pop()
        if (variable := getattr(node, "variable", None)) is not None:
            leaves.add(variable)
        for following, _ in node.next_functions:
            if following is not None and following not in met:
                met.add(following)
                todo.append(following)
    return leaves
