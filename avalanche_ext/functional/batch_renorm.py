"""Batch Renormalization: batch statistics drawn towards the running ones.

Channels C are the second axis; statistics run over all others, m values a channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avalanche_ext._checks import require_real
from avalanche_ext.functional.precision import at_least_float32


def batch_renorm(
    x: Tensor,
    running_mean: Tensor,
    running_std: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    r_max: Tensor | float,
    d_max: Tensor | float,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Normalise a batch by its own statistics, corrected towards the running ones.

    .. math:: y = \gamma \Big( \frac{x - \mu_B}{\sigma_B} r + d \Big) + \beta, \qquad
        r = \mathrm{clip}_{[1/r_{max},\, r_{max}]} \frac{\sigma_B}{\sigma}, \qquad
        d = \mathrm{clip}_{[-d_{max},\, d_{max}]} \frac{\mu_B - \mu}{\sigma}

    with :math:`\sigma_B = \sqrt{\mathrm{var}_B + \epsilon}`, the variance biased. No
    gradient passes through r and d. Limits of 1 and 0 give batch normalisation.
    Statistics are float32 at least.

    Args:
        x: Shape ``(B, C)`` or ``(B, C, ...)``. One value a channel (m = 1) is allowed,
            :math:`\sigma_B = \sqrt\epsilon`; without any, the running statistics are
            those of the batch.
        running_mean: :math:`\mu`, ``(C,)``.
        running_std: :math:`\sigma`, ``(C,)``, > 0.
        weight: :math:`\gamma`, ``(C,)``; None is 1.
        bias: :math:`\beta`, ``(C,)``; None is 0.
        r_max: Largest correction of the scale, >= 1; a tensor is not checked.
        d_max: Largest correction of the shift, >= 0; a tensor is not checked.
        eps: :math:`\epsilon`, > 0.

    Returns:
        :math:`y`, shape and type of x; :math:`\mu_B` and :math:`\sigma_B`, ``(C,)``,
        without gradient.

    Raises:
        ValueError: If x has not C channels, or a number is out of its range.

    Example:
        >>> x = torch.tensor([[1.0], [3.0]])  # mean 2, standard deviation 1
        >>> mean, std = torch.zeros(1), torch.ones(1)
        >>> y, *_ = batch_renorm(x, mean, std, None, None, r_max=1.5, d_max=0.5)
        >>> y.round(decimals=3).T  # (x - 2) / 1 * 1 + 0.5
        tensor([[-0.5000,  1.5000]])

    References:
        Ioffe, NeurIPS 2017 (Batch Renormalization), algorithm 1.
    """
    _require_channels(x, running_mean)
    require_real(1e-12, eps=eps)
    if not isinstance(r_max, Tensor):
        require_real(1, r_max=r_max)
    if not isinstance(d_max, Tensor):
        require_real(0, d_max=d_max)
    if x.numel() == 0:
        y = batch_renorm_eval(x, running_mean, running_std, weight, bias)
        return y, running_mean, running_std
    with torch.no_grad():
        mean, invstd = _statistics(x, eps)
        std = invstd.reciprocal()
        r_max = torch.as_tensor(r_max, dtype=std.dtype, device=std.device)
        d_max = torch.as_tensor(d_max, dtype=std.dtype, device=std.device)
        r = (std / running_std).clamp(1 / r_max, r_max)
        d = ((mean - running_mean) / running_std).clamp(-d_max, d_max)
    # as weight and bias of a batch normalisation, r and d cost no pass over x
    scale = r if weight is None else r * weight
    shift = d if weight is None else d * weight
    shift = shift if bias is None else shift + bias
    scale, shift = scale.to(std.dtype), shift.to(std.dtype)
    y = _Normalise.apply(x, scale, shift, mean, invstd, eps)
    return y, mean, std


def batch_renorm_eval(
    x: Tensor,
    running_mean: Tensor,
    running_std: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    r"""Normalise by the running statistics alone.

    .. math:: y = \gamma \frac{x - \mu}{\sigma} + \beta

    Args:
        x: Shape ``(B, C)`` or ``(B, C, ...)``.
        running_mean: :math:`\mu`, ``(C,)``.
        running_std: :math:`\sigma`, ``(C,)``, > 0.
        weight: :math:`\gamma`, ``(C,)``; None is 1.
        bias: :math:`\beta`, ``(C,)``; None is 0.

    Returns:
        :math:`y`, shape and type of x.

    Raises:
        ValueError: If x has not C channels.

    Example:
        >>> x = torch.tensor([[1.0], [3.0]])
        >>> batch_renorm_eval(x, torch.ones(1), torch.tensor([2.0]), None, None).T
        tensor([[0., 1.]])
    """
    _require_channels(x, running_mean)
    kind = at_least_float32(x[:0]).dtype
    weight = None if weight is None else weight.to(kind)
    bias = None if bias is None else bias.to(kind)
    mean, variance = running_mean.to(kind), running_std.to(kind).square()
    fast = torch.backends.cudnn.enabled
    return torch.batch_norm(x, weight, bias, mean, variance, False, 0.0, 0.0, fast)


def _statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / standard deviation of each channel, as torch's kernels take them.

    What they make of x is thrown away; `torch.var_mean` alone is 5 times as slow.
    """
    kind = at_least_float32(x[:0]).dtype
    one = torch.ones(x.shape[1], dtype=kind, device=x.device)  # so is the precision
    _, mean, invstd = torch.native_batch_norm(x, one, one, None, None, True, 0.0, eps)
    return mean, invstd


class _Normalise(torch.autograd.Function):
    """Batch normalisation whose statistics are known, and depend on x."""

    @staticmethod
    def forward(
        ctx: Any,  # with setup_context torch would read the signature at each call
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        mean: Tensor,
        invstd: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.eps = eps
        ctx.save_for_backward(x, scale, mean, invstd)
        variance = invstd.square().reciprocal()
        fast = torch.backends.cudnn.enabled
        return torch.batch_norm(x, scale, shift, mean, variance, False, 0.0, 0.0, fast)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, mean, invstd = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        gradients = torch.ops.aten.native_batch_norm_backward(
            grad, x, scale, None, None, mean, invstd, True, ctx.eps, wanted
        )
        return (*gradients, None, None, None)


def _require_channels(x: Tensor, running_mean: Tensor) -> None:
    if x.ndim < 2 or x.shape[1] != len(running_mean):
        raise ValueError(
            f"x has shape {tuple(x.shape)}; wanted (B, {len(running_mean)}, ...)"
        )
