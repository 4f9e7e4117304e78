"""Norms merged into the layers they follow, the form in which rules are right."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from avalanche.models import IncrementalClassifier
from torch import Tensor, nn

from avalanche_ext.models.batch_renorm import BatchRenorm
from avalanche_ext.models.unit_layers import UnitLayer

#: Norms that can be merged into the layers before them.
Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm | BatchRenorm


def norm_pairs(model: nn.Module) -> Iterator[tuple[UnitLayer, Norm]]:
    """Norms declared right after a convolution or linear layer of as many outputs.

    Args:
        model: Any module.

    Yields:
        Layer and norm, in the order of registration.
    """
    last: nn.Module | None = None
    for leaf in model.modules():
        if any(True for _ in leaf.children()):
            continue
        if (
            isinstance(last, UnitLayer)
            and isinstance(leaf, Norm)
            and len(last.weight) == leaf.num_features
        ):
            yield last, leaf
        last = leaf


def merge_norms(model: nn.Module) -> None:
    r"""Make each norm of `norm_pairs` the identity, and its layer do its work.

    .. math:: W' = s W, \quad b' = s (b - \mu) + \beta, \quad
        s = \gamma / \sigma, \ \sigma = \sqrt{\mathrm{var} + \epsilon}

    both times :math:`(1 + \epsilon)^{-1/2}` for batch normalisation, what a norm with
    variance 1 makes of its input: the authors' tools leave it there, and alpha-beta
    rules show it by up to a percent. So logits differ by about 1e-5 of their size.

    Args:
        model: In evaluation mode. Changed: to be called within `restored`.
    """
    for layer, norm in list(norm_pairs(model)):
        scale, shift = _affine(norm)
        weight, bias = layer.weight, layer.bias
        rows = scale.view(-1, *[1] * (weight.ndim - 1))
        if bias is not None:
            shift = shift + scale * bias
        # new objects: a parameter may be shared with another layer
        layer.weight = _constant(weight * rows, weight)
        layer.bias = _constant(shift, weight)
        norm.forward = _identity  # type: ignore[method-assign]


def average_everywhere(model: nn.Module) -> None:
    """Make each unit the mean of its inputs, each norm the identity; unmask all logits.

    Of positive inputs only positive numbers come out, of the same size: whatever the
    weights were, each rule then conserves relevance exactly.

    Args:
        model: Changed: to be called within `restored`.
    """
    for module in model.modules():
        if isinstance(module, IncrementalClassifier):
            module.masking = False  # before the first experience it has no class yet
        if not isinstance(module, UnitLayer | Norm):
            continue
        weight, bias = module.weight, module.bias
        if weight is not None:
            n_inputs = weight[0].numel() if isinstance(module, UnitLayer) else 1
            module.weight = _constant(torch.full_like(weight, 1 / n_inputs), weight)
        if bias is not None:
            module.bias = _constant(torch.zeros_like(bias), bias)
        for name, value in ("mean", 0), ("var", 1), ("std", 1):
            before = getattr(module, f"running_{name}", None)
            if before is not None:
                setattr(module, f"running_{name}", torch.full_like(before, value))


def _affine(norm: Norm) -> tuple[Tensor, Tensor]:
    """What a norm multiplies by and then adds in evaluation, both ``(C,)``."""
    mean = norm.running_mean
    if isinstance(norm, BatchRenorm):
        std = norm.running_std
    else:
        assert norm.running_var is not None
        std = (norm.running_var + norm.eps).sqrt()
    assert mean is not None and norm.weight is not None and norm.bias is not None
    # BatchRenorm has its own small number in the deviation already
    rest = 1.0 if isinstance(norm, BatchRenorm) else (1 + norm.eps) ** -0.5
    scale = rest * norm.weight / std
    return scale, rest * norm.bias - scale * mean


def _constant(value: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().to(like.dtype), requires_grad=False)


def _identity(x: Tensor) -> Tensor:
    return x
