"""Rules for operations that are no modules: residual sums and functional pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from zennit.core import Composite, Hook
from zennit.layer import Sum

_SUMS = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__}
_IN_PLACE = {Tensor.add_, Tensor.__iadd__}
_POOLS = {
    torch.mean,
    Tensor.mean,
    functional.avg_pool2d,
    functional.adaptive_avg_pool2d,
}


class FunctionalRules(TorchFunctionMode):
    """While active, sums and average pooling follow the composite's rule for modules.

    Autograd hands the whole relevance of a sum to each of its branches: one residual
    block after the other doubles it. Modules have rules against that; here ``a + b``,
    ``a += b`` and `torch.add` of two branches are treated as zennit's ``Sum``, and
    means over both spatial axes and functional average pooling as ``AdaptiveAvgPool2d``.
    Where the composite has no rule for the module, the operation is left alone. No
    block needs a forward function of its own therefore.

    Args:
        composite: Whose rules; it may be at work already.
    """

    def __init__(self, composite: Composite) -> None:
        super().__init__()
        self._sum: Hook | None = composite.module_map({}, "", Sum())
        self._pool: Hook | None = composite.module_map({}, "", nn.AdaptiveAvgPool2d(1))
        # zennit's hooks are weakly referenced from the graph
        self._kept: list[Any] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Apply the rule to what asks for it, and call all else."""
        kwargs = kwargs or {}
        in_place = func in _IN_PLACE
        if in_place or func in _SUMS:
            if self._sum and not kwargs and _are_branches(args):
                total = self._ruled(self._sum, Sum(0), torch.stack(args))
                return args[0].copy_(total) if in_place else total
        elif func in _POOLS and self._pool and _is_pooling(func, args, kwargs):
            return self._ruled(self._pool, _Applied(func, args[1:], kwargs), args[0])
        return func(*args, **kwargs)

    def _ruled(self, rule: Hook, module: nn.Module, x: Tensor) -> Tensor:
        hook = rule.copy()
        self._kept += [module, hook, hook.register(module)]
        y: Tensor = module(x)
        return y

    def remove(self) -> None:
        """Forget what was stored for the backward pass."""
        for kept in self._kept[1::3]:
            kept.remove()
        self._kept.clear()


class _Applied(nn.Module):
    def __init__(self, func: Any, args: Any, kwargs: Any) -> None:
        super().__init__()
        self.call = lambda x: func(x, *args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)  # type: ignore[no-any-return, no-untyped-call]


def _are_branches(args: Any) -> bool:
    """Two tensors of one shape that both depend on the model's units."""
    return (
        len(args) == 2
        and all(isinstance(a, Tensor) and a.requires_grad for a in args)
        and args[0].shape == args[1].shape
    )


def _is_pooling(func: Any, args: Any, kwargs: Any) -> bool:
    """Called with the maps first; of the means, one over both spatial axes."""
    if not args or args[0].ndim != 4 or not args[0].requires_grad:
        return False
    if func not in (torch.mean, Tensor.mean):
        return True
    axes = args[1] if len(args) > 1 else kwargs.get("dim")
    return isinstance(axes, tuple | list) and {a % 4 for a in axes} == {2, 3}
