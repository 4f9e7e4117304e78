"""Freeze what is below a cut for a while."""

from __future__ import annotations

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
            module.training = False

    def put_back(self) -> None:
        """Let everything be as it was before."""
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)
        for module, mode in self._modes:
            module.training = mode


def _has_statistics(module: nn.Module) -> bool:
    return getattr(module, "running_mean", None) is not None
