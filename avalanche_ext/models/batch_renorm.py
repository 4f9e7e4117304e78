"""Layers of Batch Renormalization, in the place of those of batch normalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from avalanche_ext._checks import (
    require_choice,
    require_fraction,
    require_real,
    require_whole,
)
from avalanche_ext.functional.batch_renorm import batch_renorm, batch_renorm_eval

if TYPE_CHECKING:
    from typing import Self

Limits = Literal["clamp", "overshoot"]

#: Buffers that `BatchRenorm.set_phase` sets.
_PHASE = ("momentum", "r_max", "d_max", "max_r_max", "max_d_max", "growth")


class BatchRenorm(nn.Module):
    r"""Batch Renormalization of any number of axes after the channels.

    In training, `batch_renorm`, and after it, with the batch's statistics:

    .. math:: \mu \leftarrow \mu + \alpha (\mu_B - \mu), \quad
        \sigma \leftarrow \sigma + \alpha (\sigma_B - \sigma), \quad
        r_{max} \leftarrow r_{max} + g N \text{ while below its maximum}

    and the same for :math:`d_{max}`, N being the samples of the batch. In evaluation,
    `batch_renorm_eval`, and nothing changes. Forward passes wait for no device: every
    number below is a buffer, hence also part of the state dict. Buffers are float32 at
    least: a cast of the model to half precision takes only weight and bias.

    Args:
        num_features: Channels C.
        eps: Added to the batch's variance, > 0.
        momentum: :math:`\alpha` in ``[0, 1]``.
        affine: Whether there are weight and bias.
        r_max: :math:`r_{max}` to start with, from 1 to its maximum.
        d_max: :math:`d_{max}` to start with, from 0 to its maximum.
        max_r_max: Maximum of :math:`r_{max}`.
        max_d_max: Maximum of :math:`d_{max}`.
        growth: :math:`g`, growth of both limits a sample, >= 0.
        limits: ``"clamp"`` stops at the maxima; ``"overshoot"``, the published code,
            lets the last step go beyond, for 1.25 up to 1.256 with batches of 128.
        skip_single: Whether a training batch with one value a channel (one sample of
            one pixel) leaves all buffers alone. Otherwise it draws :math:`\sigma`
            towards :math:`\sqrt\epsilon`, as published.

    Attributes:
        running_mean: :math:`\mu`, ``(C,)``; at first 0.
        running_std: :math:`\sigma`, ``(C,)``; at first 1.
        num_batches_tracked: Training batches so far.

    Raises:
        ValueError: If an argument is out of its range; in the forward pass, if the
            input has another number of axes or channels.

    Example:
        >>> layer = BatchRenorm2d(3, growth=0.01)
        >>> layer(torch.randn(8, 3, 4, 4)).shape, layer.r_max
        (torch.Size([8, 3, 4, 4]), tensor(1.0800))

    References:
        Ioffe, NeurIPS 2017. Limits, growth and momentum: Lomonaco et al., CVPRW 2020
        (AR1*), and the code of Pellegrini et al., IROS 2020.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_std: Tensor
    num_batches_tracked: Tensor
    momentum: Tensor
    r_max: Tensor
    d_max: Tensor
    max_r_max: Tensor
    max_d_max: Tensor
    growth: Tensor

    #: Numbers of axes an input may have; None for any from 2.
    axes: tuple[int, ...] | None = None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.01,
        affine: bool = True,
        *,
        r_max: float = 1.0,
        d_max: float = 0.0,
        max_r_max: float = 1.25,
        max_d_max: float = 0.5,
        growth: float = 4.1e-5,
        limits: Limits = "clamp",
        skip_single: bool = False,
    ) -> None:
        require_whole(1, num_features=num_features)
        require_real(1e-12, eps=eps)
        require_choice(("clamp", "overshoot"), limits=limits)
        require_choice((True, False), affine=affine, skip_single=skip_single)
        values = (momentum, r_max, d_max, max_r_max, max_d_max, growth)
        phase = dict(zip(_PHASE, values, strict=True))
        _require_phase(phase)
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.limits = limits
        self.skip_single = skip_single
        ones, zeros = torch.ones(num_features), torch.zeros(num_features)
        self.register_parameter("weight", nn.Parameter(ones) if affine else None)
        self.register_parameter("bias", nn.Parameter(zeros) if affine else None)
        self.register_buffer("running_mean", zeros.clone())
        self.register_buffer("running_std", ones.clone())
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        for name in _PHASE:
            self.register_buffer(name, torch.tensor(0.0))
        self.set_phase(**phase)

    def set_phase(
        self,
        *,
        momentum: float | None = None,
        r_max: float | None = None,
        d_max: float | None = None,
        max_r_max: float | None = None,
        max_d_max: float | None = None,
        growth: float | None = None,
    ) -> None:
        """Set what is given, and leave the rest as it is.

        From its second experience on AR1* takes ``momentum=5e-5, r_max=1.25,
        d_max=0.5, growth=0``.

        Args:
            momentum: See the class, as for the others.
            r_max: At most its maximum.
            d_max: At most its maximum.
            max_r_max: At least 1; a limit above it is lowered to it.
            max_d_max: At least 0; the same.
            growth: At least 0.

        Raises:
            ValueError: If an argument is out of its range; nothing is set then.
        """
        values = (momentum, r_max, d_max, max_r_max, max_d_max, growth)
        given = {n: v for n, v in zip(_PHASE, values, strict=True) if v is not None}
        _require_phase(given)
        for name in ("r_max", "d_max"):
            if name in given or f"max_{name}" in given:
                maximum = float(given.get(f"max_{name}", getattr(self, f"max_{name}")))
                value = given.get(name, min(maximum, float(getattr(self, name))))
                if value > maximum * (1 + 1e-6):
                    raise ValueError(
                        f"{name} is {value}; wanted at most max_{name}, {maximum}"
                    )
                given[name] = value
        for name, value in given.items():
            getattr(self, name).fill_(value)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a batch; in training, update the buffers.

        Args:
            x: Shape ``(B, C)`` or ``(B, C, ...)``.

        Returns:
            Shape and type of x.
        """
        if self.axes is not None and x.ndim not in self.axes:
            wanted = " or ".join(map(str, self.axes))
            raise ValueError(f"x has shape {tuple(x.shape)}; wanted {wanted} axes")
        statistics = self.running_mean, self.running_std
        if not self.training:
            found: Tensor = _kernels[1](x, *statistics, self.weight, self.bias)
            return found
        y: Tensor
        y, mean, std = _kernels[0](
            x,
            *statistics,
            self.weight,
            self.bias,
            r_max=self.r_max,
            d_max=self.d_max,
            eps=self.eps,
        )
        if not (self.skip_single and x.numel() <= self.num_features):
            self._update(mean, std, n=x.shape[0])
        return y

    @torch.no_grad()
    def _update(self, mean: Tensor, std: Tensor, n: int) -> None:
        for running, batch in (self.running_mean, mean), (self.running_std, std):
            running += self.momentum * (batch - running)
        for limit, maximum in (
            (self.r_max, self.max_r_max),
            (self.d_max, self.max_d_max),
        ):
            limit += (limit < maximum) * self.growth * n
            if self.limits == "clamp":
                limit.clamp_(max=maximum)
        self.num_batches_tracked += 1

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            after = getattr(self, name)
            # in half precision small steps are lost: limits would never widen
            if after.dtype in (torch.float16, torch.bfloat16):
                self._buffers[name] = buffer.to(after.device, torch.float32)
        return self

    def extra_repr(self) -> str:
        """What `repr` shows of the layer."""
        return f"{self.num_features}, eps={self.eps}, limits={self.limits!r}"


def _require_phase(given: dict[str, Any]) -> None:
    for name, value in given.items():
        if name == "momentum":
            require_fraction(momentum=value)
        else:
            require_real(1 if name.endswith("r_max") else 0, **{name: value})


#: Of training and of evaluation.
_kernels: list[Any] = [batch_renorm, batch_renorm_eval]


def leave_batch_renorm_uncompiled() -> None:
    """From now on compiled models call the kernels of `BatchRenorm` as they are.

    torch's compiler cannot take limits that are tensors, and mixes up the precisions
    of batch normalisation under autocast.
    """
    _kernels[:] = map(torch.compiler.disable, (batch_renorm, batch_renorm_eval))


class BatchRenorm1d(BatchRenorm):
    """Batch Renormalization of ``(B, C)`` or ``(B, C, L)``; see `BatchRenorm`."""

    axes = (2, 3)


class BatchRenorm2d(BatchRenorm):
    """Batch Renormalization of ``(B, C, H, W)``; see `BatchRenorm`."""

    axes = (4,)


class BatchRenorm3d(BatchRenorm):
    """Batch Renormalization of ``(B, C, D, H, W)``; see `BatchRenorm`."""

    axes = (5,)


def batch_renorms_of(model: nn.Module) -> Iterator[BatchRenorm]:
    """Every layer of Batch Renormalization in a model, each once.

    Args:
        model: Any module, also such a layer itself.

    Yields:
        The layers, in order of registration.
    """
    return (m for m in model.modules() if isinstance(m, BatchRenorm))
