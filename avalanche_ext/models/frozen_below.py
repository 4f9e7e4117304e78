"""Freeze what is below a cut for a while."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from avalanche_ext.models.latent_cut import LatentCut


class FrozenBelow:
    """No gradients below a cut, and evaluation mode there, until it is put back.

    Args:
        cut: The cut.
        adapt: Norm layers with running statistics stay as they are, so that these go
            on adapting in train mode.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> frozen = FrozenBelow(LatentCut(net, "1", (4,)))
        >>> [p.requires_grad for p in net.parameters()]
        [False, False, True, True]
        >>> frozen.put_back()
        >>> all(p.requires_grad for p in net.parameters())
        True
    """

    def __init__(self, cut: LatentCut, *, adapt: bool = False) -> None:
        parameters = cut.parameters_below.values()
        self._flags = [(p, p.requires_grad) for p in parameters]
        for p in parameters:
            p.requires_grad_(False)
            p.grad = None  # else an optimizer would go on moving it
        self._modes = [
            (m, m.training)
            for m in cut.modules_below
            if not (adapt and _has_statistics(m))
        ]
        self.set_modes()

    def set_modes(self) -> None:
        """Evaluation mode again, in case something called ``model.train()``."""
        for module, _ in self._modes:
            if module.training:  # to ask is cheap, to set is not: once an iteration
                module.training = False

    def put_back(self) -> None:
        """Let everything be as it was before."""
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)
        for module, mode in self._modes:
            module.training = mode


def _has_statistics(module: nn.Module) -> bool:
    return getattr(module, "running_mean", None) is not None


def looks_untrained(modules: Iterable[nn.Module]) -> bool:
    """Whether there are norm layers with statistics, all of them as when made.

    Args:
        modules: Parts of a model.

    Returns:
        Whether all their means and biases are 0, and their deviations 1.

    Example:
        >>> looks_untrained([nn.Linear(2, 2)]), looks_untrained([nn.BatchNorm1d(2)])
        (False, True)
    """
    norms = [m for m in modules if _has_statistics(m)]
    return bool(norms) and all(map(_is_as_new, norms))


@torch.no_grad()
def _is_as_new(norm: Any) -> bool:
    spread = getattr(norm, "running_std", None)
    if spread is None:
        spread = norm.running_var
    at_zero = norm.running_mean, getattr(norm, "bias", None)
    return not any(t is not None and bool(t.any()) for t in at_zero) and torch.allclose(
        spread,
        torch.ones_like(spread),
        atol=1e-3,  # an epsilon may have been added
    )
