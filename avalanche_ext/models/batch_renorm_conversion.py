"""Conversion of batch normalisation into Batch Renormalization."""

from __future__ import annotations

from inspect import signature
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from avalanche_ext._checks import require_choice, require_kind
from avalanche_ext.models.batch_renorm import (
    BatchRenorm,
    BatchRenorm1d,
    BatchRenorm2d,
    BatchRenorm3d,
)

StdSource = Literal["with_eps", "legacy"]

_RENORM_OF: dict[type, type[BatchRenorm]] = {
    nn.BatchNorm1d: BatchRenorm1d,
    nn.BatchNorm2d: BatchRenorm2d,
    nn.BatchNorm3d: BatchRenorm3d,
}
_SETTINGS = tuple(
    name
    for name in signature(BatchRenorm).parameters
    if name not in ("num_features", "eps", "affine")
)


def to_batch_renorm(
    model: nn.Module,
    *,
    eps: float | None = None,
    std: StdSource = "with_eps",
    **settings: Any,
) -> nn.Module:
    r"""Replace every batch normalisation in a model by Batch Renormalization.

    Weight and bias stay the same objects, so optimisers go on with them. A layer used
    in several places stays shared.

    Args:
        model: Changed in place, at any depth; other normalisations are left alone.
        eps: :math:`\epsilon` of the batch statistics; by default each layer's own.
        std: ``"with_eps"``, :math:`\sigma = \sqrt{\mathrm{var} + \epsilon}` with the
            layer's own :math:`\epsilon`, leaves the evaluation as it was;
            ``"legacy"``, :math:`\sqrt{\mathrm{var}}`, is the published code, far off
            for small variances and not finite for 0.
        **settings: Further arguments of `BatchRenorm`: ``momentum``, ``growth``, ...

    Returns:
        The model; a new layer if the model is itself a batch normalisation.

    Raises:
        ValueError: If an argument is unknown or out of its range, or a normalisation
            cannot be replaced: it keeps no running statistics, works across processes,
            is lazy or a subclass. The model is unchanged then.

    Example:
        >>> to_batch_renorm(nn.Sequential(nn.BatchNorm1d(4)), momentum=0.1)
        Sequential(
          (0): BatchRenorm1d(4, eps=1e-05, limits='clamp')
        )
    """
    require_kind(nn.Module, model=model)
    require_choice(("with_eps", "legacy"), std=std)
    for setting in settings:
        require_choice(_SETTINGS, setting=setting)
    # also where nothing is to be converted
    BatchRenorm(1, 1e-5 if eps is None else eps, affine=False, **settings)
    replaced = {
        layer: _as_batch_renorm(name, layer, eps, std, settings)
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm)
    }
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, replaced[child])
    return replaced[model] if isinstance(model, _BatchNorm) else model


def _as_batch_renorm(
    name: str,
    layer: _BatchNorm,
    eps: float | None,
    std: StdSource,
    settings: dict[str, Any],
) -> BatchRenorm:
    kind = _RENORM_OF.get(type(layer))
    if kind is None:
        raise ValueError(
            f"{name or 'the model'} is a {type(layer).__name__}; wanted BatchNorm1d, "
            "2d or 3d: what others do besides would be lost"
        )
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError(
            f"{name or 'the model'} has no running statistics; wanted a layer with "
            "track_running_stats=True"
        )
    own_eps = layer.eps if eps is None else eps
    renorm = kind(layer.num_features, own_eps, affine=False, **settings)
    renorm.to(layer.running_mean).train(layer.training)
    renorm.weight, renorm.bias = layer.weight, layer.bias
    added = layer.eps if std == "with_eps" else 0
    with torch.no_grad():
        renorm.running_mean.copy_(layer.running_mean)
        variance = layer.running_var.to(renorm.running_std)
        renorm.running_std.copy_((variance + added).sqrt())
    return renorm
