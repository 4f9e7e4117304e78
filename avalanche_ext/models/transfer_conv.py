"""Convolutions that learn a scale a kernel, and a shift, on top of frozen weights."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.models import DynamicModule
from torch import Tensor, nn

from avalanche_ext._checks import require_choice, require_kind


class TransferConv2d(nn.Conv2d, DynamicModule):
    r"""A convolution whose weights freeze one day; scale and shift are learned then.

    .. math:: y = (W \odot \Phi) * x + b + \phi_b, \qquad
        \Phi \in \mathbb{R}^{C_{out} \times C_{in} / g \times 1 \times 1}

    It begins as `torch.nn.Conv2d` and has its parameters. `begin_transfer` makes
    ``weight`` and ``bias`` buffers of the same names in the state dict, so that no
    optimizer moves them, and adds the parameters :math:`\Phi = 1` and
    :math:`\phi_b = 0`: the outputs stay as they were, to the bit. Loading the state
    dict of a layer in transfer begins it, too; an optimizer made before knows nothing
    of the new parameters then.

    Args:
        args: As of `torch.nn.Conv2d`.
        decay_to_one: Weight decay pulls :math:`\Phi` to 0, as published. True: to 1,
            by learning :math:`\Phi - 1`.
        kwargs: As of `torch.nn.Conv2d`.

    Attributes:
        mtl_weight: :math:`\Phi`; None before the transfer and with ``decay_to_one``.
        mtl_deviation: :math:`\Phi - 1`; None before the transfer and without.
        mtl_bias: :math:`\phi_b`, ``(C_out,)``; None before and without a bias.

    Raises:
        ValueError: If ``decay_to_one`` is not True or False.

    Example:
        >>> layer = TransferConv2d(3, 4, kernel_size=5)
        >>> _ = layer.begin_transfer()
        >>> {name: tuple(p.shape) for name, p in layer.named_parameters()}
        {'mtl_weight': (4, 3, 1, 1), 'mtl_bias': (4,)}

    References:
        Sun et al., CVPR 2019 (meta-transfer learning); Liu et al., CVPR 2020
        (mnemonics), section 4.1.
    """

    mtl_weight: nn.Parameter | None
    mtl_deviation: nn.Parameter | None
    mtl_bias: nn.Parameter | None

    def __init__(self, *args: Any, decay_to_one: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        require_choice((True, False), decay_to_one=decay_to_one)
        self._await_transfer(decay_to_one)

    def _await_transfer(self, decay_to_one: bool) -> None:
        # Of DynamicModule, which tells checkpoints that parameters come and go. The
        # adaptation to an experience itself does nothing: a plugin says when to begin.
        self._auto_adapt = True
        self.decay_to_one = decay_to_one
        for name in ("mtl_weight", "mtl_deviation", "mtl_bias"):
            self.register_parameter(name, None)

    @property
    def transfers(self) -> bool:
        """Whether the transfer has begun."""
        return self.mtl_weight is not None or self.mtl_deviation is not None

    def begin_transfer(self) -> dict[nn.Parameter, nn.Parameter]:
        """Freeze weight and bias, and add what is learned in their place.

        What is added is trainable where what it takes the place of was.

        Returns:
            By each parameter that is gone, the one an optimizer should have in its
            place; nothing if the transfer has begun before.

        Raises:
            ValueError: If the weight is computed from other parameters.
        """
        if self.transfers:
            return {}
        _require_plain("the convolution", self)
        ones = self.weight.new_ones(*self.weight.shape[:2], 1, 1)
        if self.decay_to_one:
            replaced = self._freeze("weight", "mtl_deviation", ones - 1)
        else:
            replaced = self._freeze("weight", "mtl_weight", ones)
        if self.bias is not None:
            replaced |= self._freeze("bias", "mtl_bias", torch.zeros_like(self.bias))
        return replaced

    def _freeze(
        self, name: str, learned: str, start: Tensor
    ) -> dict[nn.Parameter, nn.Parameter]:
        old: nn.Parameter = getattr(self, name)
        new = nn.Parameter(start, requires_grad=old.requires_grad)
        delattr(self, name)
        # a copy: the old parameter may still be in the hands of an optimizer
        self.register_buffer(name, old.detach().clone())
        setattr(self, learned, new)
        return {old: new}

    def forward(self, input: Tensor) -> Tensor:
        """Convolve a batch of maps.

        Args:
            input: Shape ``(B, C_in, H, W)``.

        Returns:
            Shape ``(B, C_out, H', W')``.
        """
        scale = self.mtl_weight
        if self.mtl_deviation is not None:
            scale = 1 + self.mtl_deviation  # type: ignore[assignment]
        weight = self.weight if scale is None else self.weight * scale
        bias = self.bias
        if bias is not None and self.mtl_bias is not None:
            bias = bias + self.mtl_bias
        output: Tensor = self._conv_forward(input, weight, bias)
        return output

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Begin the transfer if the state is one of a layer in transfer."""
        if prefix + ("mtl_deviation" if self.decay_to_one else "mtl_weight") in (
            state_dict
        ):
            self.begin_transfer()
        super()._load_from_state_dict(state_dict, prefix, *args)


def to_transfer_network(model: nn.Module, *, decay_to_one: bool = False) -> nn.Module:
    """Make every convolution of a model one whose transfer can begin.

    The layers stay the same objects, with their parameters, hooks and modes, and
    outputs stay the same bits.

    Args:
        model: Changed in place, at any depth; layers other than `torch.nn.Conv2d`
            (transposed and other dimensions, too) are left alone.
        decay_to_one: See `TransferConv2d`.

    Returns:
        The model.

    Raises:
        ValueError: If there is no convolution, or one cannot be converted: it is of a
            subclass, or its weight is computed from others (pruned, parametrised,
            `weight_norm`). The model is unchanged then.

    Example:
        >>> to_transfer_network(nn.Sequential(nn.Conv2d(1, 2, 3)))
        Sequential(
          (0): TransferConv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))
        )
    """
    require_kind(nn.Module, model=model)
    require_choice((True, False), decay_to_one=decay_to_one)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no Conv2d layer; wanted at least one"
        )
    for name, layer in layers.items():
        _require_convertible(name or "the model", layer, decay_to_one)
    for layer in layers.values():
        if not isinstance(layer, TransferConv2d):
            layer.__class__ = TransferConv2d
            layer._await_transfer(decay_to_one)  # type: ignore[operator]
    return model


def transfer_convolutions(model: nn.Module) -> list[TransferConv2d]:
    """The convolutions of a model whose transfer can begin or has begun.

    Args:
        model: Any module.

    Returns:
        Each once, in order of registration.

    Raises:
        ValueError: If there is none, or a weight is computed from others.
    """
    found = {n: m for n, m in model.named_modules() if isinstance(m, TransferConv2d)}
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no TransferConv2d layer; wanted at least one: "
            "to_transfer_network(model) makes them"
        )
    for name, layer in found.items():
        if not layer.transfers:
            _require_plain(name or "the model", layer)
    return list(found.values())


def _require_convertible(name: str, layer: nn.Conv2d, decay_to_one: bool) -> None:
    """Refuse what the conversion would take something from."""
    if isinstance(layer, TransferConv2d):
        if layer.decay_to_one != decay_to_one:
            raise ValueError(
                f"{name} has decay_to_one={layer.decay_to_one}; wanted {decay_to_one}"
            )
        return
    _require_plain(name, layer)
    if type(layer) is not nn.Conv2d:
        raise ValueError(
            f"{name} is a {type(layer).__name__}; wanted a plain Conv2d: what a "
            "subclass does besides would be lost"
        )


def _require_plain(name: str, layer: nn.Conv2d) -> None:
    """Refuse weights that are made anew in each pass."""
    missing = {"weight", "bias"} - layer._parameters.keys()
    if missing:
        raise ValueError(
            f"the {missing.pop()} of {name}, a {type(layer).__name__}, is computed "
            "(parametrised or pruned); wanted a plain parameter: make it permanent "
            "first"
        )
