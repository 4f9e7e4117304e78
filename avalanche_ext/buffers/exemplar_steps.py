"""Steps of an optimizer on the pixels of exemplars."""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

Batch = tuple[Tensor, Tensor]


class Exemplars(NamedTuple):
    """Some exemplars as the network sees them.

    Attributes:
        x: Inputs of the network, ``(M, C, H, W)``.
        y: Class ids, int64, ``(M,)``.
    """

    x: Tensor
    y: Tensor


class Optimized(NamedTuple):
    """Outcome of an optimisation.

    Attributes:
        x: The exemplars, ``(M, C, H, W)``.
        outer_losses: Before each step, ``(steps,)``, on the CPU.
        inner_losses: Before the first and the last step of each inner loop, or the
            means of the first and the last pass in mini-batches, ``(steps, 2)``, on
            the CPU; without rows for objective ``"ncm"``.
    """

    x: Tensor
    outer_losses: Tensor
    inner_losses: Tensor


class ExemplarSteps:
    """Exemplars under way: the optimizer on their pixels, its schedule, the losses.

    Args:
        exemplars: Where to start; copied.
        box: Least and largest value of an input, broadcast against ``x``.
        optimizer: ``"adam"`` (betas 0.5, 0.999) or ``"sgd"`` (momentum 0.9).
        lr: Rate, > 0.
        weight_decay: On the inputs, >= 0.
        halve_every: The rate is halved after so many steps; 0: never.

    Attributes:
        x: The exemplars as they are now, a parameter.
        y: Their class ids.
    """

    def __init__(
        self,
        exemplars: Exemplars,
        box: tuple[Tensor, Tensor],
        *,
        optimizer: Literal["adam", "sgd"] = "sgd",
        lr: float,
        weight_decay: float = 0.0,
        halve_every: int = 0,
    ) -> None:
        self.x, self.y = nn.Parameter(exemplars.x.detach().clone()), exemplars.y
        self._low, self._high = box
        options: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        self._optimizer: Optimizer = (
            Adam([self.x], betas=(0.5, 0.999), **options)
            if optimizer == "adam"
            else SGD([self.x], momentum=0.9, **options)
        )
        self._halve_every = halve_every
        self._outer: list[Tensor] = []
        self._inner: list[Tensor] = []

    def sample(self, n: int, generator: torch.Generator | None) -> Batch:
        """Some of the exemplars as they are now.

        Args:
            n: How many at most, >= 1.
            generator: On the CPU; None for torch's default.

        Returns:
            Inputs and class ids.
        """
        x = self.x.detach()
        if len(x) <= n:  # a copy, since the steps are made in place
            return x.clone(), self.y
        rows = torch.randperm(len(x), generator=generator)[:n].to(x.device)
        return x[rows], self.y[rows]

    @torch.no_grad()
    def take(self, step: tuple[Tensor, Tensor, Tensor]) -> bool:
        """Make a step.

        Args:
            step: Outer loss, gradient, inner losses before the first and last step.

        Returns:
            False, with a warning, if the gradient is not finite: nothing is changed.
        """
        loss, gradient, inner = step
        self._outer.append(loss)
        self._inner += [inner] if len(inner) else []
        if not bool(gradient.isfinite().all() & loss.isfinite()):
            warnings.warn(
                f"the gradient of exemplars is not finite in outer step "
                f"{len(self._outer)}; they stay as they were before it",
                stacklevel=4,
            )
            return False
        self.x.grad = gradient
        self._optimizer.step()
        self.x.copy_(torch.minimum(torch.maximum(self.x, self._low), self._high))
        if self._halve_every and len(self._outer) % self._halve_every == 0:
            for group in self._optimizer.param_groups:
                group["lr"] /= 2
        return True

    def outcome(self) -> Optimized:
        """The exemplars and the losses; a warning if inner loops diverged.

        Returns:
            What came of it.
        """
        inner = torch.empty(0, 2)
        if self._inner:
            inner = torch.stack(self._inner).cpu()
        rising = inner[:, 1] > inner[:, 0]
        if bool(rising.any()):
            worst = inner[rising][-1].tolist()
            warnings.warn(
                f"{int(rising.sum())} of {len(inner)} inner loops raised the loss on the "
                f"exemplars, the last from {worst[0]:.3g} to {worst[1]:.3g}; wanted a "
                "falling one: lower inner_lr",
                stacklevel=4,
            )
        return Optimized(self.x.detach(), torch.stack(self._outer).cpu(), inner)
